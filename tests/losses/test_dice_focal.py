"""Dice plus focal loss against numbers worked out by hand and loops in NumPy."""

import math

import numpy as np
import pytest
import torch

from nnunet_ext.losses.dice_focal import DiceFocalLoss, class_weights, dice_loss, focal_loss
from nnunet_ext.losses.targets import without_ignored

LN_2 = math.log(2)


def logits_of(probabilities):
    """Logits whose softmax over dim 1 are these probabilities."""
    return torch.tensor(probabilities).log()


def certain(labels, classes, margin=100.0):
    """Logits (B, C, *spatial) that are confident of labels (B, 1, *spatial)."""
    return margin * torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).float()


def dice_only(**options):
    return DiceFocalLoss(focal_weight=0, **options)


def focal_only(**options):
    return DiceFocalLoss(dice_weight=0, focal_weight=1, **options)


def random_batch(classes=4, shape=(5, 6), batch=3):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((batch, classes, *shape), generator=generator)
    labels = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    return logits, labels


def numpy_softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def numpy_dice_loss(p, g, counted, *, factor, weights, divisor):
    """The published sum over samples, classes and voxels, term by term; p, g (B, C, voxels), counted (B, voxels)."""
    p, g = np.clip(p, 1e-6, 1 - 1e-6), np.clip(g, 1e-6, 1 - 1e-6)
    total = 0.0
    for c in range(p.shape[1]):
        losses = []
        for n in range(p.shape[0]):
            keep = counted[n]
            overlap = factor * (p[n, c] * g[n, c])[keep].sum() + 1e-6
            losses.append(1 - overlap / ((p[n, c] ** 2)[keep].sum() + (g[n, c] ** 2)[keep].sum() + 1e-6))
        total += weights[c] * np.mean(losses)
    return total / divisor


# --- Dice by hand ---


@pytest.mark.parametrize(("form", "expected"), [("proper", 0), ("paper", 0.5)])
def test_a_perfect_prediction_has_no_loss_or_half_of_one(form, expected):
    """Σpg = Σp² = Σg² = n: 1 − 2n/2n = 0, without the factor 1 − n/2n = 1/2, for both classes alike."""
    labels = torch.tensor([[[0, 0, 1, 1]]])
    assert dice_only(form=form)(certain(labels, 2), labels).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", ["proper", "paper"])
def test_a_prediction_that_is_wrong_everywhere_has_the_dice_loss_one(form):
    labels = torch.tensor([[[0, 0, 1, 1]]])
    assert dice_only(form=form)(certain(1 - labels, 2), labels).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("form", "expected"), [("proper", (5 / 29 + 5 / 21) / 2), ("paper", (17 / 29 + 13 / 21) / 2)]
)
def test_soft_probabilities_by_hand(form, expected):
    """Two voxels, labels 0 and 1, p = (3/4, 1/4) and (1/2, 1/2).

    Class 0: Σpg = 3/4, Σp² = 9/16 + 4/16 = 13/16, Σg² = 1: Σp² + Σg² = 29/16.
        proper 1 − (24/16)/(29/16) = 5/29, paper 1 − 12/29 = 17/29.
    Class 1: Σpg = 1/2, Σp² = 1/16 + 4/16 = 5/16, Σg² = 1: 21/16.
        proper 1 − 16/21 = 5/21, paper 1 − 8/21 = 13/21.
    """
    logits = logits_of([[[0.75, 0.5], [0.25, 0.5]]])
    assert dice_only(form=form)(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("form", "expected"), [("proper", (5 / 29 + 3 * 5 / 21) / 4), ("paper", (17 / 29 + 3 * 13 / 21) / 2)]
)
def test_class_weights_are_divided_by_their_sum_or_by_the_classes(form, expected):
    """The losses of the test above with the weights 1 and 3."""
    logits = logits_of([[[0.75, 0.5], [0.25, 0.5]]])
    loss = dice_only(form=form, class_weights=(1, 3))
    assert loss(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(expected, abs=2e-6)


def test_dice_is_that_of_each_sample_and_not_of_the_batch():
    """Sample 1 is perfect: 0. In sample 2 everything is wrong: 1. Their mean is 1/2.

    Pooled over the batch class 0 would have 2·1/(4 + 1) and class 1 2·0/(1 + 0): another number.
    """
    labels = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 1]]])
    logits = torch.cat([certain(labels[:1], 2), certain(1 - labels[1:], 2)])
    assert dice_only()(logits, labels).item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("form", ["proper", "paper"])
def test_a_class_that_is_absent_and_not_predicted_has_no_dice_loss(form):
    """Class 2 is nowhere: (0 + s)/(0 + s) = 1. The other two are perfect."""
    labels = torch.tensor([[[0, 0, 1, 1]]])
    expected = {"proper": 0, "paper": (0.5 + 0.5 + 0) / 3}[form]
    assert dice_only(form=form)(certain(labels, 3), labels).item() == pytest.approx(expected, abs=1e-5)


