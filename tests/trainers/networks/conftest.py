"""Streaming trainers on tiny plans of slabs and volumes."""

from copy import deepcopy

import pytest
import torch

from nnunet_ext import discovery

SLICES = 3


def streaming_plans(plans):
    """The fixture's 2D plans for slabs of three slices, and a 3D configuration beside them."""
    changed = deepcopy(plans)
    changed["continue_training"] = False  # the constructor takes it out
    changed["original_median_shape_after_transp"] = [SLICES, 40, 40]
    planar = changed["configurations"]["2d"]
    planar.update(batch_size=2 * SLICES, patch_size=[16, 16])
    architecture = deepcopy(planar["architecture"])
    architecture["arch_kwargs"].update(
        conv_op="torch.nn.modules.conv.Conv3d",
        norm_op="torch.nn.modules.instancenorm.InstanceNorm3d",
        kernel_sizes=[[3, 3, 3]] * 3,
        strides=[[1, 1, 1], [2, 2, 2], [1, 2, 2]],
    )
    volumetric = {"batch_size": 2, "patch_size": [4, 16, 16], "architecture": architecture}
    changed["configurations"]["3d_fullres"] = {**planar, **volumetric}
    return changed


@pytest.fixture
def nnunet_finds_our_trainers(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", discovery.path())


@pytest.fixture
def make_streaming(make_trainer, nnunet_finds_our_trainers):
    """`make_streaming(part, **options)`: a trainer that is ready for a step."""

    def make(part, *, configuration="2d", regions=False, initialize=True, **attributes):
        shape = make_trainer(f"nnUNetTrainer{part}", initialize=False, regions=regions)
        given = deepcopy(shape.my_init_kwargs)
        trainer = type(shape)(**{**given, "plans": streaming_plans(given["plans"]), "configuration": configuration})
        for attribute, value in attributes.items():
            assert hasattr(trainer, attribute)
            setattr(trainer, attribute, value)
        if initialize:
            trainer.initialize()
            trainer.inference_allowed_mirroring_axes = (0, 1) if configuration == "2d" else (0, 1, 2)
            trainer.network.train()
        return trainer

    return make


def one_slab_batch(trainer, seed=0):
    """In the form of the loader: slabs of a 2D configuration (2, 1, 3, 16, 16), patches of a 3D one."""
    generator = torch.Generator().manual_seed(seed)
    patch = trainer.configuration_manager.patch_size
    shape = (SLICES, *patch) if len(patch) == 2 else tuple(patch)
    image = torch.randn((2, 1, *shape), generator=generator)
    channels, classes = (2, 2) if trainer.label_manager.has_regions else (1, 3)
    target = torch.randint(classes, (2, channels, *shape), generator=generator).float()
    if not trainer.enable_deep_supervision:
        return {"data": image, "target": target}
    coarser = target[..., ::2, ::2] if len(patch) == 2 else target[..., ::2, ::2, ::2]
    return {"data": image, "target": [target, coarser]}


def epochs_of_slabs(trainer, until):
    """nnU-Net's hooks of each epoch, one step an epoch; batch and dropout depend on the epoch alone."""
    while trainer.current_epoch < until:
        epoch = trainer.current_epoch
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        torch.manual_seed(epoch)
        trainer.on_train_epoch_end([trainer.train_step(one_slab_batch(trainer, epoch))])
        trainer.logger.log("mean_fg_dice", 0.9 - 0.01 * epoch, epoch)
        trainer.logger.log("dice_per_class_or_region", [0.9, 0.8], epoch)
        trainer.logger.log("val_losses", 0.5, epoch)
        trainer.on_epoch_end()


@pytest.fixture(scope="session")
def slab_batch():
    """`slab_batch(trainer, seed=0)`: the same batch for the same seed."""
    return one_slab_batch


@pytest.fixture(scope="session")
def run_slab_epochs():
    """`run_slab_epochs(trainer, until)`."""
    return epochs_of_slabs
