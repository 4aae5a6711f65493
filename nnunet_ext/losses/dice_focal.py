"""Dice plus focal loss, the loss of the Streaming ensemble (arXiv 2502.09269, Eq. 6, and its released code).

L = 1 L_Dice + 10 L_focal. The published formula and the released code differ, hence two forms of Dice.

The focal term of classes is the released code's. It has no negative term, because the softmax lowers all other
classes when it raises the right one. Regions have a sigmoid each; with the positive term alone "every voxel belongs
to every region" would be a minimum, so they get the negative term, too, weighted 1 - alpha (arXiv 1708.02002, Eq. 5).

Everything is computed in fp32 whatever the logits are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.losses.targets import Target, probabilities_of, require_fitting, truth_by_output, without_ignored

DiceForm = Literal["proper", "paper"]

SMOOTH = 1e-6
DICE_FLOOR = 1e-6  # p and g lie in [1e-6, 1 - 1e-6] in the Dice term
LOG_FLOOR = log(1e-9)  # ln p is not smaller in the focal term
IGNORE = "ignore"  # what nnU-Net's dataset.json calls the ignore label


class DiceFocalLoss(nn.Module):
    """dice_weight L_Dice + focal_weight L_focal, called as nnU-Net calls a loss.

    A class that is absent from a sample, and from its prediction, has a Dice term of 0. Predicted all the same, with
    Σp² well above 1e-6, its term is about 1 with a gradient of about 0: the focal term has to remove it. A batch of
    which every voxel is ignored has the loss 0 and the gradient 0; one without any voxel is refused.

    Args:
        regions: the outputs are regions with a sigmoid each, not classes with one softmax.
        ignore_label: for classes, the label of voxels that do not count; for regions any number says that the
            target's last channel marks them. None: all voxels count.
        form: of Dice. "proper": 2Σpg / (Σp² + Σg²), a perfect prediction has the loss 0. "paper": without the 2, as
            in the released code, a perfect prediction has the loss 0.5 for each class that is there.
        class_weights: of the Dice term, one an output; None: all 1. "proper" divides by their sum, "paper" by their
            number, as the code does. The paper's weights for ACDC are 1, 2, 1, 1 (background, right ventricle,
            myocardium, left ventricle). The focal term has no weights, as in the code.
        dice_weight: at least 0.
        focal_weight: at least 0.
        gamma: the focal exponent; 0 or at least 1, between them the slope at p = 1 is infinite.
        alpha: the focal factor of a positive voxel, in [0, 1]; of a negative one, in regions, 1 - alpha.

    Raises:
        ValueError: if a number is outside its range, or both weights are 0.
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
            raise ValueError(f'The form of Dice must be "proper" or "paper"; found "{form}".')
        if class_weights is not None:
            require_weights(class_weights)
        if min(dice_weight, focal_weight) < 0 or dice_weight + focal_weight == 0:
            raise ValueError(
                f"Both terms' weights must be at least 0 and not both 0; found {dice_weight} and {focal_weight}."
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
        """A scalar, fp32.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit, the batch is empty, or the class weights are not C.
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
    """One minus soft Dice with squares below, of each sample and output, then the mean over samples; a scalar.

    Args:
        logits: (B, C, *spatial).
        target: from `without_ignored`.
        regions: as for `DiceFocalLoss`, and so are the others.
        form: see there.
        class_weights: see there.

    Raises:
        ValueError: if the class weights are not C.
    """
    outputs = logits.shape[1]
    if class_weights is not None and len(class_weights) != outputs:
        raise ValueError(
            f"class_weights must hold one number for each of the {outputs} outputs; found {len(class_weights)}."
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
    """Mean over the counted voxels of the batch and over outputs of -alpha g (1 - p)^gamma ln p; a scalar.

    For regions plus -(1 - alpha) (1 - g) p^gamma ln(1 - p). Where p < 1e-9 the logarithm is that of 1e-9 and has no
    gradient. 0 if no voxel counts.

    Args:
        logits: (B, C, *spatial).
        target: from `without_ignored`.
        regions: as for `DiceFocalLoss`, and so are the others.
        gamma: see there.
        alpha: see there.
    """
    logits = logits.float()
    if regions:
        inside = F.logsigmoid(logits).clamp_min(LOG_FLOOR)
        outside = F.logsigmoid(-logits).clamp_min(LOG_FLOOR)
        g = target.truth
        terms = alpha * g * outside.exp() ** gamma * inside + (1 - alpha) * (1 - g) * inside.exp() ** gamma * outside
        by_voxel = -terms.mean(dim=1, keepdim=True)  # (B, 1, *spatial)
    else:
        log_p = F.log_softmax(logits, dim=1).gather(1, target.truth).clamp_min(LOG_FLOOR)  # the only one with g = 1
        by_voxel = (
            -alpha * (1 - log_p.exp()) ** gamma * log_p / logits.shape[1]
        )  # the mean over C is over all outputs
    if target.counted is None:
        return by_voxel.mean()
    return (target.counted * by_voxel).sum() / target.counted.sum().clamp_min(1)


def class_weights(labels: Mapping[str, int | Sequence[int]], weights: Mapping[str | int, float]) -> tuple[float, ...]:
    """Weights of a network's outputs, in their order, from weights of named classes; 1 for all others.

    With classes the outputs are the labels by number, background first; with regions they are the regions as
    `dataset.json` lists them, without background. The ignore label is no output.

    Args:
        labels: `labels` of `dataset.json`; a value of several labels makes it a dataset of regions.
        weights: by name, or by label where an output is a single label; at least 0, not all outputs 0.

    Raises:
        ValueError: if a name or label is unknown, an output is named twice, or a weight is no such number.
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
            raise ValueError(f'Class weights are for outputs of the network; found "{key}". Known are: {known}.')
        if name in found:
            raise ValueError(f'Every class has one weight; "{name}" has two, by its name and by its label. Drop one.')
        found[name] = float(weight)
    result = tuple(found.get(name, 1.0) for name in names)
    require_weights(result)
    return result


def as_labels(value: int | Sequence[int]) -> tuple[int, ...]:
    """One label or several as a tuple."""
    return (int(value),) if isinstance(value, int) else tuple(int(label) for label in value)


def require_weights(weights: Iterable[float]) -> None:
    """Raises ValueError unless the weights are finite, at least 0 and not all 0."""
    weights = tuple(weights)
    if not all(0 <= weight < inf for weight in weights) or not any(weights):
        raise ValueError(f"Class weights must be finite, at least 0 and not all 0; found {weights}.")
