"""The structures of a dataset as post-processing sees them: what to paint, and what lies beneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ext.labels import Region, regions_of


@dataclass(frozen=True)
class Structure:
    """A foreground class or region.

    Attributes:
        name: as in `dataset.json`.
        labels: the labels that make it up.
        paint: label of a voxel that is added to it.
        beneath: label of a voxel that is taken from it: that of the smallest region around it, or background.
        output: index of its probability.
    """

    name: str
    labels: Region
    paint: int
    beneath: int
    output: int


@dataclass(frozen=True)
class Anatomy:
    """What candidates are made from.

    Attributes:
        structures: all classes or regions, in the order of the outputs.
        regions: whether they are regions, which may overlap.
        relabel: pairs of names: a small structure, and the structure that it becomes.
    """

    structures: tuple[Structure, ...]
    regions: bool
    relabel: tuple[tuple[str, str], ...] = ()

    def named(self, name: str) -> Structure:
        """The structure of a name.

        Raises:
            ValueError: if there is none.
        """
        for structure in self.structures:
            if structure.name == name:
                return structure
        known = ", ".join(structure.name for structure in self.structures)
        raise ValueError(f"A structure must be one of {known}; found {name!r}.")


def anatomy_of(dataset_json: Mapping[str, Any], relabel: Sequence[tuple[str, str]] = ()) -> Anatomy:
    """The structures of a dataset.

    Args:
        dataset_json: nnU-Net's description of the dataset.
        relabel: pairs of names, see `Anatomy`.

    Raises:
        ValueError: if a pair names an unknown structure.
    """
    labels = regions_of(dataset_json)
    has_regions = any(len(region) > 1 for region in labels.values())
    if has_regions:
        paint = dict(zip(labels, map(int, dataset_json["regions_class_order"]), strict=True))
        structures = tuple(
            Structure(name, region, paint[name], _beneath(region, labels, paint), output)
            for output, (name, region) in enumerate(labels.items())
        )
    else:
        in_order = sorted(labels.items(), key=lambda item: item[1])  # that of the outputs, background first
        structures = tuple(Structure(name, (label,), label, 0, label) for name, (label,) in in_order)
    anatomy = Anatomy(structures, has_regions, tuple(relabel))
    for pair in relabel:
        for name in pair:
            anatomy.named(name)
    return anatomy


def _beneath(region: Region, labels: Mapping[str, Region], paint: Mapping[str, int]) -> int:
    """The label that a voxel keeps without this region: that of the smallest region around it, or 0."""
    around = [name for name, other in labels.items() if set(other) > set(region) and paint[name] not in region]
    return paint[min(around, key=lambda name: len(labels[name]))] if around else 0
