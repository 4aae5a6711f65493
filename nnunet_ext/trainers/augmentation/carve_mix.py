"""CarveMix in nnU-Net's loader: lesions of another training case, at the place where they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_ext.augmentation.carving import Carving, Law, Overlaid, carving_of
from nnunet_ext.trainers.base import ExtTrainer

Case = tuple[Any, Any, Any, dict[str, Any]]  # image, segmentation, that of the previous stage or None, properties

# nnU-Net's normalisations after which images of different cases have the same intensities.
SAME_INTENSITIES = ("ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")


class CarveMix(ExtTrainer):
    """Half of the loaded cases get the lesions of another training case, with what surrounds them.

    Raises:
        ValueError: when the training begins, if channels are not normalised to the same intensities, no two training
            cases have the same grid, or the configuration is a cascade's second stage.
    """

    carve_probability: float = 0.5
    carve_law: Law = "uniform"

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        if self.is_cascaded:
            raise ValueError(
                "CarveMix needs a configuration without a previous stage, whose segmentations are not mixed; found "
                "a cascade. Train its first stage, or 3d_fullres, with CarveMix."
            )
        training, validation = super().get_tr_and_val_datasets()
        require_same_intensities(self.configuration_manager.normalization_schemes)
        partners = partners_of(training)
        mixable = sum(len(others) > 0 for others in partners.values())
        self.print_to_log_file(
            f"CarveMix: {mixable} of {len(partners)} training cases share their grid with another."
        )
        options = CarveOptions(
            labels=tuple(self.label_manager.all_labels[1:]),
            transpose_forward=tuple(self.plans_manager.transpose_forward),
            probability=self.carve_probability,
            law=self.carve_law,
        )
        return CarvedCases(training, partners, options), validation


def require_same_intensities(schemes: Sequence[str]) -> None:
    """Refuses channels whose intensities differ from case to case."""
    others = [scheme for scheme in schemes if scheme not in SAME_INTENSITIES]
    if others:
        raise ValueError(
            f"CarveMix puts a part of one image into another, so both must be normalised to the same intensities, by "
            f"one of {', '.join(SAME_INTENSITIES)}; found {', '.join(others)}. Plan with such a normalisation, or "
            f"train without CarveMix."
        )


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a preprocessed case lie.

    Attributes:
        shape: of the image before nnU-Net cropped it.
        spacing_mm: of the image, as nnU-Net's axes are.
        crop_begin: index of the first voxel that was kept along each axis.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    crop_begin: tuple[int, ...] = field(compare=False)


def grid_of(properties: dict[str, Any]) -> Grid:
    """From what nnU-Net keeps beside a preprocessed case."""
    return Grid(
        tuple(int(length) for length in properties["shape_before_cropping"]),
        tuple(round(float(spacing), 4) for spacing in properties["spacing"]),
        tuple(int(first) for first, _ in properties["bbox_used_for_cropping"]),
    )


def partners_of(dataset: Any) -> dict[str, list[str]]:
    """For each case those others that have the same grid before cropping.

    Raises:
        ValueError: if no case has any.
    """
    grids = {case: grid_of(dataset.load_case(case)[3]) for case in dict.fromkeys(dataset.identifiers)}
    partners = {case: [other for other in grids if other != case and grids[other] == grids[case]] for case in grids}
    if not any(partners.values()):
        raise ValueError(
            "CarveMix puts lesions where they were in another image, so at least two training cases must have the "
            "same shape and spacing; found none of the same grid. Register the images to one grid, or train without "
            "CarveMix."
        )
    return partners


@dataclass(frozen=True)
class CarveOptions:
    """How cases are mixed.

    Attributes:
        labels: that make up a lesion.
        transpose_forward: nnU-Net's order of axes.
        probability: of a case to get lesions of another one.
        law: see `carving_of`.
    """

    labels: tuple[int, ...]
    transpose_forward: tuple[int, ...]
    probability: float = 0.5
    law: Law = "uniform"


class CarvedCases:
    """One of nnU-Net's datasets, some of whose cases have the lesions of others; otherwise the same.

    Args:
        dataset: of the training cases.
        partners: case to those whose lesions it may get.
        options: how.
    """

    def __init__(self, dataset: Any, partners: dict[str, list[str]], options: CarveOptions) -> None:
        self.dataset = dataset
        self.partners = partners
        self.options = options
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> Case:
        """Image, segmentation, that of the previous stage or None, and properties."""
        case = self.dataset.load_case(identifier)
        random = np.random.mtrand._rand  # the generator that nnU-Net's loader draws from
        others = self.partners[identifier]
        if not others or random.uniform() >= self.options.probability:
            return case
        return mixed(case, self.dataset.load_case(others[random.randint(len(others))]), self.options, random)


def mixed(case: Case, other: Case, options: CarveOptions, random: np.random.RandomState) -> Case:
    """A case with the lesions of another one on the same grid; as it is if there is nothing to carve."""
    image, segmentation, previous, properties = case
    other_image, other_segmentation, _, other_properties = other
    other_labels = np.asarray(other_segmentation[:])  # (1, z, y, x)
    spacing_mm = voxel_spacing_mm(other_properties, other_labels.shape[1:], options.transpose_forward)
    carving = carving_of(np.isin(other_labels[0], options.labels), spacing_mm, random, options.law)
    if carving is None:
        return case
    shift = shift_between(other_properties, properties, other_labels.shape[1:])
    begin = tuple(first + step for first, step in zip(carving.begin, shift, strict=True))
    part = (slice(None), *carving.box)
    locations = mixed_locations(properties, other_properties, carving, shift, image.shape[1:])
    return (
        Overlaid(image, np.asarray(other_image[part]), carving.mask, begin),
        Overlaid(segmentation, other_labels[part], carving.mask, begin),
        previous,
        {**properties, "class_locations": locations},
    )


def voxel_spacing_mm(
    properties: Mapping[str, Any], shape: Sequence[int], transpose_forward: Sequence[int]
) -> tuple[float, ...]:
    """Of a preprocessed case of this shape, along nnU-Net's axes."""
    cropped = [last - first for first, last in properties["bbox_used_for_cropping"]]
    return tuple(
        properties["spacing"][axis] * before / after
        for axis, before, after in zip(transpose_forward, cropped, shape, strict=True)
    )


