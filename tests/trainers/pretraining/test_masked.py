"""Masked pre-training: masks by epoch, the loss of hidden voxels, ablations."""

import numpy as np
import pytest
import torch

from nnunet_ext.trainers.names import trainer_class

BOTH = pytest.mark.parametrize("name", ["nnUNetTrainerMAE", "nnUNetTrainerS3D"])


def masks_of(trainer, steps=3):
    return [trainer.inputs_and_targets({"data": torch.zeros(2, 1, 32, 32)})[1][1] for _ in range(steps)]


def same(first, second):
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


# --- presets ---


def test_the_presets_are_the_papers(make_trainer):
    small = make_trainer("nnUNetTrainerS3D", initialize=False)
    assert (small.initial_lr, small.num_epochs, small.weight_decay) == (1e-2, 1000, 3e-5)
    large = make_trainer("nnUNetTrainerS3D_PresetL", initialize=False)
    assert (large.initial_lr, large.num_epochs) == (3e-2, 4000)
    assert make_trainer("nnUNetTrainerS3D_PresetL_250epochs", initialize=False).num_epochs == 250


# --- masks ---


def test_blocks_are_as_large_as_a_bottleneck_voxel(make_trainer):
    trainer = make_trainer("nnUNetTrainerMAE", initialize=False)
    assert trainer.block_size == (4, 4)  # strides 1, 2, 2
    assert trainer.grid == (8, 8)
    assert make_trainer("nnUNetTrainerMAE_MaskBlock16", initialize=False).grid == (2, 2)


def test_a_batch_has_one_ratio_between_60_and_90_percent(make_trainer):
    trainer = make_trainer("nnUNetTrainerMAE", initialize=False)
    shares = []
    for mask in masks_of(trainer, 50):
        in_samples = (1 - mask).mean(dim=(1, 2, 3))
        assert in_samples[0] == in_samples[1]
        assert not torch.equal(mask[0], mask[1])
        shares.append(float(in_samples[0]))
    assert 0.58 < min(shares) < 0.65
    assert 0.85 < max(shares) <= 0.9


def test_a_fixed_ratio_hides_the_same_number_in_every_batch(make_trainer):
    trainer = make_trainer("nnUNetTrainerS3D_MaskRatio75", initialize=False)
    assert [float((1 - mask).mean()) for mask in masks_of(trainer)] == [0.75] * 3


def test_masks_depend_on_epoch_and_iteration_and_those_of_validation_do_not(make_trainer):
    drawn, validation = [], []
    for epochs in ((0, 1), (0,)):  # the second is a training that is started again
        trainer = make_trainer("nnUNetTrainerMAE")
        for trainer.current_epoch in epochs:
            trainer.on_train_epoch_start()
            drawn.append(masks_of(trainer))
            trainer.on_validation_epoch_start()
            validation.append(masks_of(trainer))
    assert same(drawn[0], drawn[2])
    assert not same(drawn[0], drawn[1])
    assert same(validation[0], validation[1])
    assert not torch.equal(validation[0][0], validation[0][1])


BLOCKS_THAT_DO_NOT_FIT = [("nnUNetTrainerMAE_MaskBlock5", "blocks of"), ("nnUNetTrainerS3D_MaskBlock16", "3 of 4")]


@pytest.mark.parametrize(("name", "found"), BLOCKS_THAT_DO_NOT_FIT)
def test_blocks_that_do_not_fit_are_refused_before_the_training(make_trainer, name, found):
    with pytest.raises(ValueError, match=found):
        make_trainer(name)


# --- steps ---


@BOTH
def test_the_loss_is_the_mean_square_over_hidden_voxels(make_trainer, batch_of, name):
    trainer = make_trainer(name, initialize=False)
    image, visible = batch_of(channels=2)["data"], torch.ones(2, 1, 32, 32)
    visible[:, :, :8] = 0
    outputs = image + 3.0
    outputs[:, :, 8:] += 100  # what is visible does not count
    assert float(trainer.training_loss(outputs, [image, visible, 1 - visible])) == pytest.approx(9, rel=1e-5)


@BOTH
def test_the_network_does_not_see_hidden_voxels(make_trainer, batch_of, name):
    trainer = make_trainer(name)
    batch = batch_of()
    trainer.seed_stage(1)
    seen, (_, visible, _) = trainer.inputs_and_targets(batch)
    trainer.seed_stage(1)
    changed, _ = trainer.inputs_and_targets({"data": torch.where(visible == 0, 99.0, batch["data"])})
    assert torch.equal(trainer.network(seen), trainer.network(changed))


@BOTH
def test_it_learns(make_trainer, name):
    torch.manual_seed(0)
    trainer = make_trainer(name)
    image = torch.linspace(-1, 1, 32).expand(2, 1, 32, 32).contiguous()
    losses = [float(trainer.train_step({"data": image})["loss"]) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


# --- data and ablations ---


def test_intensities_are_not_augmented(make_trainer):
    transforms = trainer_class("nnUNetTrainerMAE").get_training_transforms((32, 32), (-0.5, 0.5), None, (0, 1), False)
    flat = torch.full((1, 32, 32), 2.5)
    for _ in range(20):
        out = transforms(image=flat.clone(), segmentation=torch.zeros(1, 32, 32, dtype=torch.int16))["image"]
        assert out.shape == (1, 32, 32)
        assert out[0, 16, 16] == pytest.approx(2.5)  # the corners turn zero in a rotation
        assert 0 <= float(out.min()) <= float(out.max()) <= 2.5001


@pytest.mark.parametrize(
    ("name", "token", "convolution"),
    [
        ("nnUNetTrainerS3D", True, True),
        ("nnUNetTrainerS3D_NoMaskToken", False, True),
        ("nnUNetTrainerS3D_NoDensifyConv", True, False),
        ("nnUNetTrainerS3D_NoMaskToken_NoDensifyConv", False, False),
    ],
)
def test_the_ablations_are_words_of_the_name(make_trainer, name, token, convolution):
    names = make_trainer(name).sparse_network.densification.state_dict()
    assert any("token" in name for name in names) == token
    assert any("projection" in name for name in names) == convolution
