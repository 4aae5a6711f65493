"""Slabs from nnU-Net's own loader: intensities say which slice of which case a voxel comes from."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import distributed

from nnunet_ext.architectures.streaming import slices_with_content
from nnunet_ext.trainers.data.slice_stacks import BlankPadding, with_blank_padding

SIDE = 40  # of a slice, in voxels; patches have 32
CENTRE = SIDE // 2


def numbered_case(case, slices, channels=1):
    """Images (channels, D, H, W) whose intensity is 1000 * channel + 100 * case + slice, and labels slice mod 3."""
    values = 100.0 * case + np.arange(slices)
    image = np.stack([values + 1000 * channel for channel in range(channels)])
    image = np.broadcast_to(image[..., None, None], (channels, slices, SIDE, SIDE))
    labels = np.broadcast_to((np.arange(slices) % 3)[None, :, None, None], (1, slices, SIDE, SIDE))
    return image.astype(np.float32), labels.astype(np.int8)


def save_case(folder, name, image, labels):
    """In nnU-Net's format; the only place of a label that the loader knows is the centre."""
    depth = image.shape[1]
    centre = np.array([[0, depth // 2, CENTRE, CENTRE]])
    properties = {"class_locations": {1: centre, 2: centre, (1, 2): centre, (2,): centre}}
    chunks = {"chunks": image.shape, "blocks": (1, *image.shape[1:]), "chunks_seg": labels.shape}
    nnUNetDatasetBlosc2.save_case(image, labels, properties, str(folder / name), blocks_seg=labels.shape, **chunks)


def architecture_3d(architecture):
    """The 2D architecture of the fixture's plans with one axis more."""
    text = json.dumps(architecture).replace("2d", "3d")
    changed = json.loads(text)
    changed["arch_kwargs"].update(strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], kernel_sizes=[[3, 3, 3]] * 3)
    return changed


def plans_for_slabs(plans, *, median_slices, batch_size, channels):
    """The fixture's 2D plans with what loading needs, and a 3D configuration beside them."""
    changed = deepcopy(plans)
    changed["continue_training"] = False  # the constructor takes it out
    changed["original_median_shape_after_transp"] = [median_slices, SIDE, SIDE]
    planar = changed["configurations"]["2d"]
    planar.update(batch_size=batch_size, use_mask_for_norm=[False] * channels)
    volumetric = {
        "data_identifier": planar["data_identifier"],  # the same cases
        "batch_size": 2,
        "patch_size": [8, 32, 32],
        "architecture": architecture_3d(planar["architecture"]),
    }
    changed["configurations"]["3d_fullres"] = {**planar, **volumetric}
    return changed


@pytest.fixture
def load_slabs(make_trainer, monkeypatch, tmp_path):
    """`load_slabs(name, cases)`: an initialized trainer and its loaders of training and validation."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    np.random.seed(0)
    torch.manual_seed(0)

    def load(
        name,
        cases=None,
        *,
        median_slices=4,
        batch_size=8,
        configuration="2d",
        regions=False,
        oversample=0.33,
        loaders=True,
    ):
        cases = cases or [numbered_case(case, 10) for case in (1, 2, 3)]
        folder = tmp_path / "preprocessed" / "Dataset001_Tiny"
        (folder / "nnUNetPlans_2d" / "case.b2nd").unlink(missing_ok=True)  # the fixture's empty one
        names = [f"case{number}" for number in range(1, len(cases) + 1)]
        for case, arrays in zip(names, cases, strict=True):
            if not (folder / "nnUNetPlans_2d" / f"{case}.b2nd").exists():
                save_case(folder / "nnUNetPlans_2d", case, *arrays)
        (folder / "splits_final.json").write_text(json.dumps([{"train": names, "val": names}]))
        channels = len(cases[0][0])
        shape = make_trainer(name, initialize=False, regions=regions)
        given = deepcopy(shape.my_init_kwargs)
        given["plans"] = plans_for_slabs(
            given["plans"], median_slices=median_slices, batch_size=batch_size, channels=channels
        )
        given["dataset_json"]["channel_names"] = {str(channel): "CT" for channel in range(channels)}
        given["configuration"] = configuration
        trainer = type(shape)(**given)
        trainer.oversample_foreground_percent = oversample
        trainer.initialize()
        return (trainer, *trainer.get_dataloaders()) if loaders else trainer

    return load


def batches(loader, count=10):
    return [next(loader) for _ in range(count)]


def central_values(batch):
    """The intensity at the centre of every slice, (slabs, channels, slices), in whole numbers."""
    return batch["data"][:, :, :, 16, 16].round().int().numpy()


def finest(target):
    return target[0] if isinstance(target, list) else target


def only_spatial(loader, *, rotates=True):
    """Leaves out nnU-Net's intensity transforms and rotates and scales every slab."""
    transforms = loader.data_loader.transforms.transforms
    transforms[:] = [step for step in transforms if not isinstance(step, RandomTransform)]
    for step in transforms:
        if isinstance(step, SpatialTransform):
            step.p_rotation = step.p_scaling = float(rotates)
    return loader


def steps_of(loader, kind):
    return [step for step in loader.data_loader.transforms.transforms if isinstance(step, kind)]


# --- what a slab holds ---


@pytest.mark.parametrize("which", ["training", "validation"])
def test_slices_of_a_slab_are_consecutive_and_of_one_case(load_slabs, which):
    _, training, validation = load_slabs("nnUNetTrainerStreaming_NoDA")
    seen = set()
    for batch in batches(training if which == "training" else validation, 30):
        assert batch["data"].shape == (2, 1, 4, 32, 32)
        for slab, key in zip(central_values(batch)[:, 0], batch["keys"], strict=True):
            first = slab[0]
            assert slab.tolist() == [first, first + 1, first + 2, first + 3]
            assert {value // 100 for value in slab} == {int(key.removeprefix("case"))}
            seen |= set(slab.tolist())
    assert seen == {100 * case + slice_ for case in (1, 2, 3) for slice_ in range(10)}


def test_labels_belong_to_their_slices_at_every_scale(load_slabs):
    _, training, _ = load_slabs("nnUNetTrainerStreaming_NoDA")
    for batch in batches(training):
        assert [target.shape for target in batch["target"]] == [(2, 1, 4, 32, 32), (2, 1, 4, 16, 16)]
        expected = central_values(batch) % 100 % 3
        for target in batch["target"]:
            assert (target.flatten(start_dim=3).min(dim=3).values.numpy() == expected).all()
            assert (target.flatten(start_dim=3).max(dim=3).values.numpy() == expected).all()


def test_without_deep_supervision_there_is_one_target(load_slabs):
    _, training, validation = load_slabs("nnUNetTrainerStreaming_NoDeepSupervision")
    for loader in (training, validation):
        assert next(loader)["target"].shape == (2, 1, 4, 32, 32)


def test_regions_have_targets_of_their_own(load_slabs):
    # {1, 2} and {2} of the labels slice mod 3
    _, training, _ = load_slabs("nnUNetTrainerStreaming_NoDA", regions=True)
    batch = next(training)
    labels = torch.from_numpy(central_values(batch)[:, 0] % 100 % 3)
    assert [target.shape for target in batch["target"]] == [(2, 2, 4, 32, 32), (2, 2, 4, 16, 16)]
    for target in batch["target"]:
        assert torch.equal(target[:, 0, :, 0, 0].bool(), labels > 0)
        assert torch.equal(target[:, 1, :, 0, 0].bool(), labels == 2)


def test_foreground_slabs_lie_around_a_labelled_voxel(load_slabs):
    # The labelled voxel is in slice 5; nnU-Net begins the patch half of its length before it, at 5 - 4 // 2 = 3
    _, training, validation = load_slabs("nnUNetTrainerStreaming_NoDA", oversample=1.0)
    for loader in (training, validation):
        for batch in batches(loader, 5):
            assert (central_values(batch)[:, 0] % 100 == [3, 4, 5, 6]).all()


def test_a_batch_of_one_slab_holds_foreground_as_often_as_asked(load_slabs):
    # By place in the batch, nnU-Net's other way, round(1 * (1 - 0.33)) = 1 slab of 1 would never be chosen.
    # Of the others a seventh begin at slice 3 by chance: 0.33 + 0.67 / 7 = 0.43
    _, training, _ = load_slabs("nnUNetTrainerStreaming_NoDA", batch_size=4)
    first = [central_values(batch)[0, 0, 0] % 100 for batch in batches(training, 300)]
    assert np.mean(np.array(first) == 3) == pytest.approx(0.43, abs=0.1)


# --- how large a slab is ---


@pytest.mark.parametrize(
    ("median_slices", "batch_size", "slices", "slabs"),
    [
        (6, 12, 6, 2),
        (6, 13, 6, 2),  # one slice fewer than planned
        (6, 17, 6, 2),
        (30, 24, 12, 2),  # no more than twelve
        (30, 5, 5, 1),  # no more than the planned batch
        (7.6, 12, 8, 1),  # medians of an even number of cases are no whole numbers
        (1, 12, 1, 12),
        (0.4, 12, 1, 12),
        (30, 1, 1, 1),
    ],
)
def test_a_batch_has_no_more_slices_than_planned(load_slabs, median_slices, batch_size, slices, slabs):
    trainer = load_slabs("nnUNetTrainerStreaming", median_slices=median_slices, batch_size=batch_size, loaders=False)
    assert (trainer.slices_in_slab, trainer.batch_size) == (slices, slabs)
    assert slices * slabs <= batch_size


def test_several_gpus_share_the_planned_slices(load_slabs, monkeypatch):
    # The first of two GPUs, twelve slices planned: six are its own
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    trainer = load_slabs("nnUNetTrainerStreaming", median_slices=12, batch_size=12, loaders=False)
    trainer.is_ddp = True
    trainer._set_batch_size_and_oversample()
    assert trainer.slices_in_slab * trainer.batch_size <= 6


@pytest.mark.parametrize(
    ("median_slices", "batch_size", "shape"), [(1, 3, (3, 1, 1, 32, 32)), (9, 5, (1, 1, 5, 32, 32))]
)
def test_batches_have_that_shape(load_slabs, median_slices, batch_size, shape):
    _, training, validation = load_slabs("nnUNetTrainerStreaming", median_slices=median_slices, batch_size=batch_size)
    for loader in (training, validation):
        batch = next(loader)
        assert batch["data"].shape == shape
        assert finest(batch["target"]).shape == shape


def test_a_case_with_fewer_slices_than_a_slab_is_padded_with_zeros(load_slabs):
    # Three of six slices are padding, 3 // 2 = 1 of them before or 2, as nnU-Net divides them
    cases = [numbered_case(case, 3) for case in (1, 2)]
    trainer, training, validation = load_slabs(
        "nnUNetTrainerStreaming_NoDA", cases, median_slices=6, batch_size=12, oversample=0.0
    )
    for batch in (*batches(training, 5), *batches(validation, 5)):
        for image, values in zip(batch["data"][:, 0], central_values(batch)[:, 0].tolist(), strict=True):
            of_image = [value for value in values if value]
            assert [value % 100 for value in of_image] == [0, 1, 2]
            assert values.index(of_image[0]) in (1, 2)
            assert image.count_nonzero() == 3 * 32 * 32
    assert np.isfinite(trainer.train_step(next(training))["loss"])


def test_augmentation_leaves_padding_constant(load_slabs):
    # Noise, contrast, gamma and the like act on the padding, too
    generator = np.random.default_rng(0)
    cases = [(generator.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32), numbered_case(1, 3)[1]) for _ in range(2)]
    trainer, training, _ = load_slabs("nnUNetTrainerStreaming", cases, median_slices=6, batch_size=12, oversample=0.0)
    noise = [
        step for step in steps_of(training, RandomTransform) if isinstance(step.transform, GaussianNoiseTransform)
    ]
    assert len(noise) == 1
    noise[0].apply_probability = 1
    for batch in batches(training):
        image = batch["data"]
        in_image = slices_with_content(image)
        assert in_image.sum(dim=1).tolist() == [3, 3]
        assert image.movedim(2, 1)[~in_image].abs().sum() == 0
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_without_blank_padding_noise_would_hide_it(load_slabs):
    cases = [numbered_case(case, 3) for case in (1, 2)]
    _, training, _ = load_slabs("nnUNetTrainerStreaming", cases, median_slices=6, batch_size=12)
    transforms = training.data_loader.transforms.transforms
    transforms[:] = [step for step in transforms if not isinstance(step, BlankPadding)]
    for step in transforms:
        if isinstance(step, RandomTransform):
            step.apply_probability = float(isinstance(step.transform, GaussianNoiseTransform))
    assert slices_with_content(next(training)["data"]).all()


# --- augmentation ---


def test_all_slices_of_a_slab_are_turned_and_scaled_alike(load_slabs):
    generator = np.random.default_rng(0)
    picture = generator.normal(size=(1, 1, SIDE, SIDE)).astype(np.float32)
    labels = (picture > 0).astype(np.int8)
    cases = [tuple(np.repeat(array, 6, axis=1) for array in (picture, labels))] * 2
    _, training, _ = load_slabs("nnUNetTrainerStreaming", cases)
    # the loader may reach beyond the end of a case; such slices are padding
    slabs = []
    for batch in batches(only_spatial(training)):
        for image, target in zip(batch["data"], finest(batch["target"]), strict=True):
            in_image = slices_with_content(image[None])[0]
            images, targets = image[0, in_image], target[0, in_image]
            assert len(images) > 1
            assert all(torch.equal(images[0], other) for other in images[1:])
            assert all(torch.equal(targets[0], other) for other in targets[1:])
            assert not np.isin(images[0].numpy(), picture).all()  # it was interpolated
            slabs.append(images[0])
    assert not any(torch.equal(slabs[0], other) for other in slabs[1:])  # slabs differ


def test_channels_and_slices_keep_their_places(load_slabs):
    cases = [numbered_case(case, 10, channels=2) for case in (1, 2, 3)]
    _, training, _ = load_slabs("nnUNetTrainerStreaming", cases)
    for batch in batches(only_spatial(training)):
        values = central_values(batch)
        assert values.shape == (2, 2, 4)
        assert (values[:, 1] == values[:, 0] + 1000).all()
        assert (np.diff(values, axis=2) == 1).all()
        assert (finest(batch["target"])[:, 0, :, 16, 16].numpy() == values[:, 0] % 100 % 3).all()


def test_training_mirrors_in_plane_only(load_slabs):
    trainer, training, _ = load_slabs("nnUNetTrainerStreaming")
    (mirror,) = steps_of(training, MirrorTransform)
    assert mirror.allowed_axes == (1, 2)  # behind the axis of the slices
    for batch in batches(only_spatial(training)):
        assert (np.diff(central_values(batch)[:, 0]) == 1).all()  # slices ascend
    assert trainer.inference_allowed_mirroring_axes == (0, 1)  # prediction sees single slices


def test_both_axes_in_plane_are_mirrored(load_slabs):
    ramp = np.add.outer(np.arange(SIDE), SIDE * np.arange(SIDE)).astype(np.float32)
    cases = [(np.broadcast_to(ramp, (1, 6, SIDE, SIDE)), numbered_case(1, 6)[1])] * 2
    _, training, _ = load_slabs("nnUNetTrainerStreaming", cases, oversample=0.0)
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
def test_stock_variants_say_what_is_mirrored(load_slabs, variant, in_plane, inference):
    trainer, training, _ = load_slabs(f"nnUNetTrainerStreaming_{variant}")
    assert [mirror.allowed_axes for mirror in steps_of(training, MirrorTransform)] == ([in_plane] if in_plane else [])
    assert trainer.inference_allowed_mirroring_axes == inference
    assert next(training)["data"].shape == (2, 1, 4, 32, 32)


@pytest.mark.parametrize("variant", ["NoDA", "DA5", "DA5ord0", "DASegOrd0", "noDummy2DDA"])
def test_stock_augmentations_take_slabs(load_slabs, variant):
    _, training, validation = load_slabs(f"nnUNetTrainerStreaming_{variant}", median_slices=6, batch_size=12)
    for loader in (training, validation):
        for batch in batches(loader, 3):
            assert batch["data"].shape == (2, 1, 6, 32, 32)
            assert [target.shape[1:3] for target in batch["target"]] == [(1, 6)] * 2
    assert len(steps_of(training, BlankPadding)) == 1


def test_da5_which_divides_slices_by_six_is_refused_for_thinner_slabs(load_slabs):
    with pytest.raises(ValueError, match=r"at least 6 slices; this dataset and batch size give 4\. Leave DA5 out"):
        load_slabs("nnUNetTrainerStreaming_DA5", median_slices=4, batch_size=4)


def test_a_step_of_training_and_of_validation_on_loaded_slabs(load_slabs):
    trainer, training, validation = load_slabs("nnUNetTrainerStreaming")
    trainer.network.train()
    assert np.isfinite(trainer.train_step(next(training))["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(validation))["loss"])


# --- what stays as it is ---


def test_the_trainers_configuration_stays_the_planned_one(load_slabs):
    trainer, *_ = load_slabs("nnUNetTrainerStreaming")
    assert trainer.configuration_manager.patch_size == [32, 32]
    assert trainer.plans_manager.get_configuration("2d").patch_size == [32, 32]


def test_it_does_so_when_loading_fails(load_slabs):
    trainer, *_ = load_slabs("nnUNetTrainerStreaming")
    for file in Path(trainer.preprocessed_dataset_folder).iterdir():
        file.unlink()
    with pytest.raises((FileNotFoundError, RuntimeError)):
        trainer.get_dataloaders()
    assert trainer.configuration_manager.patch_size == [32, 32]


def test_a_3d_configuration_is_loaded_as_stock_does(load_slabs):
    cases = [numbered_case(case, 20) for case in (1, 2, 3)]
    found = []
    for name in ("nnUNetTrainerStreaming", "nnUNetTrainer"):
        trainer, training, validation = load_slabs(name, cases, configuration="3d_fullres")
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
    assert [step for step in our_steps if step is not BlankPadding] == stock_steps
    for our_batch, stock_batch in zip(our_batches, stock_batches, strict=True):
        assert torch.equal(our_batch["data"], stock_batch["data"])
        assert all(torch.equal(*pair) for pair in zip(our_batch["target"], stock_batch["target"], strict=True))


# --- blank padding ---


def test_blank_padding_by_hand():
    # Four slices of 2 x 2: wholly outside, partly outside, inside, wholly outside
    segmentation = torch.tensor([[-1, -1, -1, -1], [-1, -1, -1, 0], [0, 1, 2, 0], [-1, -1, -1, -1]])
    segmentation = segmentation.reshape(1, 4, 2, 2)
    noise = torch.randn((3, 4, 2, 2), generator=torch.Generator().manual_seed(0))
    found = BlankPadding()(image=noise.clone(), segmentation=segmentation.clone())
    expected = noise.clone()
    expected[:, 0] = expected[:, 3] = 0  # in all channels
    assert torch.equal(found["image"], expected)
    assert torch.equal(found["segmentation"], segmentation)


def test_a_slice_is_padding_only_if_all_channels_of_the_segmentation_say_so():
    # A cascade has the labels of the previous stage in the second channel
    segmentation = torch.full((2, 2, 3, 3), -1)
    segmentation[1, 0, 1, 1] = 0
    found = BlankPadding()(image=torch.ones((1, 2, 3, 3)), segmentation=segmentation)
    assert found["image"].sum(dim=(0, 2, 3)).tolist() == [9, 0]


def test_without_padding_nothing_changes():
    image = torch.randn((1, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    segmentation = torch.zeros((1, 3, 4, 4), dtype=torch.int16)
    assert torch.equal(BlankPadding()(image=image.clone(), segmentation=segmentation)["image"], image)


def test_blank_padding_comes_right_before_the_label_of_padding_is_removed():
    steps = [
        GaussianNoiseTransform(),
        RemoveLabelTansform(5, 0),
        MirrorTransform((0,)),
        RemoveLabelTansform(-1, 0),
        DownsampleSegForDSTransform([[1, 1, 1]]),
    ]
    given = ComposeTransforms(list(steps))
    found = with_blank_padding(given).transforms
    assert [type(step) for step in found[:3]] == [type(step) for step in steps[:3]]
    assert isinstance(found[3], BlankPadding)
    assert found[:3] + found[4:] == steps
    assert given.transforms == steps  # left as they were
