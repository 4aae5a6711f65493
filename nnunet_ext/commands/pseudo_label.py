"""`nnunet_ext pseudo-label`: a raw dataset of the labelled cases and of those that an ensemble labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.commands.new_dataset import new_dataset, seen_from
from nnunet_ext.commands.pseudo_label_source import PseudoLabelSource
from nnunet_ext.commands.training_cases import raw_folder
from nnunet_ext.files.atomic import atomic_path, write_json
from nnunet_ext.files.checkpoints import file_sha256
from nnunet_ext.options import PseudoLabelOptions
from nnunet_ext.prediction_folder.provenance import RECORD_NAME, read_provenance
from nnunet_ext.pseudo_labels.dataset import (
    FILE_NAME,
    ignore_label,
    pseudo_dataset_json,
    sampling_weight,
    splits_with,
)
from nnunet_ext.pseudo_labels.voxels import (
    CaseShares,
    ConfidenceCounts,
    case_shares,
    confidence_limits,
    ignored_shares,
)
from nnunet_ext.splits import Split
from nnunet_ext.trainers.data.case_weights import COLUMNS
from nnunet_ext.trainers.data.case_weights import FILE_NAME as WEIGHTS_NAME


@dataclass(frozen=True)
class PseudoLabels:
    """What was written.

    Attributes:
        folder: the raw dataset.
        source: what it was made of; `left_out` has the cases without a kept voxel as well.
        round: its number.
        limits: label to the lowest confidence.
        cases: pseudo-labelled case to its voxels.
        ignored: label to the share of its voxels that is ignored; None where none was predicted.
    """

    folder: Path
    source: PseudoLabelSource
    round: int
    limits: Mapping[int, float]
    cases: Mapping[str, CaseShares]
    ignored: Mapping[int, float | None]


def write_pseudo_labels(options: PseudoLabelOptions) -> PseudoLabels:
    """Writes the dataset, its splits and its case weights.

    Raises:
        FileExistsError: if there is a dataset of the new number.
        FileNotFoundError: if dataset, splits, images or predictions are not there.
        NotComparableError: if a predicted case cannot be read, or does not belong to its image.
        ValueError: if predictions and dataset do not belong together, or no voxel of any case is kept.
    """
    source = PseudoLabelSource.open(options)
    number = source.earlier.round + 1
    base = re.sub(r"Pseudo\d+$", "", source.name.partition("_")[2])
    splits_with(source.splits, source.labelled, source.images, options.patients)  # refuses names before they are read
    with new_dataset(options.new_id, options.name or f"{base}Pseudo{number}") as made:
        limits = limits_of(source)
        cases = write_labels(source, limits, made.staging / "labelsTr")
        empty = {case: "no voxel is kept" for case in source.images if case not in cases}
        source = replace(source, left_out={**source.left_out, **empty})
        if not cases:
            raise ValueError(
                f"At least one voxel must be kept; limits of {limits} and a disagreement of at most "
                f"{options.most_disagreement} leave none. Lower --confidence or raise --most-disagreement."
            )
        splits = splits_with(source.splits, source.labelled, cases, options.patients)
        ignored = ignored_shares(cases.values(), limits)
        found = PseudoLabels(made.folder, source, number, limits, cases, ignored)
        write_json(pseudo_dataset_json(source.dataset_json, files_of(found)), made.staging / "dataset.json")
        write_json(record_of(found), made.staging / FILE_NAME)
        write_beside_plans(found, splits, made.splits)
    return found


def limits_of(source: PseudoLabelSource) -> dict[int, float]:
    """The limit of each label; reads all predictions, so that nothing is written if one is damaged."""
    counts, options = ConfidenceCounts(), source.options
    for case in tqdm(source.images, desc="confidence", disable=not options.allow_tqdm):
        prediction = source.read(case)
        counts.add(prediction.segmentation, prediction.confidence)
    return confidence_limits(
        *(counts, source.description.labels),
        confidence=options.confidence,
        label_confidence=options.label_confidence,
        least_kept=options.least_kept,
    )


def write_labels(source: PseudoLabelSource, limits: Mapping[int, float], folder: Path) -> dict[str, CaseShares]:
    """Writes the pseudo-labels of all cases with a kept voxel, and returns what became of their voxels."""
    folder.mkdir(parents=True)
    dataset, cases = source.description, {}
    ignored = ignore_label(source.dataset_json["labels"])
    for case in tqdm(source.images, desc="pseudo-labels", disable=not source.options.allow_tqdm):
        prediction = source.read(case)
        kept = source.kept(prediction, limits)
        if kept.any():
            labels = np.where(kept, prediction.segmentation, ignored)
            dataset.reader.write_seg(
                labels, str(folder / f"{case}{dataset.file_ending}"), dict(prediction.properties)
            )
            cases[case] = case_shares(prediction.segmentation, prediction.confidence, kept)
    return cases


def files_of(found: PseudoLabels) -> dict[str, dict[str, Any]]:
    """Case to "images" and "label" as in nnU-Net's `dataset.json`; only pseudo-labels lie in the new folder."""
    source, ending = found.source, found.source.description.file_ending
    labelled = {
        case: {
            "images": [seen_from(found.folder, Path(file)) for file in files["images"]],
            "label": seen_from(found.folder, Path(files["label"])),
        }
        for case, files in source.labelled.items()
    }
    pseudo = {
        case: {
            "images": [seen_from(found.folder, file.absolute()) for file in source.images[case].files],
            "label": f"labelsTr/{case}{ending}",
        }
        for case in found.cases
    }
    return labelled | pseudo


def record_of(found: PseudoLabels) -> dict[str, Any]:
    """Content of `pseudo_labels.json`."""
    source, options = found.source, found.source.options
    provenance = read_provenance(options.predictions)
    record = options.predictions / RECORD_NAME
    return {
        "round": found.round,
        "dataset": source.name,
        "dataset_json_sha256": file_sha256(raw_folder(source.name) / "dataset.json"),
        "predictions": str(options.predictions.absolute()),
        "predict_args_sha256": file_sha256(record) if record.is_file() else None,
        "members": [{"name": name, "sha256": sha256} for name, sha256 in provenance.members] if provenance else [],
        "confidence": options.confidence,
        "least_kept": options.least_kept,
        "most_disagreement": options.most_disagreement,
        "limits": {str(label): limit for label, limit in found.limits.items()},
        "ignored": {str(label): share for label, share in found.ignored.items()},
        "cases": {case: asdict(shares) for case, shares in found.cases.items()},
        "left_out": dict(source.left_out),
    }


def write_beside_plans(found: PseudoLabels, splits: Sequence[Split], file: Path) -> None:
    """Writes splits, into that file, and case weights to where nnU-Net and `CaseWeights` look for them."""
    write_json(splits, file)
    sampling = sampling_weight(len(found.source.labelled), len(found.cases))
    with (
        atomic_path(file.with_name(WEIGHTS_NAME)) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for case, shares in found.cases.items():
            writer.writerow([case, f"{sampling:.6g}", f"{shares.confidence:.6g}"])
