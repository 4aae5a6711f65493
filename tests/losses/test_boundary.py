"""The boundary loss by hand and against its definition in NumPy."""

import pickle

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, random_labels, random_logits, require_agreement, softmax, value_of

from nnunet_ext.losses.boundary import BoundaryTerm, SignedDistanceOfTarget
from nnunet_ext.losses.targets import OutputForm

LINE = drawn("..111..")  # phi = 2, 1, 0, -1, 0, 1, 2


def distances(labels, outputs=2, spacing=None, form=None):
    spacing = spacing or (1.0,) * (labels.ndim - 2)
    function = SignedDistanceOfTarget(form or OutputForm(), outputs, spacing)
    return torch.stack([function(patch) for patch in labels])


def boundary(logits, labels, **options):
    form = options.get("form", OutputForm())
    phi = distances(labels, logits.shape[1], **options)
    return value_of(BoundaryTerm(form), logits, labels, signed_distance=phi)


# --- what the loader computes ---


def test_every_foreground_class_has_its_map():
    labels = drawn(".1122.")[0]  # (1, 6)
    found = SignedDistanceOfTarget(OutputForm(), 4, (1.0,))(labels)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1, 0, 0, 1, 2, 3], [3, 2, 1, 0, 0, 1], [0] * 6]  # class 3 is absent


def test_ignored_voxels_are_outside_of_every_class():
    labels = drawn("111999")[0]
    assert SignedDistanceOfTarget(OutputForm(ignore_label=9), 2, (1.0,))(labels).tolist() == [[-2, -1, 0, 1, 2, 3]]


def test_every_region_has_its_map_and_the_mark_of_ignored_voxels_none():
    target = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])
    found = SignedDistanceOfTarget(OutputForm(regions=True, ignore_label=3), 2, (1.0,))(target)
    assert found.tolist() == [[1, 0, -1, 0, 1], [2, 1, 0, 1, 2]]


def test_the_loaders_function_pickles():
    function = SignedDistanceOfTarget(OutputForm(ignore_label=9), 3, (2.0, 1.0))
    assert pickle.loads(pickle.dumps(function)) == function


# --- the loss ---


def test_a_perfect_prediction_is_what_lies_inside():
    """phi of the three voxels inside is 0, -1, 0: -1/7."""
    assert boundary(certain(LINE, 2), LINE).item() == pytest.approx(-1 / 7)


def test_even_odds_are_half_of_the_mean_distance():
    """The distances add up to 2 + 1 + 0 - 1 + 0 + 1 + 2 = 5: half of 5/7."""
    assert boundary(torch.zeros(1, 2, 7), LINE).item() == pytest.approx(2.5 / 7)


@pytest.mark.parametrize(
    ("prediction", "total"),
    [
        ("...1...", -1),  # what is missed on the boundary costs nothing
        ("..1.1..", 0),  # the middle costs 1
        (".......", 0),
        (".1111..", 0),  # one step too far costs 1
        ("..111.1", 1),  # two steps too far 2
        ("1111111", 5),
    ],
)
def test_voxels_cost_their_distance(prediction, total):
    assert boundary(certain(drawn(prediction), 2), LINE).item() == pytest.approx(total / 7, abs=1e-7)


def test_the_further_a_prediction_lies_the_more_it_costs():
    truth = drawn("..111.......")
    costs = [boundary(certain(truth.roll(shift, dims=2), 2), truth).item() for shift in range(8)]
    assert costs == sorted(costs)
    assert len(set(costs)) == 8


def test_thick_slices_cost_more():
    """Rows 3 mm apart, columns 1 mm: a voxel too many in the next row costs 3, in the next column 1."""
    truth = drawn(".....", "..1..", ".....")
    above, beside = drawn("..1..", "..1..", "....."), drawn(".....", "..11.", ".....")
    assert boundary(certain(above, 2), truth, spacing=(3.0, 1.0)).item() == pytest.approx(3 / 15)
    assert boundary(certain(beside, 2), truth, spacing=(3.0, 1.0)).item() == pytest.approx(1 / 15)


def test_an_absent_class_counts_in_the_mean_with_0():
    assert boundary(certain(LINE, 3), LINE).item() == pytest.approx(-1 / 14)


def test_ignored_voxels_do_not_count_in_the_mean():
    """Of the seven voxels four count, with phi = 2, 1, 0, 0 (the ignored ones are outside): perfect is 0."""
    truth, form = drawn("..11999"), OutputForm(ignore_label=9)
    everywhere = certain(torch.ones_like(truth), 2)
    assert boundary(everywhere, truth, form=form).item() == pytest.approx((2 + 1) / 4)


def test_the_gradient_with_respect_to_p_is_the_distance():
    labels = random_labels((4, 6))
    logits = random_logits(labels)
    phi = distances(labels, 3).double().numpy()
    require_agreement(
        lambda given: boundary(given, labels), lambda exact: np.mean(phi * softmax(exact)[:, 1:]), logits
    )
