"""The box around a mask and around the foreground of a label map."""

import numpy as np
import pytest

from nnunet_ext.boxes import foreground_box


def test_the_box_holds_all_foreground_classes_and_no_more():
    labels = np.zeros((6, 7, 8), dtype=np.uint8)
    labels[1, 2, 5], labels[3, 4, 4] = 1, 3
    assert foreground_box(labels) == (slice(1, 4), slice(2, 5), slice(4, 6))


def test_a_margin_ends_at_the_image():
    labels = np.zeros((6, 7), dtype=np.uint8)
    labels[1, 5] = 2
    assert foreground_box(labels, margin=2) == (slice(0, 4), slice(3, 7))


def test_a_volume_without_foreground_has_no_box():
    assert foreground_box(np.zeros((3, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize("ignore_label", [-1, 4])
def test_the_ignore_label_is_no_foreground(ignore_label):
    labels = np.full((3, 3), ignore_label)
    assert foreground_box(labels, ignore_label=ignore_label) is None
    labels[1, 1] = 1
    assert foreground_box(labels, ignore_label=ignore_label) == (slice(1, 2), slice(1, 2))


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="0 voxels or more; found -1"):
        foreground_box(np.ones((3, 3)), margin=-1)
