"""Mirrored copies: which ones there are, and that each is mirrored back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.mirroring import flip_name, mean_over_flips, mirror_flips


class AddsRamp(nn.Module):
    """Adds the column's index within the patch: something that mirroring has to undo."""

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return patch + torch.arange(patch.shape[-1], dtype=patch.dtype)


def test_flips_are_all_combinations_of_the_axes_the_identity_first():
    assert mirror_flips((0, 1, 2)) == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert mirror_flips((1,)) == [(), (1,)]


@pytest.mark.parametrize(("axes", "enabled"), [(None, True), ((), True), ((0, 1), False)])
def test_without_mirroring_only_the_identity_is_left(axes, enabled):
    assert mirror_flips(axes, enabled=enabled) == [()]


def test_flips_have_names():
    assert [flip_name(flip) for flip in [(), (0,), (0, 2)]] == ["flip-none", "flip-0", "flip-02"]


def test_each_flip_is_undone_before_averaging():
    """The ramp 0 1 2 3 and its mirror image 3 2 1 0 have the mean 1.5 everywhere; the patch itself comes back."""
    patch = torch.rand((1, 1, 3, 4), generator=torch.Generator().manual_seed(0))
    logits = mean_over_flips(AddsRamp(), patch, [(), (1,)])
    torch.testing.assert_close(logits, patch + 1.5)
    torch.testing.assert_close(mean_over_flips(AddsRamp(), patch, [(1,)]), patch + torch.tensor([3.0, 2, 1, 0]))


def test_no_flips_at_all_are_refused():
    with pytest.raises(ValueError, match="identity"):
        mean_over_flips(AddsRamp(), torch.zeros(1, 1, 4, 4), [])
