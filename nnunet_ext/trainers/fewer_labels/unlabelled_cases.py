"""Batches of images without labels, cut and augmented as nnU-Net does it with labelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.trainers.pretraining.transforms import spatial_transforms

IMAGES = "imagesUn"  # of a raw dataset
NO_LABELS = LabelManager({"background": 0}, None)


def unlabelled_folder(preprocessed: Path) -> Path:
    """The folder of the preprocessed images without labels, beside the cases with labels."""
    return preprocessed.with_name(f"{preprocessed.name}_unlabelled")


def unlabelled_batches(trainer: nnUNetTrainer) -> Iterator[dict[str, Any]]:
    """Batches with "data" (batch size, channels, *patch): rotated, scaled and mirrored as the labelled ones.

    Nothing is read before the first batch is asked for.

    Raises:
        FileNotFoundError: if no image was preprocessed.
    """
    folder = unlabelled_folder(Path(trainer.preprocessed_dataset_folder))
    if not folder.is_dir() or not any(folder.glob("*.pkl")):
        plans = trainer.plans_manager
        raise FileNotFoundError(
            f"{type(trainer).__name__} learns from preprocessed images without labels; {folder} has none. Put images "
            f"into {IMAGES} of the raw dataset and run nnunet_ext preprocess-unlabelled -d {plans.dataset_name} -c "
            f"{trainer.configuration_name} -p {plans.plans_name}."
        )
    patch = trainer.configuration_manager.patch_size
    rotation, in_plane, loaded_patch, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    loader = nnUNetDataLoader(
        *(infer_dataset_class(str(folder))(str(folder)), trainer.batch_size, loaded_patch, patch, NO_LABELS),
        transforms=spatial_transforms(patch, rotation, mirror_axes, in_plane),
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