def shift_between(other: Mapping[str, Any], own: Mapping[str, Any], other_shape: Sequence[int]) -> tuple[int, ...]:
    """What is added to a voxel's index in a preprocessed case to find the same place in another one."""
    shift = []
    for axis, (first, last) in enumerate(other["bbox_used_for_cropping"]):
        voxels_per_voxel = other_shape[axis] / (last - first)
        shift.append(round((first - own["bbox_used_for_cropping"][axis][0]) * voxels_per_voxel))
    return tuple(shift)


def mixed_locations(
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    carving: Carving,
    shift: Sequence[int],
    shape: Sequence[int],
) -> dict[Any, np.ndarray]:
    """Where nnU-Net's loader finds the classes of a mixed case: its own outside the carving, the other's inside.

    Args:
        own: of the case; `class_locations` has for each class indices (channel, z, y, x), one row per voxel.
        other: of the case that the carving is of.
        carving: in the other case.
        shift: from the other case's indices to this one's.
        shape: of this case.
    """
    result = {}
    for label, rows in own["class_locations"].items():
        own_rows = np.asarray(rows, np.int64).reshape(-1, 4)  # nnU-Net has an empty list for an absent class
        kept = own_rows[~inside(own_rows[:, 1:] - shift, carving)]
        other_rows = np.asarray(other["class_locations"].get(label, []), np.int64).reshape(-1, 4)
        moved = other_rows[inside(other_rows[:, 1:], carving)] + [0, *shift]
        within = np.all((moved[:, 1:] >= 0) & (moved[:, 1:] < shape), axis=1)
        result[label] = np.concatenate([kept, moved[within]]).astype(np.int64)
    return result


def inside(indices: np.ndarray, carving: Carving) -> np.ndarray:
    """Which rows (voxels, 3) lie in a carving, (voxels,)."""
    in_box = indices - np.asarray(carving.begin)
    within = np.all((in_box >= 0) & (in_box < carving.mask.shape), axis=1)
    within[within] = carving.mask[tuple(in_box[within].T)]
    return within
