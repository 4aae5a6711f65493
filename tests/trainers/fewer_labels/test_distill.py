"""Distill: what nnU-Net's loaders give to it, and what it trains on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.losses.distillation import teacher_kl
from nnunet_ext.teaching.case_file import case_file, teacher_folder, write_packed
from nnunet_ext.teaching.record import TeacherError, TeacherRecord
from nnunet_ext.trainers.data.slice_padding import MarkPadding
from nnunet_ext.trainers.fewer_labels.taught_cases import AUGMENTED
from nnunet_ext.trainers.losses.extra_targets import AppendExtras
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

BATCHES = 2


def seeded_batches(trainer, number=BATCHES):
    """The first batches of the training, of loaders that were seeded before."""
    np.random.seed(0)
    torch.manual_seed(0)
    loader, _ = trainer.get_dataloaders()
    return [next(loader) for _ in range(number)]


# --- the data ---


@pytest.mark.parametrize(
    ("variant", "regions"), [("", False), ("_NoDeepSupervision", True), ("_DA5", False), ("_DA5", True)]
)
def test_probabilities_are_augmented_as_the_image_is(taught, regions, variant):
    """They are a function of the image; noise, contrast and interpolation change it, so signs agree nearly always."""
    trainer = taught(f"nnUNetTrainerDistill{variant}", regions=regions)
    for batch in seeded_batches(trainer, 4):
        teacher = batch["target"][-1]
        assert (teacher.shape, teacher.dtype) == ((2, 2, 32, 32), torch.float32)
        assert batch["data"].shape == (2, 1, 32, 32)
        assert torch.equal(teacher[:, 0], teacher[:, 1])
        assert teacher.min() >= 0
        assert teacher.max() <= 0.4001
        foreground = teacher[:, 0] > 0.225
        target = batch["target"][0]
        truth = (target[:, 0] > 0) if regions else target[:, 0] == 1
        assert (foreground == truth).float().mean() > 0.9


def test_without_augmentation_they_are_those_of_the_file(taught):
    trainer = taught("nnUNetTrainerDistill_NoDA")
    _, validation = trainer.get_dataloaders()
    batch = next(validation)
    teacher, image = batch["target"][-1], batch["data"]
    inside = teacher[:, :1] > 0  # the loader pads both with 0
    expected = torch.where(image > 0, 0.4, 0.05)
    torch.testing.assert_close(teacher[:, :1][inside], expected[inside], atol=2**-12, rtol=0)
    assert (image[~inside] == 0).all()


def test_lesions_that_carvemix_pastes_bring_their_probabilities(taught):
    trainer = taught("nnUNetTrainerCarveMix_Distill_NoDA")
    trainer.carve_probability = 1.0
    trainer.configuration_manager.configuration["normalization_schemes"] = ["ZScoreNormalization"]
    trainer.plans_manager.plans["transpose_forward"] = [0, 1, 2]
    for batch in seeded_batches(trainer, 4):
        image, teacher = batch["data"], batch["target"][-1][:, :1]
        inside = teacher > 0
        torch.testing.assert_close(teacher[inside], torch.where(image > 0, 0.4, 0.05)[inside], atol=2**-12, rtol=0)


def test_stacks_of_slices_have_stacks_of_probabilities(taught):
    """Streaming pads a stack with slices of NaN, where the teacher says background; the image has three slices."""
    trainer = taught("nnUNetTrainerDistill_Streaming2_Slices5_NoDA", initialize=False)
    trainer.plans_manager.plans["original_median_shape_after_transp"] = [5, 40, 40]
    trainer.configuration_manager.configuration["batch_size"] = 5
    trainer.initialize()
    batch = seeded_batches(trainer, 1)[0]
    image, teacher = batch["data"], batch["target"][-1][:, :1]
    assert teacher.shape == image.shape == (1, 1, 5, 32, 32)
    padded = image.isnan()
    assert padded.flatten(start_dim=3).all(dim=3).sum() == 2
    assert (teacher[padded] == 0).all()
    trainer.network.train()
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_a_transform_that_drops_them_is_an_error():
    append = AppendExtras({"teacher": AUGMENTED})
    with pytest.raises(RuntimeError, match="dropped it"):
        append(image=torch.zeros(1, 4, 4), segmentation=torch.zeros(1, 4, 4))


def test_padded_slices_keep_them():
    """`MarkPadding` of the Streaming parts changes the image only."""
    data = {
        "image": torch.zeros(1, 2, 4, 4),
        "segmentation": torch.full((1, 2, 4, 4), -1.0),
        AUGMENTED.key: torch.ones(2, 2, 4, 4),
    }
    found = ComposeTransforms([MarkPadding()])(**data)
    assert found["image"].isnan().all()
    assert torch.equal(found[AUGMENTED.key], torch.ones(2, 2, 4, 4))


# --- training ---


@pytest.mark.parametrize(("variant", "regions"), [("", False), ("", True), ("_NoDeepSupervision", False)])
def test_a_of_0_is_the_training_without_a_teacher_bit_for_bit(taught, regions, variant):
    """Same batches, same losses, same weights after two iterations."""
    trainers = [taught(f"nnUNetTrainer{name}member0{variant}", regions=regions) for name in ("_", "Distill0_")]
    losses = []
    for trainer in trainers:
        batches = seeded_batches(trainer)
        trainer.network.train()
        losses.append([trainer.train_step(batch)["loss"] for batch in batches])
        losses[-1].append(batches[0]["data"].sum().item())
    assert losses[0] == losses[1]
    weights = [trainer.network.state_dict() for trainer in trainers]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("name", "share", "temperature"), [("Distill", 0.5, 2), ("Distill80", 0.8, 2)])
@pytest.mark.parametrize("regions", [False, True])
def test_the_loss_is_shared_between_labels_and_teacher(taught, name, share, temperature, regions):
    trainer = taught(f"nnUNetTrainer{name}_member0", regions=regions)
    batch = seeded_batches(trainer, 1)[0]
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(batch["data"])
        base = trainer.loss.base(output, batch["target"][:-1])  # with deep supervision
        divergence = teacher_kl(output[0], batch["target"][-1], temperature=temperature, regions=regions).mean()
        found = trainer.validation_step(batch)["loss"]
    assert found == pytest.approx(float((1 - share) * base + share * divergence), rel=1e-5)


def test_a_student_comes_closer_to_its_teacher(taught):
    """The teacher alone, at temperature 3."""
    trainer = taught("nnUNetTrainerDistill100_TeacherTemperature3_NoDA_member0")
    batch = seeded_batches(trainer, 1)[0]
    trainer.network.train()
    first = trainer.train_step(batch)["loss"]
    for _ in range(15):
        last = trainer.train_step(batch)["loss"]
    assert trainer.loss_with_terms.terms[-1].term.temperature == 3
    assert last < 0.7 * first


@pytest.mark.parametrize(
    "name", ["Distill_DSD", "Distill_RegionAffinity_SkeletonRecall", "Distill_DiceFocal_CaseWeights"]
)
def test_it_combines_with_other_parts(taught, name):
    trainer = taught(f"nnUNetTrainer{name}")
    if "CaseWeights" in name:
        table = Path(trainer.preprocessed_dataset_folder_base) / "case_weights.csv"
        table.write_text("case,sampling,loss\ncase1,3,1\n", encoding="utf-8")
    batch = seeded_batches(trainer, 1)[0]
    trainer.network.train()
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_names_that_make_no_sense_are_refused(make_trainer):
    for name, message in (
        ("nnUNetTrainerDistill_Boundary", "a share of the loss"),
        ("nnUNetTrainerDistill_Distill80", "a share of the loss"),
        ("nnUNetTrainerTeacherTemperature4", "changes Distill"),
    ):
        with pytest.raises(TrainerNameError, match=message):
            trainer_class(name)
    with pytest.raises(ValueError, match="at most 100; found 120"):
        make_trainer("nnUNetTrainerDistill120")


# --- who taught ---


def test_a_teacher_that_had_seen_the_case_is_refused(taught):
    trainer = taught("nnUNetTrainerDistill")
    folder = teacher_folder(Path(trainer.preprocessed_dataset_folder))
    record = TeacherRecord.load(folder)
    leak = replace(record.folds["1"], trained_on=["case1", "case2"])
    replace(record, folds={**record.folds, "1": leak}).save(folder)
    with pytest.raises(TeacherError, match="such as case2 of fold 1"):
        trainer.get_tr_and_val_datasets()


def test_without_probabilities_the_command_that_writes_them_is_named(taught):
    trainer = taught("nnUNetTrainerDistill")
    folder = teacher_folder(Path(trainer.preprocessed_dataset_folder))
    case_file(folder, "case1").unlink()
    with pytest.raises(TeacherError, match=r"such as case1\. Run nnunet_ext teach"):
        trainer.get_tr_and_val_datasets()
    (folder / "teacher.json").unlink()
    with pytest.raises(TeacherError, match="Run nnunet_ext teach"):
        trainer.get_tr_and_val_datasets()


def test_a_teacher_of_other_classes_or_another_grid_is_refused(taught):
    trainer = taught("nnUNetTrainerDistill")
    folder = teacher_folder(Path(trainer.preprocessed_dataset_folder))
    write_packed(np.zeros((2, 3, 40, 39), np.float16), case_file(folder, "case2"), patch_size=[32, 32])
    with pytest.raises(TeacherError, match="case2: it was preprocessed again"):
        trainer.get_tr_and_val_datasets()
    record = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**record, "outputs": 5}))
    with pytest.raises(TeacherError, match="5 classes, the dataset 3 classes"):
        trainer.get_tr_and_val_datasets()
