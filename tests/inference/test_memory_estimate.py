"""A case that cannot fit is refused with both figures, before its first member runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.inference import memory_estimate
from nnunet_ext.inference.memory_estimate import (
    CaseTooLargeError,
    network_volumes_of,
    prediction_bytes,
    require_memory,
)
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.predictor import EnsemblePredictor
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip
from nnunet_ext.inference.transforms.rotate import Rotation
from nnunet_ext.models.members import Member

GIB = 2**30


def test_the_estimate_counts_volumes_of_all_classes() -> None:
    # mean of 10 x 20 x 30 voxels at the image, logits of 8 x 16 x 16 at the network: 3 classes, 4 bytes
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16)) == 3 * 4 * (6000 + 2048)
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), with_variance=True) == 3 * 4 * (2 * 6000 + 2048)
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), by_fold=True) == 3 * 4 * (2 * 6000 + 2048)


def test_volumes_at_the_networks_resolution_are_counted() -> None:
    # logits of 8 x 16 x 16 and four more such volumes
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), network_volumes=5) == 3 * 4 * (6000 + 5 * 2048)


SMALL = Rotation(10)


@pytest.mark.parametrize(
    ("transforms", "plain", "with_variance"),
    [
        ((IDENTITY,), 1, 4),  # logits; for the variance probabilities, their mean and their squares
        ((IDENTITY, Flip((0,))), 1, 5),  # flips share one sum of logits; apart, there is a sum over them
        ((IDENTITY, SMALL), 2, 5),
        ((SMALL,), 1, 4),  # as a member of its own
    ],
)
def test_transforms_need_volumes_at_the_networks_resolution(transforms, plain, with_variance) -> None:
    member = Member("m", Path("m.pth"), "", "nnUNetTrainer", "2d", None)
    passes = [[Pass("m", member, transforms, 1.0)]]
    assert network_volumes_of(passes, transform_variance=False) == plain
    assert network_volumes_of(passes, transform_variance=True) == with_variance
    assert network_volumes_of(passes, transform_variance=False, adapted=True) == plain + 1


def test_a_whole_body_of_many_classes_is_large() -> None:
    # 118 classes at 512 x 512 x 1000 voxels, the network at the same: 2 volumes of 118 x 2.62e8 x 4 bytes
    assert prediction_bytes(118, (1000, 512, 512), (1000, 512, 512)) / GIB == pytest.approx(230.5, abs=0.1)


def test_a_case_that_does_not_fit_is_refused_with_the_figures_and_what_helps() -> None:
    with pytest.raises(CaseTooLargeError, match="A case must fit into memory") as refusal:
        require_memory(12 * GIB, 8 * GIB + GIB // 2, case="liver_007")
    message = str(refusal.value)
    assert "liver_007 needs at least 12.0 GiB" in message
    assert "8.5 GiB are available. Use a machine or a job with more memory" in message
    assert "-num_parts and fewer members do not help" in message


@pytest.mark.parametrize("available", [12 * GIB, None])
def test_a_case_that_fits_or_of_which_nothing_is_known_is_tried(available: int | None) -> None:
    require_memory(12 * GIB, available, case="liver_007")


def test_only_the_case_that_is_too_large_fails(make_model_folder, make_image, tmp_path, monkeypatch, caplog) -> None:
    images = make_image(tmp_path / "images", "large", shape_zyx=(4, 40, 40))
    make_image(images, "small", shape_zyx=(2, 20, 20))
    # The frame of zeros is cropped: 4 x 37 x 36 voxels, and 2 x 17 x 16, which the patch of 16 x 16 covers. Three
    # classes, 4 bytes: (2 + 1) * 5328 * 12 = 191808 bytes and (2 + 1) * 544 * 12 = 19584 bytes.
    monkeypatch.setattr(memory_estimate, "available_memory_bytes", lambda: 100_000)
    predictor = EnsemblePredictor.from_model_folders(make_model_folder(), device="cpu", allow_tqdm=False)
    report = predictor.predict_from_files(images, tmp_path / "out")
    assert report.predicted == ["small"]
    assert "large needs at least 0.0 GiB" in report.failed["large"]
    assert "Traceback" not in caplog.text  # nothing is wrong with the program
