"""Real nnU-Net trainers on tiny 2D plans, whose hooks are driven one by one without a dataset."""

import json
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_ext.losses.added_terms import ExtraOfCase, LossWithTerms
from nnunet_ext.trainers.names import trainer_class

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "organ": [1, 2], "lesion": [2]}


def tiny_plans(features):
    """Plans of a 2D U-Net with three stages, the fewest that deep supervision works with."""
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "original_median_shape_after_transp": [1, 40, 40],
        "original_median_spacing_after_transp": [5.0, 1.0, 1.0],
        "configurations": {
            "2d": {
                "data_identifier": "nnUNetPlans_2d",
                "batch_size": 2,
                "patch_size": [32, 32],
                "spacing": [1.0, 1.0],
                "batch_dice": False,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 3,
                        "features_per_stage": list(features),
                        "conv_op": "torch.nn.modules.conv.Conv2d",
                        "kernel_sizes": [[3, 3]] * 3,
                        "strides": [[1, 1], [2, 2], [2, 2]],
                        "n_conv_per_stage": [1] * 3,
                        "n_conv_per_stage_decoder": [1] * 2,
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
        "continue_training": False,  # nnUNetv2_train adds it, the constructor takes it out
    }


def tiny_dataset_json(regions):
    return {
        "channel_names": {"0": "CT"},
        "labels": REGIONS if regions else LABELS,
        **({"regions_class_order": [1, 2]} if regions else {}),
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }


def new_trainer(name, *, initialize=True, regions=False, features=(4, 8, 8), **attributes):
    """The trainer that `nnUNetv2_train 1 2d 0 -tr NAME` builds; `attributes` are set before the network is built."""
    trainer = trainer_class(name)(
        plans=tiny_plans(features),
        configuration="2d",
        fold=0,
        dataset_json=tiny_dataset_json(regions),
        device=torch.device("cpu"),
    )
    for attribute, value in attributes.items():
        assert hasattr(trainer, attribute)
        setattr(trainer, attribute, value)
    if initialize:
        trainer.initialize()
        trainer.inference_allowed_mirroring_axes = (0, 1)  # nnU-Net sets it with its data loaders
    return trainer


@contextmanager
def nnunet_folders(root):
    """nnU-Net's folders under `root`; no training curve and no second thread, which both only take time here."""
    preprocessed = root / "preprocessed" / "Dataset001_Tiny" / "nnUNetPlans_2d"
    preprocessed.mkdir(parents=True)
    (preprocessed / "case.b2nd").touch()  # nnU-Net reads the format off the file endings
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_preprocessed", str(root / "preprocessed"))
        patch.setenv("nnUNet_results", str(root / "results"))
        patch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture
def make_trainer(tmp_path):
    """`make_trainer(name, **options)`: a new trainer whose folders are the test's own."""
    with nnunet_folders(tmp_path):
        yield new_trainer


@pytest.fixture(scope="module")
def make_shared_trainer(tmp_path_factory):
    """The same for a training that several tests of a module share."""
    with nnunet_folders(tmp_path_factory.mktemp("nnunet")):
        yield new_trainer


def one_batch(trainer, seed):
    """A random batch in the form of nnU-Net's loader: (2, 1, 32, 32) and targets at both supervised resolutions."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn((2, 1, 32, 32), generator=generator)
    if trainer.label_manager.has_regions:
        target = torch.randint(2, (2, 2, 32, 32), generator=generator).float()
    else:
        target = torch.randint(3, (2, 1, 32, 32), generator=generator).float()
    levels = [target, target[..., ::2, ::2], *loaded_with_the_case(trainer, generator)]
    return {"data": image, "target": levels, "keys": ["case1", "case2"]}


def loaded_with_the_case(trainer, generator):
    """What nnU-Net's loader would bring along for the terms of the loss: a teacher's two probabilities."""
    modules = trainer.loss.modules() if isinstance(trainer.loss, torch.nn.Module) else ()
    terms = [module for module in modules if isinstance(module, LossWithTerms)]
    loaded = [extra for loss in terms for extra in loss.extras_of_target.values() if isinstance(extra, ExtraOfCase)]
    return [torch.rand((2, 2, 32, 32), generator=generator) / 2 for _ in loaded]


@pytest.fixture(scope="session")
def random_batch():
    """`random_batch(trainer, seed)`: the same batch for the same seed."""
    return one_batch


@pytest.fixture(scope="session")
def run_epochs():
    """`run_epochs(trainer, until)`: nnU-Net's hooks of each epoch, one training step per epoch, falling Dice.

    Batches depend on the epoch alone (`seed` gives others), so that runs can be compared.
    """

    def run(trainer, until, *, seed=0):
        while trainer.current_epoch < until:
            epoch = trainer.current_epoch
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
            trainer.on_train_epoch_end([trainer.train_step(one_batch(trainer, 1000 * seed + epoch))])
            trainer.logger.log("mean_fg_dice", 0.9 - 0.01 * epoch, epoch)
            trainer.logger.log("dice_per_class_or_region", [0.9, 0.8], epoch)
            trainer.logger.log("val_losses", 0.5, epoch)
            trainer.on_epoch_end()

    return run


@pytest.fixture(scope="session")
def checkpoint_files():
    """`checkpoint_files(trainer)`: names of all files in its fold folder but nnU-Net's text log, sorted."""

    def names(trainer):
        folder = Path(trainer.output_folder)
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("training_log"))

    return names


@pytest.fixture
def make_trainer_of(make_trainer):
    """`make_trainer_of(trainer_class, **options)`: the same for a class that a test defines."""

    def make(trainer_class, *, initialize=True, **options):
        shape = make_trainer("nnUNetTrainer", initialize=False, **options)
        given = deepcopy(shape.my_init_kwargs)
        given["plans"]["continue_training"] = False  # the constructor has taken it out
        trainer = trainer_class(**given)
        if initialize:
            trainer.initialize()
            trainer.inference_allowed_mirroring_axes = (0, 1)
        return trainer

    return make


@pytest.fixture
def preprocessed_cases(monkeypatch):
    """`preprocessed_cases(trainer)`: two cases of noise for its loaders, which run in this process; gives the images.

    Labels are 1 where the intensity is positive.
    """

    def save(trainer):
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        trainer.configuration_manager.configuration["use_mask_for_norm"] = [False]
        folder = Path(trainer.preprocessed_dataset_folder)
        (folder / "case.b2nd").unlink(missing_ok=True)  # `nnunet_folders` leaves an empty one
        images = np.random.default_rng(0).normal(size=(2, 1, 3, 40, 40)).astype(np.float32)
        for name, image in zip(("case1", "case2"), images, strict=True):
            labels = (image > 0).astype(np.int8)
            properties = {
                "class_locations": {1: np.argwhere(labels), (1, 2): np.argwhere(labels), (2,): []},
                "shape_before_cropping": image.shape[1:],
                "spacing": [1.0, 1.0, 1.0],
                "bbox_used_for_cropping": [[0, length] for length in image.shape[1:]],
            }
            blocks = {"chunks": image.shape, "blocks": image.shape}
            for file in folder.glob(f"{name}*"):
                file.unlink()  # of a trainer before
            nnUNetDatasetBlosc2.save_case(image, labels, properties, str(folder / name), **blocks)
        splits = [{"train": ["case1", "case2"], "val": ["case1", "case2"]}]
        (folder.parent / "splits_final.json").write_text(json.dumps(splits))
        (folder.parent / "dataset_fingerprint.json").write_text("{}")  # nnU-Net copies it
        return images

    return save
