"""Dice plus focal loss, the loss of the Streaming ensemble (arXiv 2502.09269, Eq. 6, and its released code).

L = 1 L_Dice + 10 L_focal. There are two forms of Dice, because the published formula and the released code differ.

The focal loss of classes is that of the released code. It has no negative term, because the softmax lowers all other
classes when it raises the correct one. Regions have one sigmoid each; with the positive term alone, predicting every
region everywhere would be a minimum, so they also have the negative term, weighted by 1 - alpha (arXiv 1708.02002,
Eq. 5).

Everything is computed in fp32, whatever the type of the logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.losses.targets import (
    Target,
    mean_of_counted,
    probabilities_of,
    require_fitting,
    truth_by_output,
    without_ignored,
)

DiceForm = Literal["proper", "paper"]

SMOOTH = 1e-6
DICE_FLOOR = 1e-6  # p and g lie in [1e-6, 1 - 1e-6] in the Dice term
LOG_FLOOR = log(1e-9)  # lower bound of ln p in the focal term
IGNORE = "ignore"  # name of the ignore label in nnU-Net's dataset.json


class DiceFocalLoss(nn.Module):
    """dice_weight L_Dice + focal_weight L_focal, with the interface of nnU-Net's losses.

    A class that is absent from both a sample and its prediction has a Dice term of 0. If it is absent but predicted,
    with Σp² well above 1e-6, its term is about 1 with a gradient of about 0, so only the focal term can remove it. If
    every voxel of a batch is ignored, loss and gradient are 0. A batch without voxels is refused.

    Args:
        regions: whether the outputs are overlapping regions with one sigmoid each, instead of classes with a softmax.
        ignore_label: for classes, the label of voxels that are ignored; for regions, any number means that the last
            channel of the target marks them. None means that no voxel is ignored.
        form: the form of Dice. "proper" is 2Σpg / (Σp² + Σg²), with a loss of 0 for a perfect prediction. "paper"
            lacks the factor 2, as the released code does; the loss of a perfect prediction is 0.5 per present class.
        class_weights: weights of the Dice term, one per output; None means 1 for all. "proper" divides by their sum,
            "paper" by their number, as the released code does. The paper's weights for ACDC are 1, 2, 1, 1
            (background, right ventricle, myocardium, left ventricle). The focal term is not weighted, as in the code.
        dice_weight: weight of the Dice term, at least 0.
        focal_weight: weight of the focal term, at least 0.
        gamma: focal exponent; 0 or at least 1, because between 0 and 1 the slope at p = 1 is infinite.
        alpha: focal weight of a positive voxel, in [0, 1]; for regions a negative voxel has 1 - alpha.

    Raises:
        ValueError: if a number is out of range, or both weights are 0.
    """

    def __init__(
        self,
        *,
        regions: bool = False,
        ignore_label: int | None = None,
        form: DiceForm = "proper",
        class_weights: Sequence[float] | None = None,
        dice_weight: float = 1.0,
        focal_weight: float = 10.0,
        gamma: float = 2.0,
        alpha: float = 0.2,
    ) -> None:
        super().__init__()
        if form not in ("proper", "paper"):
            raise ValueError(f'form must be "proper" or "paper"; found "{form}".')
        if class_weights is not None:
            require_weights(class_weights)
        if min(dice_weight, focal_weight) < 0 or dice_weight + focal_weight == 0:
            raise ValueError(
                f"dice_weight and focal_weight must be at least 0 and not both 0; found {dice_weight} and "
                f"{focal_weight}. The paper's are 1 and 10."
            )
        if not (gamma == 0 or 1 <= gamma < inf):
            raise ValueError(f"gamma must be 0 or at least 1; found {gamma}. The paper's is 2.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1]; found {alpha}. The paper's is 0.2.")
        self.regions = regions
        self.ignore_label = ignore_label
        self.form: DiceForm = form
        self.class_weights = None if class_weights is None else tuple(class_weights)
        self.dice_weight = dice_weight
        self.focal_weight = focal_weight
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss, an fp32 scalar.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's target, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not match, the batch is empty, or there are not C class weights.
        """
        known = without_ignored(target, regions=self.regions, ignore_label=self.ignore_label)
        require_fitting(logits, known.truth, regions=self.regions)
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.dice_weight:
            loss = loss + self.dice_weight * dice_loss(
                logits, known, regions=self.regions, form=self.form, class_weights=self.class_weights
            )
        if self.focal_weight:
            loss = loss + self.focal_weight * focal_loss(
                logits, known, regions=self.regions, gamma=self.gamma, alpha=self.alpha
            )
        return loss


