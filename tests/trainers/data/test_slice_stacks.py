"""Stacks from nnU-Net's own loader: intensities say which slice of which case a voxel comes from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from stack_cases import SIDE, numbered_case
from torch import distributed

from nnunet_ext.architectures.streaming import marked_padding
from nnunet_ext.trainers.data.slice_padding import MarkPadding


def batches(loader, count=10):
    return [next(loader) for _ in range(count)]


def central_values(batch):
    """The intensity at the centre of every slice, (stacks, channels, slices), in whole numbers."""
    return batch["data"][:, :, :, 16, 16].round().int().numpy()


def finest(target):
    return target[0] if isinstance(target, list) else target


def only_spatial(loader, *, rotates=True):
    """Leaves out nnU-Net's intensity transforms and rotates and scales every stack."""
    transforms = loader.data_loader.transforms.transforms
    transforms[:] = [step for step in transforms if not isinstance(step, RandomTransform)]
    for step in transforms:
        if isinstance(step, SpatialTransform):
            step.p_rotation = step.p_scaling = float(rotates)
    return loader


def steps_of(loader, kind):
    return [step for step in loader.data_loader.transforms.transforms if isinstance(step, kind)]


# --- what a stack holds ---


@pytest.mark.parametrize("which", ["training", "validation"])
def test_slices_of_a_stack_are_consecutive_and_of_one_case(load_stacks, which):
    _, training, validation = load_stacks("nnUNetTrainerStreaming_Slices12_NoDA")
    seen = set()
    for batch in batches(training if which == "training" else validation, 30):
        assert batch["data"].shape == (2, 1, 4, 32, 32)
        for stack, key in zip(central_values(batch)[:, 0], batch["keys"], strict=True):
            first = stack[0]
            assert stack.tolist() == [first, first + 1, first + 2, first + 3]
            assert {value // 100 for value in stack} == {int(key.removeprefix("case"))}
            seen |= set(stack.tolist())
    assert seen == {100 * case + slice_ for case in (1, 2, 3) for slice_ in range(10)}


def test_labels_belong_to_their_slices_at_every_scale(load_stacks):
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12_NoDA")
    for batch in batches(training):
        assert [target.shape for target in batch["target"]] == [(2, 1, 4, 32, 32), (2, 1, 4, 16, 16)]
        expected = central_values(batch) % 100 % 3
        for target in batch["target"]:
            assert (target.flatten(start_dim=3).min(dim=3).values.numpy() == expected).all()
            assert (target.flatten(start_dim=3).max(dim=3).values.numpy() == expected).all()


def test_without_deep_supervision_there_is_one_target(load_stacks):
    _, training, validation = load_stacks("nnUNetTrainerStreaming_Slices12_NoDeepSupervision")
    for loader in (training, validation):
        assert next(loader)["target"].shape == (2, 1, 4, 32, 32)


def test_regions_have_targets_of_their_own(load_stacks):
    # {1, 2} and {2} of the labels slice mod 3
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12_NoDA", regions=True)
    batch = next(training)
    labels = torch.from_numpy(central_values(batch)[:, 0] % 100 % 3)
    assert [target.shape for target in batch["target"]] == [(2, 2, 4, 32, 32), (2, 2, 4, 16, 16)]
    for target in batch["target"]:
        assert torch.equal(target[:, 0, :, 0, 0].bool(), labels > 0)
        assert torch.equal(target[:, 1, :, 0, 0].bool(), labels == 2)


def test_foreground_stacks_lie_around_a_labelled_voxel(load_stacks):
    # The labelled voxel is in slice 5; nnU-Net begins the patch half of its length before it, at 5 - 4 // 2 = 3
    _, training, validation = load_stacks("nnUNetTrainerStreaming_Slices12_NoDA", oversample=1.0)
    for loader in (training, validation):
        for batch in batches(loader, 5):
            assert (central_values(batch)[:, 0] % 100 == [3, 4, 5, 6]).all()


def test_a_batch_of_one_stack_holds_foreground_as_often_as_asked(load_stacks):
    # By place in the batch, nnU-Net's other way, round(1 * (1 - 0.33)) = 1 stack of 1 would never be chosen.
    # Of the others a seventh begin at slice 3 by chance: 0.33 + 0.67 / 7 = 0.43
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12_NoDA", batch_size=4)
    first = [central_values(batch)[0, 0, 0] % 100 for batch in batches(training, 300)]
    assert np.mean(np.array(first) == 3) == pytest.approx(0.43, abs=0.1)


# --- how large a stack is ---


@pytest.mark.parametrize(
    ("median_slices", "batch_size", "slices", "stacks"),
    [
        (10, 56, 10, 5),  # ACDC as nnU-Net plans it
        (6, 24, 6, 4),
        (6, 29, 6, 4),  # five slices fewer than planned
        (30, 56, 12, 4),  # no more than twelve
        (10, 24, 6, 4),  # four stacks
        (7.6, 32, 8, 4),  # medians of an even number of cases are no whole numbers
        (10, 4, 1, 4),
        (1, 12, 1, 12),
        (0.4, 12, 1, 12),
        (30, 3, 1, 3),
    ],
)
def test_a_batch_has_four_stacks_and_no_more_slices_than_planned(
    load_stacks, median_slices, batch_size, slices, stacks
):
    trainer = load_stacks("nnUNetTrainerStreaming", median_slices=median_slices, batch_size=batch_size, loaders=False)
    assert (trainer.slices_in_stack, trainer.batch_size) == (slices, stacks)
    assert slices * stacks <= batch_size


@pytest.mark.parametrize(
    ("slices_of_name", "median_slices", "batch_size", "slices", "stacks"),
    [(2, 10, 12, 2, 6), (10, 10, 12, 10, 1), (20, 30, 24, 20, 1), (12, 30, 5, 5, 1), (12, 6, 12, 6, 2)],
)
def test_a_name_says_how_many_slices_a_stack_has(
    load_stacks, slices_of_name, median_slices, batch_size, slices, stacks
):
    """But no more than the median case or the planned batch has."""
    name = f"nnUNetTrainerStreaming_Slices{slices_of_name}"
    trainer = load_stacks(name, median_slices=median_slices, batch_size=batch_size, loaders=False)
    assert (trainer.slices_in_stack, trainer.batch_size) == (slices, stacks)


def test_several_gpus_share_the_planned_slices(load_stacks, monkeypatch):
    # The first of two GPUs, twelve slices planned: six are its own
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    trainer = load_stacks("nnUNetTrainerStreaming_Slices12", median_slices=12, batch_size=12, loaders=False)
    trainer.is_ddp = True
    trainer._set_batch_size_and_oversample()
    assert trainer.slices_in_stack * trainer.batch_size <= 6


@pytest.mark.parametrize(
    ("median_slices", "batch_size", "shape"), [(1, 3, (3, 1, 1, 32, 32)), (9, 5, (1, 1, 5, 32, 32))]
)
def test_batches_have_that_shape(load_stacks, median_slices, batch_size, shape):
    _, training, validation = load_stacks(
        "nnUNetTrainerStreaming_Slices12", median_slices=median_slices, batch_size=batch_size
    )
    for loader in (training, validation):
        batch = next(loader)
        assert batch["data"].shape == shape
        assert finest(batch["target"]).shape == shape


def short_cases(channels=1):
    """Two cases of three slices of noise."""
    generator = np.random.default_rng(0)
    shape = (channels, 3, SIDE, SIDE)
    return [(generator.normal(size=shape).astype(np.float32), numbered_case(1, 3)[1]) for _ in range(2)]


def test_slices_beyond_the_case_are_marked_in_training_and_validation(load_stacks):
    # Three of six slices are padding, 3 // 2 = 1 of them before or 2, as nnU-Net divides them
    cases = [numbered_case(case, 3) for case in (1, 2)]
    trainer, training, validation = load_stacks(
        "nnUNetTrainerStreaming_Slices12_NoDA", cases, median_slices=6, batch_size=12, oversample=0.0
    )
    for batch in (*batches(training, 5), *batches(validation, 5)):
        for image, is_padding in zip(batch["data"][:, 0], marked_padding(batch["data"]), strict=True):
            assert is_padding.tolist() in ([True] + [False] * 3 + [True] * 2, [True] * 2 + [False] * 3 + [True])
            assert (image[~is_padding, 16, 16] % 100).tolist() == [0, 1, 2]
    assert np.isfinite(trainer.train_step(next(training))["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(validation))["loss"])


def test_augmentation_leaves_the_marks(load_stacks):
    # Noise, contrast, gamma and the like act on the padding before it is marked
    trainer, training, _ = load_stacks(
        "nnUNetTrainerStreaming_Slices12", short_cases(channels=2), median_slices=6, batch_size=12, oversample=0.0
    )
    for step in steps_of(training, RandomTransform):
        step.apply_probability = 1.0
    for batch in batches(training):
        is_padding = marked_padding(batch["data"])
        assert is_padding.sum(dim=1).tolist() == [3, 3]
        by_slice = batch["data"].movedim(2, 1)  # (B, D, channels, *in_plane)
        assert by_slice[is_padding].isnan().all()
        assert by_slice[~is_padding].isfinite().all()
    assert np.isfinite(trainer.train_step(batch)["loss"])


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_blank_slices_of_an_image_are_no_padding(load_stacks, configuration):
    """nnU-Net's preprocessing writes the label of padding into slices in which all channels are 0."""
    cases = [numbered_case(case, 10) for case in (1, 2, 3)]
    for image, labels in cases:
        image[:, 3:7] = 0
        labels[:, 3:7] = -1
    trainer, training, validation = load_stacks(
        "nnUNetTrainerStreaming_Slices12_NoDA", cases, configuration=configuration, oversample=0.0
    )
    for batch in (*batches(training, 5), *batches(validation, 5)):
        assert not batch["data"].isnan().any()
        assert finest(batch["target"]).min() == 0  # the label is removed as ever
    assert np.isfinite(trainer.train_step(next(training))["loss"])


@pytest.mark.parametrize("regions", [False, True])
def test_a_3d_patch_larger_than_the_case_has_its_padding_marked(load_stacks, regions):
    # patches of eight slices, cases of three
    trainer, training, validation = load_stacks(
        "nnUNetTrainerStreaming_Slices12", short_cases(), configuration="3d_fullres", regions=regions, oversample=0.0
    )
    for batch in batches(validation, 5):
        assert marked_padding(batch["data"]).sum(dim=1).tolist() == [5, 5]
    for batch in batches(only_spatial(training)):  # turned about all axes: a slice may hold both
        assert marked_padding(batch["data"]).any(dim=1).all()
        assert not marked_padding(batch["data"]).all(dim=1).any()
        assert torch.equal(batch["data"].isnan().flatten(3).any(dim=3)[:, 0], marked_padding(batch["data"]))
    assert np.isfinite(trainer.train_step(batch)["loss"])


# --- augmentation ---


def test_all_slices_of_a_stack_are_turned_and_scaled_alike(load_stacks):
    generator = np.random.default_rng(0)
    picture = generator.normal(size=(1, 1, SIDE, SIDE)).astype(np.float32)
    labels = (picture > 0).astype(np.int8)
    cases = [tuple(np.repeat(array, 6, axis=1) for array in (picture, labels))] * 2
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12", cases)
    # the loader may reach beyond the end of a case; such slices are padding
    stacks = []
    for batch in batches(only_spatial(training)):
        for image, target in zip(batch["data"], finest(batch["target"]), strict=True):
            in_image = ~marked_padding(image[None])[0]
            images, targets = image[0, in_image], target[0, in_image]
            assert len(images) > 1
            assert all(torch.equal(images[0], other) for other in images[1:])
            assert all(torch.equal(targets[0], other) for other in targets[1:])
            assert not np.isin(images[0].numpy(), picture).all()  # it was interpolated
            stacks.append(images[0])
    assert not any(torch.equal(stacks[0], other) for other in stacks[1:])  # stacks differ


def test_channels_and_slices_keep_their_places(load_stacks):
    cases = [numbered_case(case, 10, channels=2) for case in (1, 2, 3)]
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12", cases)
    for batch in batches(only_spatial(training)):
        values = central_values(batch)
        assert values.shape == (2, 2, 4)
        assert (values[:, 1] == values[:, 0] + 1000).all()
        assert (np.diff(values, axis=2) == 1).all()
        assert (finest(batch["target"])[:, 0, :, 16, 16].numpy() == values[:, 0] % 100 % 3).all()


def test_training_mirrors_in_plane_only(load_stacks):
    trainer, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12")
    (mirror,) = steps_of(training, MirrorTransform)
    assert mirror.allowed_axes == (1, 2)  # behind the axis of the slices
    for batch in batches(only_spatial(training)):
        assert (np.diff(central_values(batch)[:, 0]) == 1).all()  # slices ascend
    assert trainer.inference_allowed_mirroring_axes == (0, 1)  # prediction sees single slices


def test_both_axes_in_plane_are_mirrored(load_stacks):
    ramp = np.add.outer(np.arange(SIDE), SIDE * np.arange(SIDE)).astype(np.float32)
    cases = [(np.broadcast_to(ramp, (1, 6, SIDE, SIDE)), numbered_case(1, 6)[1])] * 2
    _, training, _ = load_stacks("nnUNetTrainerStreaming_Slices12", cases, oversample=0.0)
    directions = set()
    for batch in batches(only_spatial(training, rotates=False), 20):
        for image in batch["data"][:, 0, 0]:
            down, right = image[17, 16] - image[16, 16], image[16, 17] - image[16, 16]
            directions.add((down.sign().item(), right.sign().item()))
    assert directions == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


@pytest.mark.parametrize(
    ("variant", "in_plane", "inference"),
    [("NoMirroring", None, None), ("onlyMirror01", (1,), (0,))],  # stock's onlyMirror01 of 2D plans is axis 0
)
def test_stock_variants_decide_what_is_mirrored(load_stacks, variant, in_plane, inference):
    trainer, training, _ = load_stacks(f"nnUNetTrainerStreaming_Slices12_{variant}")
    assert [mirror.allowed_axes for mirror in steps_of(training, MirrorTransform)] == ([in_plane] if in_plane else [])
    assert trainer.inference_allowed_mirroring_axes == inference
    assert next(training)["data"].shape == (2, 1, 4, 32, 32)


@pytest.mark.parametrize("variant", ["NoDA", "DA5", "DA5ord0", "DASegOrd0", "noDummy2DDA"])
def test_stock_augmentations_take_stacks(load_stacks, variant):
    _, training, validation = load_stacks(
        f"nnUNetTrainerStreaming_Slices12_{variant}", median_slices=6, batch_size=12
    )
    for loader in (training, validation):
        for batch in batches(loader, 3):
            assert batch["data"].shape == (2, 1, 6, 32, 32)
            assert [target.shape[1:3] for target in batch["target"]] == [(1, 6)] * 2
    assert len(steps_of(training, MarkPadding)) == len(steps_of(validation, MarkPadding)) == 1


def test_da5_which_divides_slices_by_six_is_refused_for_thinner_stacks(load_stacks):
    with pytest.raises(ValueError, match=r"at least 6 slices; this dataset and batch size give 4\. Leave DA5 out"):
        load_stacks("nnUNetTrainerStreaming_Slices12_DA5", median_slices=4, batch_size=4)


def test_a_step_of_training_and_of_validation_on_loaded_stacks(load_stacks):
    trainer, training, validation = load_stacks("nnUNetTrainerStreaming_Slices12")
    trainer.network.train()
    assert np.isfinite(trainer.train_step(next(training))["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(validation))["loss"])


# --- what stays as it is ---


def test_the_planned_configuration_is_restored_after_loading(load_stacks):
    trainer, *_ = load_stacks("nnUNetTrainerStreaming_Slices12")
    assert trainer.configuration_manager.patch_size == [32, 32]
    assert trainer.plans_manager.get_configuration("2d").patch_size == [32, 32]


def test_the_planned_configuration_is_restored_when_loading_fails(load_stacks):
    trainer, *_ = load_stacks("nnUNetTrainerStreaming_Slices12")
    for file in Path(trainer.preprocessed_dataset_folder).iterdir():
        file.unlink()
    with pytest.raises((FileNotFoundError, RuntimeError)):
        trainer.get_dataloaders()
    assert trainer.configuration_manager.patch_size == [32, 32]


def test_a_3d_configuration_is_loaded_as_stock_does(load_stacks):
    cases = [numbered_case(case, 20) for case in (1, 2, 3)]
    found = []
    for name in ("nnUNetTrainerStreaming_Slices12", "nnUNetTrainer"):
        trainer, training, validation = load_stacks(name, cases, configuration="3d_fullres")
        drawn = training.data_loader.transforms.transforms
        for step in drawn:
            if isinstance(step, RandomTransform):  # stock's blur chooses between two algorithms by their speed
                step.apply_probability *= not isinstance(step.transform, GaussianBlurTransform)
        np.random.seed(1)
        torch.manual_seed(1)
        drawn_batches = [next(loader) for loader in (training, validation) for _ in range(4)]
        settings = (trainer.batch_size, trainer.probabilistic_oversampling, trainer.inference_allowed_mirroring_axes)
        found.append((settings, [type(step) for step in drawn], drawn_batches))
    (ours, our_steps, our_batches), (stock, stock_steps, stock_batches) = found
    assert ours == stock == (2, False, (0, 1, 2))
    assert [step for step in our_steps if step is not MarkPadding] == stock_steps
    for our_batch, stock_batch in zip(our_batches, stock_batches, strict=True):
        assert torch.equal(our_batch["data"], stock_batch["data"])
        assert all(torch.equal(*pair) for pair in zip(our_batch["target"], stock_batch["target"], strict=True))