def test_a_class_that_is_absent_but_predicted_is_a_constant_with_hardly_a_gradient():
    """Class 2 has p = 1/2 in four voxels: 1 − s/(1 + s) ≈ 1. Class 0 loses 1 − 2·2/(1 + 4) = 1/5: (1/5 + 0 + 1)/3."""
    probabilities = torch.tensor([0.5, 1e-9, 0.5])[None, :, None].expand(1, 3, 4)
    logits = probabilities.log().requires_grad_()
    labels = torch.zeros((1, 1, 4))
    assert dice_only()(logits, labels).item() == pytest.approx(0.4, abs=1e-4)
    only_absent = dice_loss(logits, without_ignored(labels), class_weights=(0, 0, 1))
    only_absent.backward()
    assert logits.grad.abs().max() < 1e-5


# --- focal by hand ---


def test_focal_loss_of_even_odds_by_hand():
    """p = 1/2 everywhere, two classes: 0.2 · (1/2)² · ln 2 where g = 1, 0 where not; their mean."""
    labels = torch.tensor([[[0, 1, 1]]])
    expected = 0.2 * 0.25 * LN_2 / 2
    assert focal_only()(torch.zeros((1, 2, 3)), labels).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_without_focus_is_alpha_times_cross_entropy_over_classes():
    logits, labels = random_batch()
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels[:, 0])
    loss = focal_only(gamma=0, alpha=0.7)(logits, labels)
    assert loss.item() == pytest.approx(0.7 * cross_entropy.item() / 4, rel=1e-5)


def test_a_certain_and_right_prediction_has_no_focal_loss():
    labels = torch.tensor([[[0, 1, 2]]])
    assert focal_only()(certain(labels, 3), labels).item() == 0


