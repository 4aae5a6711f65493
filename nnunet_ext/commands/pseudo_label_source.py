"""What `nnunet_ext pseudo-label` reads: the labelled dataset, and predictions of images without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_ext.commands.training_cases import raw_folder, splits_file, training_files
from nnunet_ext.descriptions import OF_DATASET, channels_of, read_description
from nnunet_ext.evaluation.folder import Dataset, open_dataset, read_map, read_probabilities
from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map, require_labels
from nnunet_ext.labels import LabelScheme
from nnunet_ext.options import PseudoLabelOptions
from nnunet_ext.options.pseudo_labels import NO_LIMIT
from nnunet_ext.prediction_folder.case_table import recorded_rows
from nnunet_ext.prediction_folder.cases import Case, find_cases, segmented_cases
from nnunet_ext.prediction_folder.map_files import map_file_ending
from nnunet_ext.pseudo_labels.dataset import EarlierRound, earlier_round, without_ignore
from nnunet_ext.pseudo_labels.voxels import believed, confidence_in_label
from nnunet_ext.splits import Split, read_splits

MAP = "mutual_information"
PREDICT_AGAIN = f"Predict again with nnunet_ext predict --save_probabilities --maps {MAP}."


@dataclass(frozen=True)
class Prediction:
    """What is read of one predicted case, each on the axes of nnU-Net's reader.

    Attributes:
        segmentation: (z, y, x), labels.
        confidence: (z, y, x), in these labels.
        disagreement: (z, y, x); None if it does not count.
        properties: what the reader recorded about the geometry.
    """

    segmentation: np.ndarray
    confidence: np.ndarray
    disagreement: np.ndarray | None
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class PseudoLabelSource:
    """The labelled dataset and the predictions.

    Attributes:
        options: of the command.
        name: of the labelled dataset.
        dataset_json: its description.
        description: how the predictions are read.
        labelled: case to its "images" and "label", without the pseudo-labels of earlier rounds.
        earlier: rounds so far.
        splits: of the labelled dataset.
        images: case without labels to its files.
        left_out: predicted case to the reason why it is not taken.
    """

    options: PseudoLabelOptions
    name: str
    dataset_json: dict[str, Any]
    description: Dataset
    labelled: Mapping[str, Mapping[str, Any]]
    earlier: EarlierRound
    splits: Sequence[Split]
    images: Mapping[str, Case]
    left_out: Mapping[str, str]

    @classmethod
    def open(cls, options: PseudoLabelOptions) -> PseudoLabelSource:
        """Finds both, and checks that they belong together.

        Raises:
            FileNotFoundError: if dataset, splits, images or predictions are not there.
            ValueError: if the predictions have other labels than the dataset, a limit is of an unknown label, or no
                case is left.
        """
        name = maybe_convert_to_dataset_name(options.dataset)
        folder, predictions = raw_folder(name), options.predictions
        dataset_json = read_description(folder / "dataset.json", OF_DATASET)
        predicted_json = read_description(existing(predictions / "dataset.json"), OF_DATASET)
        plans = read_description(existing(predictions / "plans.json"))
        labels, predicted = (without_ignore(content["labels"]) for content in (dataset_json, predicted_json))
        if labels != predicted:
            raise ValueError(
                f"Predictions and dataset must have the same labels; {predictions} has {predicted}, {name} has "
                f"{labels}. Give another -d, or predict with a model of this dataset."
            )
        ending = dataset_json["file_ending"]
        names = segmented_cases(predictions, ending)
        examples = [predictions / f"{case}{ending}" for case in sorted(names)]
        description = open_dataset(predicted_json, plans, examples)
        unknown = sorted(set(options.label_confidence) - description.labels)
        if unknown:
            raise ValueError(f"--confidence must name labels of the dataset; {unknown[0]} is none: {labels}.")
        earlier = earlier_round(folder)
        files = training_files(name, dataset_json)
        labelled = {case: found for case, found in files.items() if case not in earlier.cases}
        rejected = {row["case"] for row in recorded_rows(predictions) if row.get("verdict") == "reject"}
        left_out = dict.fromkeys(names & set(labelled), "already labelled")
        left_out |= dict.fromkeys(names & rejected - set(labelled), "verdict reject")
        wanted = sorted(names - set(left_out))
        if not wanted:
            raise ValueError(
                f"At least one predicted case must be without a label; {described(left_out, predictions)}."
            )
        images = {case.name: case for case in find_cases(options.images, ending)}
        for case in wanted:
            existing(predictions / f"{case}.npz")
            if options.most_disagreement < NO_LIMIT:
                existing(predictions / "maps" / MAP / f"{case}{map_file_ending(ending, description.reader)}")
        return cls(
            *(options, name, dataset_json, description, labelled, earlier),
            read_splits(options.splits or splits_file(name)),
            {case: image_of(case, images, options, len(channels_of(dataset_json))) for case in wanted},
            left_out,
        )

    def read(self, case: str) -> Prediction:
        """Reads a predicted case.

        Raises:
            NotComparableError: if a file is missing or damaged, or does not belong to the image.
        """
        folder, dataset = self.options.predictions, self.description
        segmentation, properties = read_label_map(folder / f"{case}{dataset.file_ending}", dataset.reader)
        require_labels(segmentation, dataset.labels, f"the prediction {case}")
        image = self.images[case].files[0]
        shape = dataset.reader.read_images([str(image)])[0].shape[1:]
        if segmentation.shape != shape:
            raise NotComparableError(
                f"A prediction must have the shape of its image; {case} has {segmentation.shape}, {image} {shape}. "
                f"Give the folder of the predicted images with -i."
            )
        probabilities = read_probabilities(existing(folder / f"{case}.npz"), shape, dataset)
        scheme = LabelScheme(dataset.structures, dataset.regions)
        disagreement = None
        if self.options.most_disagreement < NO_LIMIT:
            file = folder / "maps" / MAP / f"{case}{map_file_ending(dataset.file_ending, dataset.reader)}"
            disagreement = read_map(existing(file), shape, dataset)
        confidence = confidence_in_label(probabilities, segmentation, scheme)
        return Prediction(segmentation, confidence, disagreement, properties)

    def kept(self, prediction: Prediction, limits: Mapping[int, float]) -> np.ndarray:
        """(z, y, x), boolean: the voxels that are believed."""
        return believed(
            *(prediction.segmentation, prediction.confidence, prediction.disagreement),
            limits=limits,
            most_disagreement=self.options.most_disagreement,
        )


def existing(file: Path) -> Path:
    """The file.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"Pseudo-labels are made of segmentations, probabilities and maps; {file} does not exist. {PREDICT_AGAIN}"
        )
    return file


def image_of(case: str, images: Mapping[str, Case], options: PseudoLabelOptions, number: int) -> Case:
    """The image of a predicted case.

    Raises:
        FileNotFoundError: if it is not in the folder, or lacks a channel.
    """
    found = len(images[case].files) if case in images else 0
    if found != number:
        raise FileNotFoundError(
            f"Each predicted case needs its image with {number} channels; {options.images} has {found} of {case}. "
            f"Give the folder of the predicted images with -i."
        )
    return images[case]


def described(left_out: Mapping[str, str], folder: Path) -> str:
    """Why no case is left."""
    if not left_out:
        return f"{folder} holds no segmentation"
    return f"{folder} holds only " + ", ".join(f"{case} ({reason})" for case, reason in sorted(left_out.items()))
