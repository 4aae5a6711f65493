"""What `predict` writes of a mixture's classifiers: their own segmentations, and the maps of their memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.files.checkpoints import load_checkpoint, save_checkpoint
from nnunet_ext.inference.accumulation.memory_maps import memory_map_names
from nnunet_ext.inference.predictor import EnsemblePredictor
from nnunet_ext.models.members import MemberError
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction

SPACING_MM = (1.0, 1.0)  # that of the image: nothing is resampled
CLASSIFIERS = (0, 1)


@pytest.fixture
def alone(make_model_folder) -> list[Path]:
    """Two model folders of one network each."""
    return [
        make_model_folder(f"nnUNetTrainer__alone{seed}__2d", seeds=[seed], spacing_mm=SPACING_MM)
        for seed in CLASSIFIERS
    ]


@pytest.fixture
def mixture(alone, make_model_folder) -> Path:
    """A model folder of a mixture of both, with the paper's rule for the weights."""
    folder = make_model_folder("nnUNetTrainerStreaming__nnUNetPlans__2d", spacing_mm=SPACING_MM)
    networks = [load_checkpoint(each / "fold_0" / "checkpoint_final.pth")["network_weights"] for each in alone]
    weights = {
        f"classifiers.{number}.{name}": tensor
        for number, network in enumerate(networks)
        for name, tensor in network.items()
    }
    file = folder / "fold_0" / "checkpoint_final.pth"
    weights["regions"] = torch.tensor(False)
    save_checkpoint(
        {**load_checkpoint(file), "network_weights": weights, "trainer_name": "nnUNetTrainerStreaming"}, file
    )
    return folder


@pytest.fixture
def predicted(make_image, tmp_path) -> Callable[..., CasePrediction]:
    """Predicts the case with a model folder, in memory."""

    def predict(folder: Path, **output: Any) -> CasePrediction:
        engine = EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False).engine
        images = make_image(tmp_path / "images")
        [prediction] = engine.predict_from_files(images, None, OutputOptions(**output)).predictions
        return prediction

    return predict


def test_a_classifiers_segmentation_is_that_of_the_network_alone(alone, mixture, predicted):
    found = predicted(mixture, save_members=True).member_segmentations
    member = "fold_0/checkpoint_final"
    assert sorted(found) == [member, f"{member}+classifier0", f"{member}+classifier1"]
    for number, folder in enumerate(alone):
        np.testing.assert_array_equal(found[f"{member}+classifier{number}"], predicted(folder).segmentation)
    assert (found[f"{member}+classifier0"] != found[f"{member}+classifier1"]).any()


def test_classifiers_are_written_beside_the_member_and_a_finished_case_is_not_predicted_again(
    mixture, make_image, tmp_path
):
    engine = EnsemblePredictor.from_model_folders(mixture, device="cpu", allow_tqdm=False).engine
    images, output = make_image(tmp_path / "images"), tmp_path / "out"
    maps = ["entropy", "memory"]
    engine.predict_from_files(images, output, maps=maps, save_members=True)
    folders = sorted(path.name for path in (output / "members").iterdir())
    assert folders == [f"fold_0__checkpoint_final{end}" for end in ("", "+classifier0", "+classifier1")]
    assert sorted(path.name for path in (output / "maps").iterdir()) == ["entropy", *memory_map_names(2)]
    again = engine.predict_from_files(images, output, maps=maps, save_members=True, continue_prediction=True)
    assert (again.predicted, again.skipped) == ([], ["case"])


def test_maps_are_the_papers_uncertainty_and_weights_of_the_volume(alone, mixture, predicted):
    """From the probabilities of each network alone, by Eq. 3 in NumPy; the slices are the first axis."""
    maps = predicted(mixture, maps=["memory"]).maps
    assert (
        list(maps)
        == [*memory_map_names(2)]
        == [
            *("memory_uncertainty_0", "memory_uncertainty_1"),
            *("memory_weight_0", "memory_weight_1"),
        ]
    )
    probabilities = np.stack([predicted(folder, save_probabilities=True).probabilities for folder in alone])
    predicted_box = maps["memory_weight_0"] > 0
    slices, rows, columns = (np.flatnonzero(predicted_box.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    box = np.ix_(slices, rows, columns)
    inside = probabilities[np.ix_(range(2), range(probabilities.shape[1]), slices, rows, columns)].astype(float)
    uncertainty = inside.mean(axis=2).var(axis=1, ddof=1)  # (K, rows, columns)
    weights = np.exp(uncertainty) / np.exp(uncertainty).sum(axis=0)
    for number in CLASSIFIERS:
        for name, expected in (("uncertainty", uncertainty), ("weight", weights)):
            found = maps[f"memory_{name}_{number}"][box]
            np.testing.assert_allclose(found, np.broadcast_to(expected[number], found.shape), atol=1e-4)
    assert np.ptp(weights[0]) > 0.01  # they differ by place


def test_the_segmentation_stays_the_same_with_both(mixture, predicted):
    plain, watched = predicted(mixture), predicted(mixture, maps=["entropy", "memory"], save_members=True)
    np.testing.assert_array_equal(plain.segmentation, watched.segmentation)
    np.testing.assert_array_equal(plain.maps["entropy"], watched.maps["entropy"])


def test_a_model_without_classifiers_has_no_memory(alone, predicted):
    with pytest.raises(
        MemberError, match=r"--maps memory shows the classifiers of a mixture.*found no classifiers in"
    ):
        predicted(alone[0], maps=["memory"])
    assert sorted(predicted(alone[0], save_members=True).member_segmentations) == ["fold_0/checkpoint_final"]
