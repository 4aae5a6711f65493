"""The adversarial consistency: its value by hand, its step, and a training with it."""

import pytest
import torch
import torch.nn.functional as F

from nnunet_ext.augmentation.adversarial import Bounds, Chain, random_chain
from nnunet_ext.trainers.augmentation.adv_chain import AdversarialConsistency

REST = {"epoch": torch.tensor(0), "extras": {}}


def consistency(logits_of, *, contour_weight=0.0, bounds=None):
    return AdversarialConsistency(logits_of, regions=True, bounds=bounds or Bounds(), contour_weight=contour_weight)


def unchanged(images):
    return Chain(*(torch.zeros_like(tensor) for tensor in random_chain(images, Bounds()).tensors))


def test_a_network_that_says_the_same_of_everything_has_no_distance():
    term = consistency(lambda images: torch.zeros(len(images), 1, 8, 8), contour_weight=0.5)
    term.images = torch.randn(2, 1, 8, 8, requires_grad=True)
    logits = torch.zeros(2, 1, 8, 8)
    clean = torch.sigmoid(logits)
    assert term.distance(clean, term.images, unchanged(term.images)) == 0


def test_squared_differences_and_contours_by_hand():
    """f says 1/2 where the clean output was 1 in one voxel of 4 x 4, else 1/2: (1/2)^2 / 16; its 2 + 2 contours."""
    images = torch.zeros(1, 1, 4, 4)
    clean = torch.full((1, 1, 4, 4), 0.5)
    clean[0, 0, 1, 1] = 1
    half = lambda images: torch.zeros(1, 1, 4, 4)  # noqa: E731
    assert consistency(half).distance(clean, images, unchanged(images)).item() == pytest.approx(0.25 / 16)
    both = consistency(half, contour_weight=0.5).distance(clean, images, unchanged(images)).item()
    assert both == pytest.approx(0.25 / 16 + 0.5 * 2 * 0.25 / 12)  # of 12 pairs along each axis


def test_each_image_counts_by_the_weight_of_its_case():
    """The first of two images differs in one voxel by 1/2, the second in four: (0.5 * 1 + 0.25 * 4) (1/2)^2 / 32."""
    images = torch.zeros(2, 1, 4, 4)
    clean = torch.full((2, 1, 4, 4), 0.5)
    clean[0, 0, 1, 1] = 1
    clean[1, 0, :, 1] = 1
    half = lambda images: torch.zeros(2, 1, 4, 4)  # noqa: E731
    given = (clean, images, unchanged(images), (0.5, 0.25))
    assert consistency(half).distance(*given).item() == pytest.approx(1.5 * 0.25 / 32)
    # contours: 2 + 2 pairs in the first image, 0 + 8 in the second, of 24 along each axis
    contours = ((0.5 * 2) + (0.5 * 2 + 0.25 * 8)) * 0.25 / 24 / 2
    assert consistency(half, contour_weight=1.0).distance(*given).item() == pytest.approx(1.5 * 0.25 / 32 + contours)


def test_the_step_makes_the_distance_larger():
    """A network that looks at brightness alone is weak against bias fields: the step finds the strongest one."""
    torch.manual_seed(0)
    bounds = Bounds(noise=0.01, deformation_voxels=0.01, rotation_degrees=0.1, scale=0.001, shift=0.001)
    term = consistency(lambda images: 3 * images, bounds=bounds)
    images = torch.ones(1, 1, 16, 16)
    clean = torch.sigmoid(3 * images)
    random = [term.distance(clean, images, random_chain(images, bounds)).item() for _ in range(10)]
    found = [term.distance(clean, images, term.strongest_chain(clean, images)).item() for _ in range(10)]
    assert sum(found) > 1.5 * sum(random)


def test_half_precision_finds_the_step_of_single_precision():
    """The gradient of D at each output is about 1e-9 here, as with 2 x 128^3 voxels; half precision ends at 6e-8."""
    images = F.avg_pool2d(torch.randn((2, 1, 64, 64), generator=torch.Generator().manual_seed(0)), 5, 1, 2)
    images = images / images.std()

    def step(logits_of):
        torch.manual_seed(1)
        start = random_chain(images, Bounds())
        torch.manual_seed(1)
        found = consistency(logits_of).strongest_chain(torch.sigmoid(logits_of(images)), images)
        return [(after - before).flatten() for after, before in zip(found.tensors, start.tensors, strict=True)]

    single, half = step(lambda seen: 3e-4 * seen), step(lambda seen: (3e-4 * seen).half().float())
    for expected, found in zip(single, half, strict=True):
        assert expected.any()
        assert F.cosine_similarity(expected, found, dim=0) > 0.95


def test_without_images_it_is_0():
    assert consistency(lambda images: images)(torch.ones(1, 1, 4, 4), None, **REST) == 0


def test_a_training_step_has_the_term_and_validation_does_not(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerAdvChain")
    batch = random_batch(trainer, 0)
    trainer.network.train()
    trainer.on_train_epoch_start()
    step = trainer.train_step(batch)
    assert step["loss term AdvChain"] > 0
    assert trainer.consistency.images is None
    base = trainer.loss.base(trainer.network(batch["data"]), batch["target"])
    assert trainer.validation_step(batch)["loss"] == pytest.approx(base.item(), rel=0.2)