def dice_loss(
    logits: Tensor,
    target: Target,
    *,
    regions: bool = False,
    form: DiceForm = "proper",
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """One minus soft Dice with squares in the denominator (arXiv 2502.09269, Eq. 6), mean over samples and outputs.

    Args:
        logits: (B, C, *spatial).
        target: the result of `without_ignored`.
        regions: see `DiceFocalLoss`.
        form: see `DiceFocalLoss`.
        class_weights: see `DiceFocalLoss`.

    Returns:
        An fp32 scalar. A class that is absent from both prediction and truth contributes about 0.

    Raises:
        ValueError: if there are not C class weights.
    """
    outputs = logits.shape[1]
    if class_weights is not None and len(class_weights) != outputs:
        raise ValueError(
            f"class_weights must have one number for each of the {outputs} outputs; found {len(class_weights)}."
        )
    p = probabilities_of(logits, regions=regions).clamp(DICE_FLOOR, 1 - DICE_FLOOR)
    g = truth_by_output(target, outputs, regions=regions).clamp(DICE_FLOOR, 1 - DICE_FLOOR)
    counted = 1.0 if target.counted is None else target.counted
    overlap = (counted * p * g).flatten(start_dim=2).sum(dim=2)  # (B, C)
    squares = (counted * (p * p + g * g)).flatten(start_dim=2).sum(dim=2)
    factor = 2 if form == "proper" else 1
    by_output = (1 - (factor * overlap + SMOOTH) / (squares + SMOOTH)).mean(dim=0)  # (C,)
    if class_weights is None:
        return by_output.mean()
    weights = by_output.new_tensor(class_weights)
    divisor = sum(class_weights) if form == "proper" else outputs
    return (weights * by_output).sum() / divisor


def focal_loss(
    logits: Tensor, target: Target, *, regions: bool = False, gamma: float = 2.0, alpha: float = 0.2
) -> Tensor:
    """Focal loss (arXiv 1708.02002): -alpha g (1 - p)^gamma ln p, averaged over voxels that count and over outputs.

    Regions also have the negative term -(1 - alpha) (1 - g) p^gamma ln(1 - p). Probabilities in the logarithm are
    clamped to at least 1e-9, below which there is no gradient.

    Args:
        logits: (B, C, *spatial).
        target: the result of `without_ignored`.
        regions: see `DiceFocalLoss`.
        gamma: see `DiceFocalLoss`.
        alpha: see `DiceFocalLoss`.

    Returns:
        An fp32 scalar; 0 if every voxel is ignored.
    """
    logits = logits.float()
    if regions:
        inside = F.logsigmoid(logits).clamp_min(LOG_FLOOR)
        outside = F.logsigmoid(-logits).clamp_min(LOG_FLOOR)
        g = target.truth
        terms = alpha * g * outside.exp() ** gamma * inside + (1 - alpha) * (1 - g) * inside.exp() ** gamma * outside
        by_voxel = -terms.mean(dim=1, keepdim=True)  # (B, 1, *spatial)
    else:
        log_p = F.log_softmax(logits, dim=1).gather(1, target.truth).clamp_min(LOG_FLOOR)  # of the class with g = 1
        by_voxel = -alpha * (1 - log_p.exp()) ** gamma * log_p / logits.shape[1]  # the other classes contribute 0
    return mean_of_counted(by_voxel, target.counted)


def class_weights(labels: Mapping[str, int | Sequence[int]], weights: Mapping[str | int, float]) -> tuple[float, ...]:
    """The weights of a network's outputs, in order, from weights given by class name or label.

    The outputs of classes are the labels by number, with background first; those of regions are the regions in the
    order of `dataset.json`, without background. The ignore label is not an output.

    Args:
        labels: `labels` of `dataset.json`; if any value has several labels, the dataset has regions.
        weights: weights by name, or by label for an output with a single label; at least 0, not all 0.

    Returns:
        One weight per output; 1 for those that `weights` does not mention.

    Raises:
        ValueError: if a name or label is unknown, an output is given twice, or a weight is negative or not finite.
    """
    values = {name: as_labels(value) for name, value in labels.items() if name != IGNORE}
    if any(len(value) > 1 for value in values.values()):
        names = [name for name, value in values.items() if set(value) != {0}]
    else:
        names = sorted(values, key=lambda name: values[name])
    by_label = {values[name][0]: name for name in names if len(values[name]) == 1}
    found: dict[str, float] = {}
    for key, weight in weights.items():
        name = by_label.get(key) if isinstance(key, int) else key
        if name not in names:
            known = ", ".join(f"{name} ({', '.join(map(str, values[name]))})" for name in names)
            raise ValueError(f'Class weights must name outputs of the network; found "{key}". Known are: {known}.')
        if name in found:
            raise ValueError(
                f'Every class must have one weight; "{name}" has two, by name and by label. Remove one of them.'
            )
        found[name] = float(weight)
    result = tuple(found.get(name, 1.0) for name in names)
    require_weights(result)
    return result


def as_labels(value: int | Sequence[int]) -> tuple[int, ...]:
    """A label or a sequence of labels as a tuple."""
    return (int(value),) if isinstance(value, int) else tuple(int(label) for label in value)


def require_weights(weights: Iterable[float]) -> None:
    """Raises ValueError unless the weights are finite, at least 0 and not all 0."""
    weights = tuple(weights)
    if not all(0 <= weight < inf for weight in weights) or not any(weights):
        raise ValueError(f"Class weights must be finite, at least 0 and not all 0; found {weights}.")