def test_a_certain_and_wrong_prediction_costs_the_logarithm_of_the_floor():
    """p is clamped to 1e-9: 0.2 · (1 − 1e-9)² · ln 1e9 / 2."""
    labels = torch.tensor([[[0, 1]]])
    expected = 0.2 * math.log(1e9) / 2
    assert focal_only()(certain(1 - labels, 2, margin=1e4), labels).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_regions_has_the_negative_term_with_one_minus_alpha():
    """Two regions, one voxel, p = 3/4 in both, g = (1, 0).

    Positive: 0.2 · (1/4)² · ln(4/3). Negative: 0.8 · (3/4)² · ln 4. Their mean.
    """
    logits = torch.full((1, 2, 1), math.log(3))
    expected = (0.2 / 16 * math.log(4 / 3) + 0.8 * 9 / 16 * math.log(4)) / 2
    loss = focal_only(regions=True)(logits, torch.tensor([[[1], [0]]]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_predicting_every_region_everywhere_is_no_minimum():
    target = torch.tensor([[[1, 0, 0, 0]]])
    everywhere, right = torch.full((1, 1, 4), 20.0), torch.tensor([[[20.0, -20, -20, -20]]])
    loss = focal_only(regions=True)
    assert loss(everywhere, target) > 1
    assert loss(right, target) < 1e-6


# --- both together ---


def test_the_loss_is_dice_plus_ten_times_focal():
    logits, labels = random_batch()
    parts = dice_only()(logits, labels) + 10 * focal_only()(logits, labels)
    assert DiceFocalLoss()(logits, labels).item() == pytest.approx(parts.item(), rel=1e-6)


@pytest.mark.parametrize("form", ["proper", "paper"])
@pytest.mark.parametrize("ignore_label", [None, 3])
def test_classes_against_numpy(form, ignore_label):
    logits, labels = random_batch(classes=3)
    if ignore_label is not None:
        labels[0, 0, :2], labels[1] = ignore_label, ignore_label  # some of the first sample, all of the second
    weights = (1.0, 2.0, 0.5)
    p = numpy_softmax(logits.double().numpy()).reshape(3, 3, -1)
    truth = labels.numpy().reshape(3, -1)
    g = np.stack([truth == c for c in range(3)], axis=1).astype(float)
    counted = truth != 3
    factor, divisor = (2, 3.5) if form == "proper" else (1, 3)
    dice = numpy_dice_loss(p, g, counted, factor=factor, weights=weights, divisor=divisor)
    terms = [
        -0.2 * (1 - p[n, c, v]) ** 2 * g[n, c, v] * np.log(max(p[n, c, v], 1e-9))
        for n in range(3)
        for c in range(3)
        for v in range(30)
        if counted[n, v]
    ]
    loss = DiceFocalLoss(form=form, ignore_label=ignore_label, class_weights=weights)
    assert loss(logits, labels).item() == pytest.approx(dice + 10 * np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("form", ["proper", "paper"])
@pytest.mark.parametrize("ignored", [False, True])
def test_regions_against_numpy(form, ignored):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((2, 3, 4, 5), generator=generator)
    target = torch.rand((2, 3, 4, 5), generator=generator) > 0.6
    ignore = torch.rand((2, 1, 4, 5), generator=generator) > (0.7 if ignored else 1)
    p = (1 / (1 + np.exp(-logits.double().numpy()))).reshape(2, 3, 20)
    g = target.numpy().astype(float).reshape(2, 3, 20)
    counted = ~ignore.numpy().reshape(2, 20)
    dice = numpy_dice_loss(p, g, counted, factor=2 if form == "proper" else 1, weights=(1, 1, 1), divisor=3)
    terms = [
        -np.log(p[n, c, v]) * 0.2 * (1 - p[n, c, v]) ** 2
        if g[n, c, v]
        else -np.log(1 - p[n, c, v]) * 0.8 * p[n, c, v] ** 2
        for n in range(2)
        for c in range(3)
        for v in range(20)
        if counted[n, v]
    ]
    loss = DiceFocalLoss(regions=True, form=form, ignore_label=4 if ignored else None)
    given = torch.cat([target, ignore], dim=1) if ignored else target
    assert loss(logits, given).item() == pytest.approx(dice + 10 * np.mean(terms), rel=1e-5)
    assert loss(logits, given.float()).item() == loss(logits, given).item()  # nnU-Net's targets are either


# --- ignored voxels ---


def test_what_is_predicted_in_ignored_voxels_does_not_matter():
    logits, labels = random_batch()
    labels[:, :, 2:] = 4
    other = logits.clone()
    other[:, :, 2:] = 50 * torch.randn((3, 4, 3, 6), generator=torch.Generator().manual_seed(1))
    loss = DiceFocalLoss(ignore_label=4)
    other.requires_grad_()
    value = loss(other, labels)
    assert value.item() == pytest.approx(loss(logits, labels).item(), rel=1e-6)
    assert value.item() == pytest.approx(DiceFocalLoss()(logits[:, :, :2], labels[:, :, :2]).item(), rel=1e-5)
    value.backward()
    assert other.grad[:, :, 2:].abs().max() == 0
    assert other.grad[:, :, :2].abs().max() > 0


@pytest.mark.parametrize("regions", [False, True])
def test_a_batch_of_ignored_voxels_only_has_no_loss_and_no_gradient(regions):
    logits = torch.randn((2, 3, 4), requires_grad=True)
    target = torch.ones((2, 4, 4)) if regions else torch.full((2, 1, 4), 3)
    loss = DiceFocalLoss(regions=regions, ignore_label=3)(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


# --- numbers that must not go wrong ---


@pytest.mark.parametrize("size", [30, 100, 1e4])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("form", ["proper", "paper"])
@pytest.mark.parametrize("gamma", [0, 1, 2])
def test_saturated_logits_have_finite_losses_and_gradients(size, regions, form, gamma):
    logits = (size * torch.tensor([[[1.0, -1, 0], [-1, 1, 0]]])).requires_grad_()
    target = torch.tensor([[[1, 1, 1], [0, 0, 0]]]) if regions else torch.tensor([[[0, 0, 1]]])
    loss = DiceFocalLoss(regions=regions, form=form, gamma=gamma)(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_gradient_descent_finds_the_truth():
    torch.manual_seed(0)
    logits, labels = torch.zeros((1, 3, 8), requires_grad=True), torch.tensor([[[0, 0, 1, 1, 2, 2, 2, 0]]])
    optimizer = torch.optim.SGD([logits], lr=2)
    for _ in range(100):
        optimizer.zero_grad()
        DiceFocalLoss(form="paper")(logits, labels).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(dim=1, keepdim=True), labels)


def test_gradients_are_those_of_finite_differences():
    logits, labels = random_batch(shape=(4,), batch=2)
    logits = logits / 3
    target = without_ignored(labels)
    for loss in (dice_loss, focal_loss):
        given = logits.clone().requires_grad_()
        loss(given, target).backward()
        step = torch.zeros_like(logits)
        step[1, 2, 3] = 0.01
        slope = (loss(logits + step, target) - loss(logits - step, target)).item() / 0.02
        assert given.grad[1, 2, 3].item() == pytest.approx(slope, rel=0.02)


def test_the_loss_is_computed_in_single_precision_under_autocast():
    logits, labels = random_batch(shape=(64, 64))
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DiceFocalLoss()(half, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == DiceFocalLoss()(half.float(), labels).item()


def test_labels_may_have_any_number_type():
    logits, labels = random_batch()
    values = {DiceFocalLoss()(logits, labels.to(kind)).item() for kind in (torch.int16, torch.int64, torch.float32)}
    assert len(values) == 1


def test_volumes_work_like_2d_images():
    logits, labels = random_batch(shape=(4, 5, 6))
    flat = DiceFocalLoss()(logits.flatten(start_dim=2), labels.flatten(start_dim=2))
    assert DiceFocalLoss()(logits, labels).item() == pytest.approx(flat.item(), rel=1e-5)


# --- class weights by name ---

ACDC = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
TUMOUR = {"background": 0, "whole": [1, 2, 3], "core": (2, 3), "enhancing": 3, "ignore": 4}


def test_weights_come_in_the_order_of_the_outputs():
    assert class_weights(ACDC, {"RV": 2}) == (1, 2, 1, 1)
    assert class_weights(ACDC, {"LV": 3, "background": 0}) == (0, 1, 1, 3)
    assert class_weights({"LV": 3, "RV": 1, "MYO": 2, "background": 0}, {"RV": 2, "LV": 5}) == (1, 2, 1, 5)


def test_a_label_names_its_class_as_well():
    assert class_weights(ACDC, {1: 2, "LV": 3}) == (1, 2, 1, 3)
    assert class_weights({"background": 0, "RV": [1]}, {1: 2}) == (1, 2)


def test_regions_have_no_background_and_ignored_voxels_no_output():
    assert class_weights(TUMOUR, {"core": 2, 3: 4}) == (1, 2, 4)
    assert class_weights({**ACDC, "ignore": 4}, {}) == (1, 1, 1, 1)


@pytest.mark.parametrize("unknown", ["lv", 4, "ignore"])
def test_an_unknown_class_is_refused_with_the_known_ones(unknown):
    with pytest.raises(
        ValueError, match=rf'found "{unknown}"\. Known are: background \(0\), RV \(1\), MYO \(2\), LV'
    ):
        class_weights({**ACDC, "ignore": 4}, {unknown: 2})


@pytest.mark.parametrize("unknown", ["background", 0, 1, 2])
def test_a_label_that_is_no_region_of_its_own_is_refused(unknown):
    with pytest.raises(ValueError, match=r"Known are: whole \(1, 2, 3\), core \(2, 3\), enhancing \(3\)"):
        class_weights(TUMOUR, {unknown: 2})


def test_two_weights_of_one_class_are_refused():
    with pytest.raises(ValueError, match='"RV" has two'):
        class_weights(ACDC, {"RV": 2, 1: 3})


@pytest.mark.parametrize("weight", [-1, math.inf, math.nan])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight):
    with pytest.raises(ValueError, match="finite, at least 0"):
        class_weights(ACDC, {"RV": weight})
    with pytest.raises(ValueError, match="finite, at least 0"):
        DiceFocalLoss(class_weights=(1, weight))


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "dice"}, '"proper" or "paper"; found "dice"'),
        ({"dice_weight": -1}, "found -1 and 10"),
        ({"dice_weight": 0, "focal_weight": 0}, "not both 0"),
        ({"gamma": 0.5}, r"0 or at least 1; found 0\.5"),
        ({"gamma": -1}, "found -1"),
        ({"alpha": 1.5}, r"\[0, 1\]; found 1\.5"),
        ({"class_weights": (0, 0)}, "not all 0"),
        ({"class_weights": ()}, "not all 0"),
    ],
)
def test_numbers_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiceFocalLoss(**options)


