"""What holds for every loss of classes and of regions: its minimum, symmetries, and targets without a structure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
import torch
from drawn_targets import certain, random_labels, random_logits
from torch import Tensor

from nnunet_ext.losses.boundary import SIGNED_DISTANCE, BoundaryTerm, SignedDistanceOfTarget
from nnunet_ext.losses.cldice import ClDiceTerm
from nnunet_ext.losses.euler import EulerTerm
from nnunet_ext.losses.focal import FocalLoss
from nnunet_ext.losses.hausdorff_convolution import HausdorffConvTerm
from nnunet_ext.losses.hausdorff_distance import HausdorffDTTerm
from nnunet_ext.losses.hausdorff_erosion import HausdorffErosionTerm
from nnunet_ext.losses.marginal_calibration import ACETerm
from nnunet_ext.losses.region_focal import RegionFocalLoss
from nnunet_ext.losses.skeleton_recall import SKELETON, SkeletonOfTarget, SkeletonRecallTerm
from nnunet_ext.losses.soft_dice import SoftDiceTerm
from nnunet_ext.losses.targets import OutputForm

SHAPES = {"2d": (8, 12), "3d": (4, 6, 6)}
SPACINGS = {2: (1.0, 1.5), 3: (3.0, 1.0, 1.0)}
IGNORE = 9
CLASSES, REGIONS = OutputForm(), OutputForm(regions=True)

Extras = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss by form and spacing; what a loader computes for it; its value of a perfect prediction, None: by hand."""

    make: Callable[[OutputForm, tuple[float, ...]], Callable[..., Tensor]]
    extra: str = ""
    perfect: float | None = 0.0
    plain: bool = False  # called with logits and target only, and not 0 where a class is absent


LOSSES = {
    "boundary": Loss(lambda form, _: BoundaryTerm(form), extra=SIGNED_DISTANCE, perfect=None),
    "Hausdorff, distances": Loss(lambda form, spacing: HausdorffDTTerm(form, spacing)),
    "Hausdorff, erosion": Loss(lambda form, _: HausdorffErosionTerm(form)),
    "Hausdorff, min-max": Loss(lambda form, _: HausdorffErosionTerm(form, erosions=2, rescaling="min-max")),
    "Hausdorff, balls": Loss(lambda form, _: HausdorffConvTerm(form, radii=(1, 3, 6))),
    "clDice": Loss(lambda form, _: ClDiceTerm(form, iterations=3)),
    "skeleton recall": Loss(lambda form, _: SkeletonRecallTerm(form), extra=SKELETON, perfect=-1),
    "Euler, faces": Loss(lambda form, _: EulerTerm(form, window=2)),
    "Euler, corners": Loss(lambda form, _: EulerTerm(form, window=2, connectivity="corners")),
    "ACE, hard": Loss(lambda form, _: ACETerm(form)),
    "ACE, soft": Loss(lambda form, _: ACETerm(form, binning="soft")),
    "soft Dice": Loss(lambda form, _: SoftDiceTerm(form)),
    "region focal": Loss(lambda form, _: RegionFocalLoss(form), perfect=1 - math.log(100) / math.log(40), plain=True),
    "focal": Loss(lambda form, _: FocalLoss(form), plain=True),
}

every_loss = pytest.mark.parametrize("name", LOSSES)
every_term = pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if not loss.plain])
every_form = pytest.mark.parametrize("form", [CLASSES, REGIONS], ids=["classes", "regions"])
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def extras_of(name: str, target: Tensor, outputs: int, form: OutputForm) -> Extras:
    """What a loader computes for a loss."""
    function = {
        SIGNED_DISTANCE: SignedDistanceOfTarget(form, outputs, SPACINGS[target.ndim - 2]),
        SKELETON: SkeletonOfTarget(form, outputs),
    }.get(LOSSES[name].extra)
    return {LOSSES[name].extra: torch.stack([function(patch) for patch in target])} if function else {}


def loss_of(name: str, logits: Tensor, target: Tensor, form: OutputForm, extras: Extras | None = None) -> Tensor:
    loss = LOSSES[name].make(form, SPACINGS[target.ndim - 2])
    if LOSSES[name].plain:
        return loss(logits, target)
    extras = extras_of(name, target, logits.shape[1], form) if extras is None else extras
    return loss(logits, target, epoch=torch.tensor(0), extras=extras)


def with_gradient(name: str, logits: Tensor, target: Tensor, form: OutputForm) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    given = logits.clone().requires_grad_()
    value = loss_of(name, given, target, form)
    value.backward()
    return value.detach(), given.grad


