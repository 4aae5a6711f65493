"""What the test-time transforms of an ensemble cost, and where there are too few of them."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.passes import passes_of
from nnunet_ext.inference.transform_cost import cost_in_passes
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS


def models() -> list[Any]:
    """Two members with two flips, and one without mirroring."""
    return [
        SimpleNamespace(folder=Path(folder), mirror_axes=axes, members=[
            SimpleNamespace(name=f"fold_{fold}", fold=f"fold_{fold}") for fold in range(count)
        ])
        for folder, axes, count in (("first", (0,), 2), ("second", None, 1))
    ]  # fmt: skip


@pytest.mark.parametrize("tta_members", [False, True])
def test_members_times_transforms_are_passes(tta_members):
    found = models()
    passes = passes_of(found, None, transforms=TRANSFORM_SETS["flips"], tta_members=tta_members)
    assert cost_in_passes(found, passes) == [
        "first: 2 members x 2 transforms = 4 passes per case (flip-none, flip-0)",
        "second: 1 member x 1 transform = 1 pass per case (flip-none)",
    ]


# --- the engine ---


def opened(folder: Path, **settings: Any) -> EnsemblePredictor:
    return EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False, **settings)


def test_the_cost_is_logged_before_the_run(make_model_folder, caplog):
    with caplog.at_level(logging.INFO, logger="nnunet_ext.cost"):
        opened(make_model_folder(folds=(0, 1)), tta="full")
    assert "2 members x 10 transforms = 20 passes per case (flip-none, flip-0" in caplog.text


def test_a_patch_that_is_not_square_is_refused_before_the_run(make_model_folder):
    with pytest.raises(ValueError, match="16 x 24 voxels"):
        opened(make_model_folder(patch_size=[16, 24]), tta="rot90")


def test_each_transform_can_be_a_member(make_model_folder, make_image, tmp_path):
    """Flips, turns, rotations and scales: ten members; the map of their variance is not that of one member."""
    folder, images = make_model_folder(logit_scale=3), make_image(tmp_path / "images")
    engine = opened(folder, tta="full", tta_members=True).engine
    assert engine.passes_per_case == 10
    (result,) = engine.predict_from_files(
        images, None, maps=["variance", "tta_variance"], save_members=True
    ).predictions
    assert result.row["members"] == 10
    assert {name.partition("+")[2] for name in result.member_segmentations} >= {"rot90", "rotate-10", "scale0.95"}
    # one network: what varies between its members varies between its transforms, but for the order of resampling
    assert np.corrcoef(result.maps["variance"].ravel(), result.maps["tta_variance"].ravel())[0, 1] > 0.99


def test_the_map_does_not_change_the_segmentation(make_model_folder, make_image, tmp_path):
    folder, images = make_model_folder(folds=(0, 1), logit_scale=3), make_image(tmp_path / "images")
    plain, mapped = (
        opened(folder, tta="rot90").engine.predict_from_files(images, None, maps=maps, save_probabilities=True)
        for maps in ([], ["tta_variance"])
    )
    np.testing.assert_allclose(mapped.predictions[0].probabilities, plain.predictions[0].probabilities, atol=1e-5)
    assert 0 < mapped.predictions[0].maps["tta_variance"].max() <= 1


@pytest.mark.parametrize(("tta", "mirror_axes"), [("none", (0, 1)), ("flips", None)])
def test_the_map_needs_several_transforms(make_model_folder, make_image, tmp_path, tta, mirror_axes):
    engine = opened(make_model_folder(mirror_axes=mirror_axes), tta=tta).engine
    with pytest.raises(ValueError, match="needs several test-time transforms per member; found flip-none alone"):
        engine.predict_from_files(make_image(tmp_path / "images"), None, maps=["tta_variance"])


def test_the_map_needs_whole_images(make_model_folder, make_image, tmp_path):
    engine = opened(make_model_folder(), early_exit="label").engine
    with pytest.raises(ValueError, match="tta_variance needs every member to run over the whole image"):
        engine.predict_from_files(make_image(tmp_path / "images"), None, maps=["tta_variance"])


def test_early_exit_keeps_the_labels_with_transforms_of_the_whole_volume(make_model_folder, make_image, tmp_path):
    folder, images = make_model_folder(folds=(0, 1, 2)), make_image(tmp_path / "images", shape_zyx=(3, 40, 44))
    plain, early = (
        opened(folder, tta="full", tta_members=True, early_exit=rule).engine.predict_from_files(images, None, maps=[])
        for rule in (None, "label")
    )
    np.testing.assert_array_equal(early.predictions[0].segmentation, plain.predictions[0].segmentation)


def test_a_calibration_depends_on_the_transforms(make_model_folder):
    """Those of earlier versions tell flips and none apart by `mirroring` alone, and still fit."""
    settings = {
        tta: EnsembleEngine.from_model_folders(make_model_folder(tta), device="cpu", tta=tta).settings
        for tta in ("flips", "none", "rot90", "full")
    }
    assert [settings[tta]["mirroring"] for tta in settings] == [True, False, True, True]
    assert [settings[tta].get("tta") for tta in settings] == [None, None, "rot90", "full"]
