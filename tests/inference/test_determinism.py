"""The same call twice gives the same bytes, in threads and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.inference import EnsemblePredictor

MAPS = ("entropy", "mutual_information", "expected_entropy", "variance", "confidence")

REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def all_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param({}, {}, id="2d"),
        pytest.param({"configuration": "3d_fullres", "mirror_axes": (0, 1, 2)}, {}, id="3d"),
        pytest.param({"labels": REGIONS, "regions_class_order": [1, 2]}, {}, id="regions"),
        pytest.param({}, {"average": "logits", "tta_members": True}, id="logits of flips"),
    ],
)
def test_the_same_prediction_twice_gives_the_same_bytes(
    make_model_folder, make_image, tmp_path, model: dict[str, Any], settings: dict[str, Any]
) -> None:
    folder = make_model_folder(folds=(0, 1, 2), **model)
    for seed, case in enumerate(("c0", "c1")):
        images = make_image(tmp_path / "images", case, shape_zyx=(5, 30, 30), seed=seed)
    written = []
    for number, threads in enumerate((1, 1, 0)):
        predictor = EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False, **settings)
        output = tmp_path / str(number)
        report = predictor.predict_from_files(
            images, output, True, maps=MAPS, save_members=True,
            num_processes_preprocessing=threads, num_processes_segmentation_export=threads,
        )  # fmt: skip
        assert report.failed == {}
        written.append(all_files(output))
    first, *others = written
    assert {Path(name).suffix for name in first} == {".gz", ".npz", ".pkl", ".csv", ".json"}
    for other in others:
        assert list(other) == list(first)
        assert [name for name in first if other[name] != first[name]] == []