def batch(form: OutputForm, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits by chance and a target in which every patch has every class or region; two of them are foreground."""
    labels = random_labels(shape, seed=seed)
    logits = random_logits(labels, seed=seed)
    if not form.regions:
        return logits, labels
    return logits[:, 1:], torch.cat([labels > 0, labels == 2], dim=1)  # the second region is part of the first


def perfect_logits(target: Tensor, form: OutputForm, margin: float = 200.0) -> Tensor:
    return margin * (2 * target.float() - 1) if form.regions else certain(target, 3, margin)


def with_ignored(target: Tensor, ignored: Tensor, form: OutputForm) -> tuple[Tensor, OutputForm]:
    """The target with ignored voxels (B, 1, *spatial), and its form."""
    if form.regions:
        return torch.cat([target, ignored], dim=1), OutputForm(regions=True, ignore_label=IGNORE)
    return target.where(~ignored, IGNORE), OutputForm(ignore_label=IGNORE)


# --- the minimum ---


@every_loss
@every_form
@every_shape
def test_a_perfect_prediction_has_the_smallest_loss(name, form, shape):
    """Compared with predictions that are wrong in few and in many voxels, certain of it and in doubt."""
    _, target = batch(form, shape)
    logits = perfect_logits(target, form)
    value = loss_of(name, logits, target, form).item()
    if LOSSES[name].perfect is None:
        inside = target if form.regions else torch.cat([target == 1, target == 2], dim=1)
        expected = (extras_of(name, target, logits.shape[1], form)[SIGNED_DISTANCE] * inside).mean().item()
    else:
        expected = LOSSES[name].perfect
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    for share, size in [(0.02, 500), (0.1, 500), (0.5, 500), (1.0, 200), (1.0, 2000)]:
        noise = size * torch.randn(logits.shape, generator=generator)
        chosen = torch.rand(logits.shape, generator=generator) < share
        assert loss_of(name, logits + noise * chosen, target, form).item() >= value - 1e-6


@every_loss
@every_form
def test_a_prediction_that_is_wrong_everywhere_costs_more(name, form):
    _, target = batch(form, SHAPES["2d"])
    right = perfect_logits(target, form, margin=3.0)
    assert loss_of(name, -right, target, form) > loss_of(name, right, target, form)


# --- symmetries ---


@every_loss
@every_form
@every_shape
def test_mirrored_patches_have_the_same_loss(name, form, shape):
    logits, target = batch(form, shape)
    extras = extras_of(name, target, logits.shape[1], form)
    axes = tuple(range(2, logits.ndim))
    mirrored = {key: extra.flip(axes) for key, extra in extras.items()}
    value = loss_of(name, logits.flip(axes), target.flip(axes), form, mirrored)
    assert value.item() == pytest.approx(loss_of(name, logits, target, form, extras).item(), rel=1e-4)


@every_loss
def test_the_order_of_classes_does_not_matter(name):
    logits, labels = batch(CLASSES, SHAPES["2d"])
    swapped = torch.tensor([0, 2, 1])[labels]
    value = loss_of(name, logits[:, [0, 2, 1]], swapped, CLASSES)
    assert value.item() == pytest.approx(loss_of(name, logits, labels, CLASSES).item(), rel=1e-5)


@every_loss
@every_form
def test_the_order_of_patches_does_not_matter(name, form):
    logits, target = batch(form, SHAPES["2d"])
    value = loss_of(name, logits.flip(0), target.flip(0), form)
    assert value.item() == pytest.approx(loss_of(name, logits, target, form).item(), rel=1e-5)


@every_loss
@every_form
def test_the_loss_of_a_batch_is_the_mean_over_its_patches(name, form):
    """For every patch has every structure, and none has ignored voxels."""
    logits, target = batch(form, SHAPES["2d"])
    patches = [loss_of(name, *patch, form).item() for patch in zip(logits.split(1), target.split(1), strict=True)]
    assert loss_of(name, logits, target, form).item() == pytest.approx(sum(patches) / 2, rel=1e-5)


# --- regions ---


@every_loss
@every_shape
def test_regions_are_networks_of_one_sigmoid_each(name, shape):
    logits, target = batch(REGIONS, shape)
    parts = [loss_of(name, logits[:, [c]], target[:, [c]], REGIONS).item() for c in range(2)]
    assert loss_of(name, logits, target, REGIONS).item() == pytest.approx(sum(parts) / 2, rel=1e-5)


@every_loss
@every_shape
def test_a_region_is_a_class_beside_a_background_of_logit_0(name, shape):
    """softmax(0, z) = sigmoid(z)."""
    logits, target = batch(REGIONS, shape)
    logits, target = logits[:, :1], target[:, :1]
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    value, slope = with_gradient(name, logits, target, REGIONS)
    of_classes, slopes = with_gradient(name, both, target.long(), CLASSES)
    assert value.item() == pytest.approx(of_classes.item(), rel=1e-5)
    torch.testing.assert_close(slope, slopes[:, 1:], rtol=1e-3, atol=1e-4 * slope.abs().max().item())


# --- structures that are not there ---


@every_term
@every_form
@every_shape
def test_a_batch_without_foreground_has_neither_a_loss_nor_a_gradient(name, form, shape):
    logits, target = batch(form, shape)
    value, slope = with_gradient(name, logits, torch.zeros_like(target), form)
    assert value.item() == 0
    assert not slope.any()


@every_term
def test_an_absent_region_has_no_gradient_and_the_other_one_its_own(name):
    """The boundary loss is a mean over all regions, the others over those that a patch has."""
    logits, target = batch(REGIONS, SHAPES["2d"])
    target[:, 1] = False
    value, slope = with_gradient(name, logits, target, REGIONS)
    alone, slope_alone = with_gradient(name, logits[:, :1], target[:, :1], REGIONS)
    parts = 2 if name == "boundary" else 1
    assert value.item() * parts == pytest.approx(alone.item(), rel=1e-5)
    assert not slope[:, 1].any()
    torch.testing.assert_close(slope[:, :1] * parts, slope_alone, rtol=1e-4, atol=1e-7)


@every_loss
@every_form
@every_shape
def test_a_structure_that_is_absent_or_fills_a_patch_gives_finite_numbers(name, form, shape):
    logits, target = batch(form, shape)
    target[0], target[1] = 0, 1
    for given in (logits, perfect_logits(target, form), -perfect_logits(target, form)):
        value, slope = with_gradient(name, given, target, form)
        assert value.isfinite()
        assert slope.isfinite().all()


# --- ignored voxels ---


@every_loss
@every_form
@every_shape
def test_what_is_predicted_in_ignored_voxels_does_not_matter(name, form, shape):
    logits, target = batch(form, shape)
    ignored = torch.rand((2, 1, *shape), generator=torch.Generator().manual_seed(2)) < 0.3
    target, form = with_ignored(target, ignored, form)
    value, slope = with_gradient(name, logits, target, form)
    assert slope.any()
    assert not slope[ignored.expand_as(slope)].any()
    noise = 50 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    for other in (logits.where(~ignored, noise), logits.where(~ignored, 1e4), logits.where(~ignored, -1e4)):
        other_value, other_slope = with_gradient(name, other, target, form)
        assert other_value.item() == value.item()
        assert torch.equal(other_slope, slope)


@every_loss
@every_form
def test_what_is_true_in_ignored_voxels_does_not_matter(name, form):
    """Of classes the ignore label stands there; of regions anything may, beside the mark."""
    logits, target = batch(form, SHAPES["2d"])
    ignored = torch.zeros((2, 1, *SHAPES["2d"]), dtype=torch.bool)
    ignored[..., :4] = True
    values = {
        loss_of(name, logits, *with_ignored(given, ignored, form)).item()
        for given in (target, target.where(~ignored, 0), target.where(~ignored, 1))
    }
    assert len(values) == 1


@every_loss
@every_form
def test_an_ignore_label_that_is_nowhere_changes_nothing(name, form):
    logits, target = batch(form, SHAPES["2d"])
    value = loss_of(name, logits, target, form)
    marked, marked_form = with_ignored(target, torch.zeros_like(target[:, :1], dtype=torch.bool), form)
    assert loss_of(name, logits, marked, marked_form).item() == pytest.approx(value.item(), rel=1e-6)


@every_loss
@every_form
@every_shape
def test_a_batch_of_ignored_voxels_has_neither_a_loss_nor_a_gradient(name, form, shape):
    logits, target = batch(form, shape)
    target, form = with_ignored(target, torch.ones((2, 1, *shape), dtype=torch.bool), form)
    value, slope = with_gradient(name, logits, target, form)
    assert value.item() == 0
    assert not slope.any()


# --- numbers ---


@every_loss
@every_form
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(name, form, kind):
    logits, target = batch(form, SHAPES["2d"])
    half = logits.to(kind)
    value = loss_of(name, half, target, form)
    assert value.dtype == torch.float32
    assert value.item() == loss_of(name, half.float(), target, form).item()


@every_loss
@every_form
@pytest.mark.parametrize("size", [30, 100, 1e4])
def test_saturated_logits_have_finite_losses_and_gradients(name, form, size):
    """Right, wrong and by chance."""
    logits, target = batch(form, SHAPES["3d"])
    truth = perfect_logits(target, form, margin=1.0)
    for direction in (truth, -truth, logits.sign(), torch.zeros_like(truth)):
        value, slope = with_gradient(name, size * direction, target, form)
        assert value.isfinite()
        assert slope.isfinite().all()


@every_loss
def test_labels_may_have_any_number_type(name):
    logits, labels = batch(CLASSES, SHAPES["2d"])
    kinds = (torch.int16, torch.int64, torch.float32)
    assert len({loss_of(name, logits, labels.to(kind), CLASSES).item() for kind in kinds}) == 1


@every_loss
@every_form
def test_a_target_that_does_not_fit_is_refused(name, form):
    logits, target = batch(form, SHAPES["2d"])
    extras = extras_of(name, target, logits.shape[1], form)
    with pytest.raises(ValueError, match="need a target of shape"):
        loss_of(name, logits, target[..., :-1], form, extras)
