"""The closed form against gathering the visible voxels, and against torch's own norm."""

import pytest
import torch
from torch.nn import functional

from nnunet_ext.masking.instance_norm import visible_instance_norm


def features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gathered(values, visible, weight, bias):
    """Gathers the visible voxels of each sample, normalises them with torch's norm, and scatters them into zeros."""
    out = torch.zeros_like(values)
    for sample, mask in enumerate(visible[:, 0].bool()):
        line = functional.instance_norm(values[sample][:, mask][None], weight=weight, bias=bias)
        out[sample][:, mask] = line[0]
    return out


@pytest.mark.parametrize("spatial", [(6, 8), (4, 6, 5)])
def test_statistics_and_gradients_equal_gathering(spatial):
    """Samples may have different numbers of visible voxels."""
    values = (3 * features(2, 3, *spatial) + 10).requires_grad_()
    visible = (features(2, 1, *spatial, seed=1) > 0.7).float()
    assert visible[0].sum() != visible[1].sum()
    weight, bias = features(3, seed=2).requires_grad_(), features(3, seed=3).requires_grad_()
    upstream = features(2, 3, *spatial, seed=4)
    found = visible_instance_norm(values, visible, weight, bias)
    expected = gathered(values, visible, weight, bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found[visible.expand_as(found) == 0].eq(0).all()
    inputs = (values, weight, bias)
    for gradient, wanted in zip(
        torch.autograd.grad((found * upstream).sum(), inputs),
        torch.autograd.grad((expected * upstream).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_with_nothing_hidden_it_is_torchs_norm():
    values = features(2, 3, 8, 8)
    torch.testing.assert_close(
        visible_instance_norm(values, torch.ones(2, 1, 8, 8)), functional.instance_norm(values), rtol=0, atol=1e-6
    )


def test_a_large_offset_does_not_drown_the_variance():
    values = features(1, 1, 16, 16) + 1e4
    visible = torch.ones(1, 1, 16, 16)
    found = visible_instance_norm(values, visible)
    exact = functional.instance_norm(values.double()).float()
    torch.testing.assert_close(found, exact, rtol=0, atol=5e-3)  # float32 has steps of 1e-3 there


def test_half_precision_is_computed_in_float32():
    values = (60 * features(1, 2, 16, 16)).half()  # sums of squares exceed half precision's 65504
    found = visible_instance_norm(values, torch.ones(1, 1, 16, 16))
    assert found.dtype is torch.half
    torch.testing.assert_close(found.float(), functional.instance_norm(values.float()), rtol=0, atol=2e-3)
