"""Batches of images without labels, cut and augmented as nnU-Net does it with labelled ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_ext.trainers.own_steps import NO_LABELS
from nnunet_ext.trainers.pretraining.transforms import spatial_transforms

IMAGES = "imagesUn"  # of a raw dataset
COMPLETE = ".pkl"  # ending of the last file of a preprocessed image


def unlabelled_folder(preprocessed: Path) -> Path:
    """The folder of the preprocessed images without labels, beside the cases with labels."""
    return preprocessed.with_name(f"{preprocessed.name}_unlabelled")


def unlabelled_dataset(folder: Path, dataset: str, plans_name: str, configuration: str) -> nnUNetBaseDataset:
    """nnU-Net's dataset of the completely preprocessed images without labels.

    Args:
        folder: see `unlabelled_folder`.
        dataset: its name, for the message; so are the plans' and the configuration's.
        plans_name: see above.
        configuration: see above.

    Raises:
        FileNotFoundError: if no image was preprocessed.
    """
    names = [file.name.removesuffix(COMPLETE) for file in folder.glob(f"*{COMPLETE}")] if folder.is_dir() else []
    if not names:
        raise FileNotFoundError(
            f"Images without labels must be preprocessed; {folder} has none. Put images into {IMAGES} of the raw "
            f"dataset and run nnunet_ext preprocess-unlabelled -d {dataset} -c {configuration} -p {plans_name}."
        )
    return infer_dataset_class(str(folder))(str(folder), names)


def dataset_of(trainer: nnUNetTrainer) -> nnUNetBaseDataset:
    """A training's preprocessed images without labels.

    Raises:
        FileNotFoundError: if there is none.
    """
    folder, plans = unlabelled_folder(Path(trainer.preprocessed_dataset_folder)), trainer.plans_manager
    return unlabelled_dataset(folder, plans.dataset_name, plans.plans_name, trainer.configuration_name)


def unlabelled_batches(
    trainer: nnUNetTrainer, cases: Any, also: Callable[[ComposeTransforms], ComposeTransforms] = lambda space: space
) -> Iterator[dict[str, Any]]:
    """Batches with "data" (batch size, channels, *patch): rotated, scaled and mirrored as the labelled ones.

    Nothing is read before the first batch is asked for.

    Args:
        trainer: whose batches they are.
        cases: nnU-Net's dataset of the images, or one that wraps it.
        also: adds transforms to those.
    """
    patch = trainer.configuration_manager.patch_size
    rotation, in_plane, loaded_patch, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    loader = nnUNetDataLoader(
        *(cases, trainer.batch_size, loaded_patch, patch, NO_LABELS),
        transforms=also(spatial_transforms(patch, rotation, mirror_axes, in_plane)),
    )
    processes = get_allowed_n_proc_DA()
    if processes == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(
        *(loader, None, max(1, processes // 2), max(3, processes // 4)),
        pin_memory=trainer.device.type == "cuda",
        wait_time=0.002,
    )


def stop(batches: Iterator[dict[str, Any]] | None) -> None:
    """Ends the processes of a loader, if it has any."""
    if isinstance(batches, NonDetMultiThreadedAugmenter):
        batches._finish()
