"""Masked pre-training: masks by epoch, the loss of hidden voxels, checkpoints of the plain network, resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from PIL import Image
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.files.checkpoints import CANNOT_SEGMENT_KEY, EXTRA_STATE_KEY, load_checkpoint
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

BOTH = pytest.mark.parametrize("name", ["nnUNetTrainerMAE", "nnUNetTrainerS3D"])


def batch_of(seed=0, *, channels=1):
    return {"data": torch.randn((2, channels, 32, 32), generator=torch.Generator().manual_seed(seed))}


def masks_of(trainer, steps=3):
    return [trainer.inputs_and_targets(batch_of())[1][1] for _ in range(steps)]


def same(first, second):
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


# --- presets ---


def test_the_presets_are_the_papers(make_trainer):
    small = make_trainer("nnUNetTrainerS3D", initialize=False)
    assert (small.initial_lr, small.num_epochs, small.weight_decay) == (1e-2, 1000, 3e-5)
    large = make_trainer("nnUNetTrainerS3D_PresetL", initialize=False)
    assert (large.initial_lr, large.num_epochs) == (3e-2, 4000)
    assert make_trainer("nnUNetTrainerS3D_PresetL_250epochs", initialize=False).num_epochs == 250


@BOTH
def test_nnunets_optimizer_and_schedule_train_it(make_trainer, name):
    trainer = make_trainer(name)
    group = trainer.optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.99, True)
    trainer.lr_scheduler.step(500)
    assert group["lr"] == pytest.approx(1e-2 * 0.5**0.9)


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
def test_the_loss_is_the_mean_square_over_hidden_voxels(make_trainer, name):
    trainer = make_trainer(name, initialize=False)
    image, visible = batch_of(channels=2)["data"], torch.ones(2, 1, 32, 32)
    visible[:, :, :8] = 0
    outputs = image + 3.0
    outputs[:, :, 8:] += 100  # what is visible does not count
    assert float(trainer.training_loss(outputs, [image, visible])) == pytest.approx(9, rel=1e-5)


@BOTH
def test_the_network_does_not_see_hidden_voxels(make_trainer, name):
    trainer = make_trainer(name)
    batch = batch_of()
    trainer.seed_stage(1)
    seen, (_, visible) = trainer.inputs_and_targets(batch)
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


@BOTH
def test_every_weight_that_is_trained_gets_a_gradient(make_trainer, tmp_path, name):
    """Otherwise DistributedDataParallel fails in the second iteration."""
    trainer = make_trainer(name)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        trainer.network = DistributedDataParallel(trainer.network)
        for seed in range(3):
            assert np.isfinite(trainer.train_step(batch_of(seed))["loss"])
    finally:
        distributed.destroy_process_group()


# --- checkpoints and data ---


@pytest.fixture
def train(make_trainer, preprocessed_cases):
    """`train(name, stop_in_epoch=..., start_from=...)`: the trainer after a short training on two cases."""

    def run(name, *, stop_in_epoch=None, start_from=None):
        torch.manual_seed(0)
        trainer = make_trainer(name, initialize=False, picture_every=2)
        trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 2
        trainer.save_every = 1
        preprocessed_cases(trainer)
        if start_from is not None:
            trainer.load_checkpoint(str(start_from))
        start_of_epoch = trainer.on_epoch_start

        def seeded_start():  # nnU-Net's loader draws from numpy; everything else must not depend on it
            if trainer.current_epoch == stop_in_epoch:
                raise KeyboardInterrupt
            np.random.seed(trainer.current_epoch)
            torch.manual_seed(trainer.current_epoch)
            start_of_epoch()

        trainer.on_epoch_start = seeded_start
        if stop_in_epoch is None:
            trainer.run_training()
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.run_training()
        return trainer

    return run


def file_of(trainer, name):
    return Path(trainer.output_folder) / name


def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(train):
    whole = train("nnUNetTrainerS3D_3epochs")
    weights = {name: value.clone() for name, value in whole.network.named_parameters()}
    losses = whole.logger.get_value("val_losses", step=None)
    stopped = train("nnUNetTrainerS3D_3epochs", stop_in_epoch=2)
    resumed = train("nnUNetTrainerS3D_3epochs", start_from=file_of(stopped, "checkpoint_latest.pth"))
    assert any("densification" in name for name in weights)
    assert all(torch.equal(value, weights[name]) for name, value in resumed.network.named_parameters())
    assert resumed.logger.get_value("val_losses", step=None) == losses


@BOTH
def test_checkpoints_hold_the_plain_network_and_say_that_it_cannot_segment(train, make_trainer, name):
    trainer = train(f"{name}_1epochs")
    checkpoint = load_checkpoint(file_of(trainer, "checkpoint_final.pth"))
    stock = make_trainer("nnUNetTrainer")
    assert checkpoint["network_weights"].keys() == stock.network.state_dict().keys()
    assert checkpoint["trainer_name"] == f"{name}_1epochs"
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert checkpoint["init_args"]["plans"]["plans_name"] == "nnUNetPlans"
    assert checkpoint[EXTRA_STATE_KEY][CANNOT_SEGMENT_KEY]
    load_pretrained_weights(stock.network, str(file_of(trainer, "checkpoint_best.pth")))
    image = batch_of()["data"]
    for pretrained, started in zip(trainer.plain_network.encoder(image), stock.network.encoder(image), strict=True):
        torch.testing.assert_close(pretrained, started, rtol=0, atol=1e-5)


@BOTH
def test_it_logs_and_draws_what_it_reconstructs(train, name):
    trainer = train(f"{name}_4epochs")
    explained = trainer.logger.get_value("validation explained variance", step=None)
    assert len(explained) == 4
    assert max(explained) < 1
    pictures = sorted(path.name for path in file_of(trainer, "reconstructions").iterdir())
    assert pictures == ["epoch_0000.png", "epoch_0002.png", "epoch_0003.png"]  # every second, and the last
    with Image.open(file_of(trainer, "reconstructions") / pictures[0]) as picture:
        assert picture.width >= 3 * 160


def test_intensities_are_not_augmented(make_trainer):
    transforms = trainer_class("nnUNetTrainerMAE").get_training_transforms((32, 32), (-0.5, 0.5), None, (0, 1), False)
    flat = torch.full((1, 32, 32), 2.5)
    for _ in range(20):
        out = transforms(image=flat.clone(), segmentation=torch.zeros(1, 32, 32, dtype=torch.int16))["image"]
        assert out.shape == (1, 32, 32)
        assert out[0, 16, 16] == pytest.approx(2.5)  # the corners turn zero in a rotation
        assert 0 <= float(out.min()) <= float(out.max()) <= 2.5001


@pytest.mark.parametrize("other", ["DSD", "DiceFocal", "DeepLab", "ACE", "CarveMix", "MAE", "DA5"])
def test_what_needs_labels_or_another_network_is_refused(other):
    with pytest.raises(TrainerNameError):
        trainer_class(f"nnUNetTrainerS3D_{other}")


def test_a_cascades_second_stage_is_refused(make_trainer):
    trainer = make_trainer("nnUNetTrainerMAE", initialize=False)
    trainer.is_cascaded = True
    with pytest.raises(ValueError, match="cascade"):
        trainer.as_pretrained(make_trainer("nnUNetTrainer").network)


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
