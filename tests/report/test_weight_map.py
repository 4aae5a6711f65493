from __future__ import annotations

import json
from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.files.checkpoints import save_checkpoint
from nnunet_ext.report.weight_map import (
    centred_gram,
    evenly_spaced,
    map_samples,
    principal_plane,
    unique_tensors,
)
from nnunet_ext.samples import Sample


def weights(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float32)}


def write_samples(folder: Path, samples: list[dict[str, torch.Tensor]]) -> None:
    entries = []
    for epoch, sample in enumerate(samples):
        save_checkpoint({"network_weights": sample}, folder / f"s{epoch}.pth")
        entries.append(
            {"file": f"s{epoch}.pth", "cycle": epoch // 2, "epoch": epoch, "epoch_in_cycle": 0, "learning_rate": 0.1,
             "pseudo_dice": None, "sha256": ""}
        )  # fmt: skip
    (folder / "samples.json").write_text(json.dumps({"samples": entries}))


def test_points_on_a_line_stay_on_a_line_at_their_distances():
    # along (3, 4)/5, at 0, 5 and 20 from the first: centred on 25/3
    gram = centred_gram([weights(0, 0), weights(3, 4), weights(12, 16)])
    points, explained = principal_plane(gram)
    np.testing.assert_allclose(np.abs(points[:, 0] - points[0, 0]), [0, 5, 20])
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-6)
    assert explained == pytest.approx((1, 0))


def test_a_cross_lies_in_its_plane_and_shares_are_those_of_its_arms():
    # arms of 3 and 1: variances 9 and 1, so shares 0.9 and 0.1
    points, explained = principal_plane(centred_gram([weights(*p) for p in ((3, 0), (-3, 0), (0, 1), (0, -1))]))
    np.testing.assert_allclose(np.abs(points), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-7)
    assert explained == pytest.approx((0.9, 0.1))


def test_what_two_axes_cannot_explain_is_missing_from_the_shares():
    corners = [weights(1, 0, 0), weights(0, 1, 0), weights(0, 0, 1), weights(0, 0, 0)]
    _, explained = principal_plane(centred_gram(corners))
    values = np.linalg.svd(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]) - 0.25, compute_uv=False) ** 2
    assert explained == pytest.approx(tuple(values[:2] / values.sum()))
    assert sum(explained) < 0.99


def test_the_furthest_point_is_positive_along_both_axes():
    points, _ = principal_plane(centred_gram([weights(0, 0), weights(1, 0), weights(-9, 4)]))
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


def test_pieces_add_up_to_the_whole(monkeypatch):
    samples = [{"w": torch.arange(10.0) * factor, "b": torch.tensor([factor])} for factor in (1.0, 2.0, 4.0)]
    whole = centred_gram(samples)
    monkeypatch.setattr("nnunet_ext.report.weight_map.CHUNK", 3)
    np.testing.assert_allclose(centred_gram(samples), whole)


def test_half_precision_is_counted_in_double():
    # in float16, 2048 + 1 is 2048
    gram = centred_gram([{"w": torch.tensor([2048.0, 1.0], dtype=torch.float16)}, {"w": torch.zeros(2).half()}])
    assert gram[0, 0] == (1024**2 + 0.25)


def test_a_tensor_under_two_keys_counts_once_and_counters_do_not():
    shared = torch.ones(3)
    state = {"conv": shared, "all_modules.0": shared, "other": torch.ones(3), "batches": torch.tensor(7)}
    assert unique_tensors(state) == ["conv", "other"]


def test_samples_of_different_networks_are_refused():
    with pytest.raises(ValueError, match="same tensors; w"):
        centred_gram([weights(1, 2), weights(1, 2, 3)])


def test_samples_that_are_all_the_same_have_no_shares():
    _, explained = principal_plane(centred_gram([weights(1, 1)] * 3))
    assert isnan(explained[0])


def test_of_many_samples_the_first_the_last_and_even_steps_are_taken():
    samples = [Sample(f"{epoch}.pth", 0, epoch, epoch, 0.1, None, "") for epoch in range(9)]
    assert [sample.epoch for sample in evenly_spaced(samples, 3)] == [0, 4, 8]
    assert evenly_spaced(samples, 9) == samples
    assert evenly_spaced(samples, 0) == []


def test_a_fold_is_mapped_in_order_of_training(tmp_path):
    write_samples(tmp_path, [weights(0, 0), weights(0, 2), weights(2, 0), weights(2, 2)])
    found = map_samples(tmp_path, 60)
    assert found is not None
    assert found.cycles == (0, 0, 1, 1)
    assert found.epochs == (0, 1, 2, 3)
    assert found.available == 4
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), sqrt(2))  # corners of a square around 0
    assert found.explained == pytest.approx((0.5, 0.5))


def test_a_fold_without_enough_samples_has_no_map(tmp_path):
    assert map_samples(tmp_path, 60) is None
    write_samples(tmp_path, [weights(0, 0), weights(0, 2)])
    assert map_samples(tmp_path, 60) is None


def test_a_sample_that_cannot_be_read_is_logged(tmp_path, caplog):
    write_samples(tmp_path, [weights(0, 0), weights(0, 2), weights(1, 1)])
    (tmp_path / "s1.pth").write_bytes(b"no checkpoint")
    assert map_samples(tmp_path, 60) is None
    assert "s1.pth" in caplog.text
