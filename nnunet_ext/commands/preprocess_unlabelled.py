"""`nnunet_ext preprocess-unlabelled`: `imagesUn/` of a dataset, for trainers that learn from them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.commands.planned_dataset import PlannedDataset
from nnunet_ext.commands.pretrain import prepare_all
from nnunet_ext.commands.training_cases import raw_folder
from nnunet_ext.descriptions import OF_DATASET, read_description
from nnunet_ext.files.atomic import says, write_json
from nnunet_ext.options import UnlabelledOptions
from nnunet_ext.options.pretraining import ScanFilter
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import IMAGES, unlabelled_folder
from nnunet_ext.unlabelled.preprocess import Preparation, PreparedScan
from nnunet_ext.unlabelled.scans import find_scans

OF_TRAINING = ("architecture", "batch_dice", "batch_size", "patch_size")  # do not change what is preprocessed


@dataclass(frozen=True)
class UnlabelledCases:
    """What was preprocessed.

    Attributes:
        folder: of the preprocessed images.
        scans: what became of every image.
    """

    folder: Path
    scans: Sequence[PreparedScan]

    @property
    def dropped(self) -> list[PreparedScan]:
        """The images that could not be taken."""
        return [scan for scan in self.scans if scan.dropped is not None]


def require_same_plans(folder: Path, planned: PlannedDataset, configuration: str) -> None:
    """Notes beside the images what they are preprocessed with.

    Raises:
        ValueError: if there are images that were preprocessed with something else.
    """
    plans = planned.plans
    now = {
        "transpose_forward": plans["transpose_forward"],
        "intensities": plans.get("foreground_intensity_properties_per_channel"),
        "configuration": {
            name: value
            for name, value in planned.configuration(configuration).configuration.items()
            if name not in OF_TRAINING
        },
    }
    note = folder.with_name(f"{folder.name}.json")
    if any(folder.iterdir()) and not says(note, now):
        raise ValueError(
            f"All images must be preprocessed with the same plans; those in {folder} were not preprocessed with "
            f"{planned.plans_file.name} as it is now. Run it again with --overwrite."
        )
    write_json(now, note)


def preprocess_unlabelled(options: UnlabelledOptions) -> UnlabelledCases:
    """Preprocesses the images as nnU-Net does; those that were preprocessed before are kept.

    Raises:
        FileNotFoundError: if there are no images, or the dataset has no such plans.
        ValueError: if the plans have no such configuration, it is the second stage of a cascade, or images were
            preprocessed with other plans.
    """
    planned = PlannedDataset.open(options.dataset, options.plans)
    raw = raw_folder(planned.name)
    configuration = planned.configuration(options.configuration)
    if configuration.previous_stage_name is not None:
        raise ValueError(
            f"Images without labels are for trainings that need images alone; {options.configuration} needs the "
            f"segmentations of {configuration.previous_stage_name} as well. Choose another -c."
        )
    ending = read_description(raw / "dataset.json", OF_DATASET)["file_ending"]
    if not (raw / IMAGES).is_dir():
        raise FileNotFoundError(f"Images without labels are read from {raw / IMAGES}; it does not exist.")
    scans = find_scans(raw / IMAGES, ending)
    folder = unlabelled_folder(planned.folder / configuration.data_identifier)
    if options.overwrite and folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    require_same_plans(folder, planned, options.configuration)
    channels = len(configuration.normalization_schemes)
    preparation = Preparation(folder, planned.plans, options.configuration, channels, ending, ScanFilter())
    return UnlabelledCases(folder, prepare_all(scans, preparation, options.processes, allow_tqdm=options.allow_tqdm))
