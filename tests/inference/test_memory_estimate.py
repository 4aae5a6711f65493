"""How much memory the volumes of all classes take, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.inference.memory_estimate import network_volumes_of, prediction_bytes
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip
from nnunet_ext.inference.transforms.rotate import Rotation
from nnunet_ext.models.members import Member

GIB = 2**30


def test_the_estimate_counts_volumes_of_all_classes() -> None:
    # mean of 10 x 20 x 30 voxels at the image, logits of 8 x 16 x 16 at the network: 3 classes, 4 bytes
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16)) == 3 * 4 * (6000 + 2048)
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), with_variance=True) == 3 * 4 * (2 * 6000 + 2048)
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), by_fold=True) == 3 * 4 * (2 * 6000 + 2048)


def test_volumes_at_the_networks_resolution_are_counted() -> None:
    # logits of 8 x 16 x 16 and four more such volumes
    assert prediction_bytes(3, (10, 20, 30), (8, 16, 16), network_volumes=5) == 3 * 4 * (6000 + 5 * 2048)


SMALL = Rotation(10)


@pytest.mark.parametrize(
    ("transforms", "plain", "with_variance"),
    [
        ((IDENTITY,), 1, 4),  # logits; for the variance probabilities, their mean and their squares
        ((IDENTITY, Flip((0,))), 1, 5),  # flips share one sum of logits; apart, there is a sum over them
        ((IDENTITY, SMALL), 2, 5),
        ((SMALL,), 1, 4),  # as a member of its own
    ],
)
def test_transforms_need_volumes_at_the_networks_resolution(transforms, plain, with_variance) -> None:
    member = Member("m", Path("m.pth"), "", "nnUNetTrainer", "2d", None)
    passes = [[Pass("m", member, transforms, 1.0)]]
    assert network_volumes_of(passes, transform_variance=False) == plain
    assert network_volumes_of(passes, transform_variance=True) == with_variance
    assert network_volumes_of(passes, transform_variance=False, adapted=True) == plain + 1


def test_a_whole_body_of_many_classes_is_large() -> None:
    # 118 classes at 512 x 512 x 1000 voxels, the network at the same: 2 volumes of 118 x 2.62e8 x 4 bytes
    assert prediction_bytes(118, (1000, 512, 512), (1000, 512, 512)) / GIB == pytest.approx(230.5, abs=0.1)
