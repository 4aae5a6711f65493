"""Every part that adds or replaces a loss: trained on labels and on regions, with what its loader computes."""

import numpy as np
import pytest
import torch

from nnunet_ext.losses.ramps import ConstantRamp
from nnunet_ext.trainers.losses.extra_targets import AppendExtras
from nnunet_ext.trainers.part import Kind
from nnunet_ext.trainers.parts import PARTS

TERMS = [part.spelling for part in PARTS if part.kind is Kind.LOSS_TERM]
LOSSES = [part.spelling for part in PARTS if part.kind is Kind.LOSS]
BALANCED = ["HausdorffDT", "HausdorffErosion", "HausdorffConv"]


def batch_of(trainer, random_batch, seed=0):
    """A batch as the loader gives it: with what terms asked for behind the targets."""
    batch = random_batch(trainer, seed)
    extras = trainer.loss_with_terms.extras_of_target
    if not extras:
        return batch
    appended = [
        AppendExtras(extras)._apply_to_segmentation(sample)[1:] for sample in batch["target"][0]
    ]  # for each sample a list
    return {**batch, "target": [*batch["target"], *(torch.stack(each) for each in zip(*appended, strict=True))]}


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_trained_at_its_last_weight(make_trainer, random_batch, term, regions):
    trainer = make_trainer(f"nnUNetTrainer{term}", regions=regions)
    batch = batch_of(trainer, random_batch)
    trainer.network.train()
    for epoch in (0, trainer.num_epochs - 1):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        step = trainer.train_step(batch)
        assert np.isfinite(step["loss"])
    position = [added.name for added in trainer.loss_with_terms.terms].index(term.removesuffix("Rebalance"))
    assert torch.isfinite(trainer.loss_with_terms.values[position])
    assert trainer.loss_with_terms.weights[position] > 0 or term in BALANCED  # which had no epoch before


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_replaced_loss_is_trained(make_trainer, random_batch, loss, regions):
    trainer = make_trainer(f"nnUNetTrainer{loss}", regions=regions)
    trainer.network.train()
    losses = [trainer.train_step(random_batch(trainer, 0))["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("term", BALANCED)
def test_a_balanced_term_contributes_as_much_as_soft_dice_did(make_trainer, run_epochs, term):
    trainer = make_trainer(f"nnUNetTrainer{term}_4epochs_member0")
    run_epochs(trainer, 2)
    names = ("soft Dice loss", term)
    (_, dice), own = ([trainer.logger.get_value(f"loss term {name}", epoch) for epoch in (0, 1)] for name in names)
    trainer.on_train_epoch_start()
    weights = dict(zip(names, trainer.loss_with_terms.weights.tolist(), strict=True))
    assert weights["soft Dice loss"] == 0
    assert weights[term] * max(own) == pytest.approx(dice, rel=1e-5)
    assert 0 < dice < 1


def test_the_balance_survives_a_resume(make_trainer, run_epochs):
    name = "nnUNetTrainerHausdorffErosion_5epochs_member0"
    whole = make_trainer(name)
    run_epochs(whole, 4)
    stopped = make_trainer(name)
    stopped.save_every = 2
    run_epochs(stopped, 2)
    resumed = make_trainer(name)
    resumed.load_checkpoint(f"{stopped.output_folder}/checkpoint_latest.pth")
    run_epochs(resumed, 4)
    assert all(
        torch.equal(*pair) for pair in zip(whole.network.parameters(), resumed.network.parameters(), strict=True)
    )


def test_two_balanced_terms_share_what_they_are_compared_with(make_trainer):
    trainer = make_trainer("nnUNetTrainerHausdorffDT_HausdorffErosion")
    names = [added.name for added in trainer.loss_with_terms.terms]
    assert sorted(names) == ["HausdorffDT", "HausdorffErosion", "soft Dice loss"]


def test_boundary_takes_its_weight_from_the_rest(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerBoundary")
    loss = trainer.loss_with_terms
    loss.set_epoch(500, 1000)  # half way from 0 to 0.35
    assert loss.weights.tolist() == [pytest.approx(0.175)]
    assert loss.base_weight == pytest.approx(0.825)
    rebalanced = make_trainer("nnUNetTrainerBoundaryRebalance").loss_with_terms
    rebalanced.set_epoch(10, 1000)
    assert rebalanced.weights.tolist() == [pytest.approx(0.1)]


def test_a_ramp_is_an_attribute_of_its_part(make_trainer):
    trainer = make_trainer("nnUNetTrainerSkeletonRecall", initialize=False)
    trainer.skeleton_ramp = ConstantRamp(0.125)
    trainer.initialize()
    assert trainer.loss_with_terms.weights.tolist() == [0.125]
