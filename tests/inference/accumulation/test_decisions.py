"""Labels are decided as NumPy's argmax and nnU-Net's label manager decide them."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.inference.accumulation.decisions import (
    class_probabilities,
    decided_labels,
    label_type,
    most_likely_class,
)


def class_labels(classes: int) -> LabelManager:
    names = {"background": 0} | {f"class {number}": number for number in range(1, classes)}
    return LabelManager(names, regions_class_order=None)


def region_labels() -> LabelManager:
    return LabelManager({"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])


def random_volume(classes: int, *shape: int) -> torch.Tensor:
    return torch.rand((classes, *shape), generator=torch.Generator().manual_seed(classes))


def test_of_three_classes_the_most_likely_one_wins_by_hand():
    probabilities = torch.tensor([[0.5, 0.2, 0.1], [0.3, 0.7, 0.2], [0.2, 0.1, 0.7]])
    assert most_likely_class(probabilities).tolist() == [0, 1, 2]


@pytest.mark.parametrize("classes", [1, 2, 5, 256, 257, 300])  # above 256 a byte holds no class any more
def test_the_winner_is_that_of_numpy(classes):
    probabilities = random_volume(classes, 3, 7, 5)
    np.testing.assert_array_equal(most_likely_class(probabilities), probabilities.numpy().argmax(0))


def test_of_equally_likely_classes_the_first_wins():
    """A tie of all, of the last two, of the first and the last, and one that a later class settles."""
    probabilities = torch.tensor(
        [[0.25, 0.2, 0.4, 0.3], [0.25, 0.0, 0.1, 0.3], [0.25, 0.4, 0.1, 0.0], [0.25, 0.4, 0.4, 0.4]]
    )
    assert most_likely_class(probabilities).tolist() == [0, 2, 0, 3]


def test_ties_on_a_coarse_grid_are_settled_as_numpy_settles_them():
    """Probabilities of 0, 1/3, 2/3 and 1 in five classes: nearly every voxel is a tie."""
    probabilities = torch.randint(0, 4, (5, 20, 20), generator=torch.Generator().manual_seed(0)) / 3
    np.testing.assert_array_equal(most_likely_class(probabilities), probabilities.numpy().argmax(0))


def test_a_transposed_view_gives_the_transposed_labels():
    probabilities = random_volume(4, 3, 6, 5)
    labels = most_likely_class(probabilities.permute(0, 3, 1, 2))
    np.testing.assert_array_equal(labels, probabilities.numpy().argmax(0).transpose(2, 0, 1))


def test_the_probabilities_are_not_changed():
    probabilities = random_volume(4, 6)
    before = probabilities.clone()
    decided_labels(probabilities, class_labels(4))
    assert torch.equal(probabilities, before)


def test_regions_are_painted_as_nnunets_label_manager_paints_them():
    """In no region: 0. In "whole" alone: 1. In both, or in "core" alone, the later one paints: 2. 0.5 is outside."""
    probabilities = torch.tensor([[0.1, 0.9, 0.9, 0.2, 0.5], [0.1, 0.3, 0.6, 0.6, 0.5]])
    assert decided_labels(probabilities, region_labels()).tolist() == [0, 1, 2, 2, 0]
    volume = random_volume(2, 4, 5, 6)
    expected = region_labels().convert_probabilities_to_segmentation(volume.numpy())
    np.testing.assert_array_equal(decided_labels(volume, region_labels()), expected)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (2, torch.uint8),
        (255, torch.uint8),  # labels 0 to 254
        (256, torch.int16),
        (300, torch.int16),
    ],
)
def test_labels_are_bytes_as_long_as_they_fit(classes, expected):
    labels = class_labels(classes)
    probabilities = random_volume(classes, 8, 8)
    decided = decided_labels(probabilities, labels)
    assert decided.dtype == label_type(labels) == expected
    np.testing.assert_array_equal(decided, probabilities.numpy().argmax(0))


def test_labels_of_regions_are_bytes_too():
    assert decided_labels(random_volume(2, 4), region_labels()).dtype == torch.uint8


def test_class_probabilities_by_hand():
    """Logits ln 1, ln 2 and ln 5 are odds of 1 : 2 : 5; adding 200 to all changes nothing and overflows nowhere."""
    logits = torch.log(torch.tensor([[1.0], [2.0], [5.0]]))
    expected = torch.tensor([[1 / 8], [2 / 8], [5 / 8]])
    for shifted in (logits, logits + 200):
        torch.testing.assert_close(class_probabilities(shifted, class_labels(3)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("labels", [class_labels(4), region_labels()])
def test_probabilities_are_those_of_nnunet(labels):
    logits = 40 * random_volume(labels.num_segmentation_heads, 3, 7, 5).half() - 20
    torch.testing.assert_close(
        class_probabilities(logits, labels), labels.apply_inference_nonlin(logits), rtol=1e-6, atol=1e-7
    )


def test_a_nan_logit_makes_all_probabilities_of_its_voxel_nan():
    assert class_probabilities(torch.tensor([[1.0], [float("nan")]]), class_labels(2)).isnan().all()
