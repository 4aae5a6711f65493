"""Lesions that are found, missed or spurious: a structure in many components, scored per component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation.surface import require_masks


@dataclass(frozen=True)
class LesionDetection:
    """How many true lesions are found, and how many predicted lesions are true.

    True and predicted lesions need not match one to one: a predicted lesion may cover two true ones, or three may
    lie in a single true one. So there are two counts of success, one on each side.

    Attributes:
        found: true lesions that the prediction covers.
        missed: the other true lesions.
        confirmed: predicted lesions that touch a true one.
        spurious: the other predicted lesions.
    """

    found: int
    missed: int
    confirmed: int
    spurious: int

    @property
    def recall(self) -> float:
        """Share of the true lesions that are found; NaN if there are none."""
        return _share(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that touch a true one; NaN if there are none."""
        return _share(self.confirmed, self.confirmed + self.spurious)

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision, in [0, 1]; NaN if there is no lesion at all, 0 if one side has none.

        Not 2TP/(2TP + FP + FN): that is the same where lesions match one to one, and elsewhere TP is two numbers,
        `found` and `confirmed`. Here each of the two is a share of its own side, so both stay within [0, 1], every
        lesion counts once, and no rule is needed to choose one match among several.
        """
        if not (self.found + self.missed + self.confirmed + self.spurious):
            return float("nan")
        if not self.found or not self.confirmed:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def lesion_f1(prediction: np.ndarray, truth: np.ndarray, *, min_overlap: float = 0.0) -> float:
    """F1 of the lesions, in [0, 1]; larger is better. See `detect_lesions` and `LesionDetection.f1`."""
    return detect_lesions(prediction, truth, min_overlap=min_overlap).f1


def detect_lesions(prediction: np.ndarray, truth: np.ndarray, *, min_overlap: float = 0.0) -> LesionDetection:
    """Counts the lesions of each mask that the other mask finds or confirms.

    A lesion is a connected component; voxels that share a face, an edge or a corner are connected.

    - A true lesion is found if the prediction as a whole covers at least `min_overlap` of its voxels, and
      at least one.
    - A predicted lesion is spurious if it has no voxel in common with the truth. One that touches a true lesion but
      covers too little of it is not spurious: it points at something, and the true lesion counts as missed.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.
        min_overlap: share of the true lesion's voxels, in [0, 1]; at 0 one voxel is enough.

    Returns:
        Counts; those of an empty mask are 0.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D, or `min_overlap` is not in [0, 1].
    """
    require_masks(prediction, truth)
    if not 0 <= min_overlap <= 1:
        raise ValueError(f"min_overlap must be a share of a lesion in [0, 1]; found {min_overlap}.")
    box = bounding_box(prediction | truth)
    if box is None:
        return LesionDetection(found=0, missed=0, confirmed=0, spurious=0)
    both = prediction[box] & truth[box]
    covered, sizes = covered_voxels(components(truth[box]), both)
    touching, _ = covered_voxels(components(prediction[box]), both)
    found = int(((covered > 0) & (covered / sizes >= min_overlap)).sum())
    confirmed = int((touching > 0).sum())
    return LesionDetection(
        found=found, missed=len(covered) - found, confirmed=confirmed, spurious=len(touching) - confirmed
    )


def components(mask: np.ndarray) -> np.ndarray:
    """Numbers the connected components of a boolean mask from 1, in int32; 0 is outside. Corners connect."""
    from scipy import ndimage  # imported here, because it takes a second

    numbered, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=np.int32)
    return numbered


def covered_voxels(numbered: np.ndarray, cover: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each component is covered.

    Args:
        numbered: result of `components`.
        cover: boolean, the same shape.

    Returns:
        covered: (components) int64, voxels of each inside the cover.
        sizes: (components) int64, voxels of each.
    """
    sizes = np.bincount(numbered[numbered > 0], minlength=1)
    return np.bincount(numbered[cover], minlength=len(sizes))[1:], sizes[1:]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
