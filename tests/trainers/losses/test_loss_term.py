"""Parts that add a term to the loss, with tiny terms: with other parts, in the log, resumed, with extra targets."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_ext.losses.added_terms import AddedTerm, LossWithTerms
from nnunet_ext.losses.dice_focal import DiceFocalLoss
from nnunet_ext.losses.ramps import ConstantRamp, LinearRamp
from nnunet_ext.losses.self_distillation_objective import SelfDistillationLoss
from nnunet_ext.trainers.losses.dice_focal import DiceFocal
from nnunet_ext.trainers.losses.loss_term import LossTermPart
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.supervision.self_distillation import DSD


def mean_square(logits, target, *, epoch, extras):
    return logits.square().mean()


def mean_of_positive(logits, target, *, epoch, extras):
    """The mean of the logits, weighted by what the loader computed."""
    return (extras["positive"] * logits).mean()


def positive(target):
    return (target == 1).float() * 0.5


class Square(LossTermPart):
    ramp = ConstantRamp(0.5)

    def loss_terms(self):
        return [*super().loss_terms(), AddedTerm("Square", mean_square, self.ramp)]


class Positive(LossTermPart):
    def loss_terms(self):
        term = AddedTerm("Positive", mean_of_positive, ConstantRamp(2.0), extras={"positive": positive})
        return [*super().loss_terms(), term]


def trainer_of(*parts, **attributes):
    return type("nnUNetTrainer_" + "_".join(part.__name__ for part in parts), parts, attributes)


def ramped(ramp):
    return trainer_of(Square, ramp=ramp)


def inside(loss):
    """The kinds of losses from the outermost to that of one output."""
    kinds = []
    while loss is not None:
        kinds.append(type(loss))
        loss = next((getattr(loss, name) for name in ("stock", "base", "loss") if hasattr(loss, name)), None)
    return kinds


# --- with other parts ---


@pytest.mark.parametrize("parts", list(itertools.permutations([Square, DiceFocal, DSD])))
def test_terms_a_replaced_loss_and_self_distillation_combine_in_any_order(make_trainer_of, random_batch, parts):
    trainer = make_trainer_of(trainer_of(*parts))
    kinds = [SelfDistillationLoss, LossWithTerms, DeepSupervisionWrapper, DiceFocalLoss]
    assert inside(trainer.loss)[: len(kinds)] == kinds
    assert trainer.loss.one_output is trainer.loss.stock.base.loss  # levels are supervised without the term
    batch = random_batch(trainer, 0)
    output = trainer.network.train()(batch["data"])
    with_term = trainer.loss(output, batch["target"])
    trainer.loss.stock.active = (False,)
    difference = with_term - trainer.loss(output, batch["target"])
    torch.testing.assert_close(difference, 0.5 * output.segmentation[0].square().mean(), atol=1e-5, rtol=1e-4)
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_several_terms_are_all_added(make_trainer_of, random_batch):
    class Mean(LossTermPart):
        def loss_terms(self):
            return [
                *super().loss_terms(),
                AddedTerm("Mean", lambda logits, *_, **__: logits.mean(), ConstantRamp(3.0)),
            ]

    stock = make_trainer_of(trainer_of(Square, ramp=ConstantRamp(0.0))).loss
    loss = make_trainer_of(trainer_of(Mean, Square)).loss
    logits, target = (
        [torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 16)],
        random_batch(make_trainer_of(Square), 0)["target"],
    )
    expected = stock(logits, target) + 0.5 * logits[0].square().mean() + 3 * logits[0].mean()
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("supervised", [True, False])
def test_weight_0_trains_bit_for_bit_as_without_the_part(
    make_trainer_of, make_trainer, random_batch, regions, supervised
):
    variant = "nnUNetTrainer_member0" if supervised else "nnUNetTrainer_member0_NoDeepSupervision"
    plain = make_trainer(variant, regions=regions)
    trainer = make_trainer_of(trainer_of(Square, type(plain), ramp=ConstantRamp(0.0)), regions=regions)
    batches = [random_batch(trainer, seed) for seed in range(2)]
    if not supervised:
        batches = [{**batch, "target": batch["target"][0]} for batch in batches]
    for each in (plain, trainer):
        each.network.train()
    losses = [[each.train_step(batch)["loss"] for batch in batches] for each in (plain, trainer)]
    assert losses[0] == losses[1]
    assert all(
        torch.equal(*pair) for pair in zip(plain.network.parameters(), trainer.network.parameters(), strict=True)
    )


def test_validation_measures_the_whole_loss(make_trainer_of, random_batch):
    trainer = make_trainer_of(trainer_of(Square, ramp=ConstantRamp(100.0)))
    batch = random_batch(trainer, 0)
    trainer.network.eval()
    with torch.no_grad():
        found = trainer.validation_step(batch)["loss"]
        output = trainer.network(batch["data"])
        expected = trainer.loss.base(output, batch["target"]) + 100 * output[0].square().mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


# --- the log, and a resume ---


def test_the_log_has_a_curve_of_every_term(make_trainer_of, run_epochs):
    trainer = make_trainer_of(ramped(LinearRamp(0, 1, end=0.5)))
    trainer.num_epochs = 4
    run_epochs(trainer, 3)
    curve = trainer.logger.get_value("loss term Square", step=None)
    assert len(curve) == 3
    assert np.isnan(curve[0])  # weight 0: not computed
    assert np.isfinite(curve[1:]).all()
    lines = [line for line in Path(trainer.log_file).read_text().splitlines() if "loss term Square" in line]
    assert [line.partition("weight ")[2].strip() for line in lines] == ["0", "0.5", "1"]


def test_the_curve_is_the_mean_over_the_steps_without_the_weight(make_trainer_of):
    trainer = make_trainer_of(ramped(ConstantRamp(0.25)))
    trainer.on_train_epoch_start()
    outputs = [{"loss": np.array(1.0), "loss term Square": value} for value in (1.0, 2.0, 6.0)]
    trainer.on_train_epoch_end(outputs)
    assert trainer.logger.get_value("loss term Square", step=0) == 3


def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_trainer_of, run_epochs):
    ramp = LinearRamp(0, 2, begin=0.25, end=0.75)  # over eight epochs: 0 0 0 .5 1 1.5 2 2
    kind = trainer_of(Square, trainer_class("nnUNetTrainer_8epochs_member0"), ramp=ramp)

    def trainer(**options):
        made = make_trainer_of(kind, **options)
        made.save_every = 4
        return made

    whole = trainer()
    run_epochs(whole, 6)
    stopped = trainer()
    run_epochs(stopped, 4)
    resumed = trainer(initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    run_epochs(resumed, 6)

    assert resumed.loss_with_terms.weights.tolist() == whole.loss_with_terms.weights.tolist() == [1.5]
    assert all(
        torch.equal(*pair) for pair in zip(resumed.network.parameters(), whole.network.parameters(), strict=True)
    )
    curves = [each.logger.get_value("loss term Square", step=None) for each in (resumed, whole)]
    np.testing.assert_array_equal(*curves)


# --- what the loader computes ---


@pytest.mark.parametrize("variant", ["", "_NoDeepSupervision"])
@pytest.mark.parametrize("regions", [False, True])
def test_the_loader_computes_what_a_term_needs_after_augmentation(
    make_trainer_of, make_trainer, preprocessed_cases, regions, variant
):
    base = type(make_trainer(f"nnUNetTrainerDiceFocal{variant}", initialize=False))
    trainer = make_trainer_of(trainer_of(Positive, base), regions=regions)
    preprocessed_cases(trainer)
    training, validation = trainer.get_dataloaders()
    for loader in (training, validation):
        batch = next(loader)
        target, extra = batch["target"][0], batch["target"][-1]
        assert torch.equal(extra, positive(target))  # of the augmented target at full resolution
        assert extra.dtype == torch.float32
        assert extra.any()
    trainer.network.train()
    assert np.isfinite(trainer.train_step(next(training))["loss"])
    assert trainer.loss_with_terms.values.isfinite().all()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(validation))["loss"])
    assert trainer.loss_with_terms.extras == {}


def test_a_term_that_needs_nothing_leaves_the_loader_as_it_is(make_trainer_of, preprocessed_cases):
    trainer = make_trainer_of(Square)
    preprocessed_cases(trainer)
    training, _ = trainer.get_dataloaders()
    assert [target.shape[2:] for target in next(training)["target"]] == [(32, 32), (16, 16)]