def test_as_many_class_weights_as_outputs_are_needed():
    with pytest.raises(ValueError, match="each of the 3 outputs; found 2"):
        DiceFocalLoss(class_weights=(1, 2))(torch.zeros((1, 3, 4)), torch.zeros((1, 1, 4)))


@pytest.mark.parametrize(
    ("options", "target", "expected"),
    [
        ({}, (2, 3, 4), r"\(2, 1, 4\).*found \(2, 3, 4\)"),
        ({}, (2, 1, 5), r"\(2, 1, 4\).*found \(2, 1, 5\)"),
        ({}, (1, 1, 4), r"\(2, 1, 4\).*found \(1, 1, 4\)"),  # would broadcast
        ({"regions": True}, (2, 1, 4), r"\(2, 3, 4\).*found \(2, 1, 4\)"),
        ({"regions": True, "ignore_label": 3}, (2, 3, 4), r"\(2, 3, 4\).*found \(2, 2, 4\)"),
    ],
)
def test_a_target_of_another_shape_is_refused(options, target, expected):
    with pytest.raises(ValueError, match=expected):
        DiceFocalLoss(**options)(torch.zeros((2, 3, 4)), torch.zeros(target))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one voxel"):
        DiceFocalLoss()(torch.zeros((0, 3, 4)), torch.zeros((0, 1, 4)))
