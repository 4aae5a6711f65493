"""Weights per case: the table, what nnU-Net's loader draws from, what counts in the loss."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_ext.losses.case_weighted import CaseWeightedLoss
from nnunet_ext.losses.dice_focal import DiceFocalLoss
from nnunet_ext.trainers.data.case_weights import CaseWeight, read_case_weights, repeated


def table(folder, *rows, header="case,sampling,loss"):
    file = folder / "case_weights.csv"
    file.write_text("\n".join([header, *rows]), encoding="utf-8")
    return file


def test_the_table_by_case(tmp_path):
    file = table(tmp_path, "a,0.5,1", "b,2,0")
    assert read_case_weights(file) == {"a": CaseWeight(0.5, 1), "b": CaseWeight(2, 0)}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a,1,1"], "case,weight,loss", "found case, weight, loss"),
        (["a,-1,1"], "case,sampling,loss", "sampling of a .* found '-1'"),
        (["a,1,"], "case,sampling,loss", "loss of a .* found ''"),
        (["a,1,nan"], "case,sampling,loss", "loss of a .* found 'nan'"),
        (["a,1,1", "a,1,1"], "case,sampling,loss", "two of a"),
    ],
)
def test_a_wrong_table_is_refused_by_what_is_wrong(tmp_path, rows, header, message):
    with pytest.raises(ValueError, match=message):
        read_case_weights(table(tmp_path, *rows, header=header))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"case_weights\.csv does not exist"):
        read_case_weights(tmp_path / "case_weights.csv")


def test_cases_are_drawn_by_their_weights():
    """Three cases with the weights 1, 1/2 and 0: two thirds, one third, never."""
    found = Counter(repeated(["c", "a", "b"], {"b": CaseWeight(sampling=0.5), "c": CaseWeight(sampling=0)}))
    assert found == {"a": 40, "b": 20}


def test_equal_weights_leave_the_cases_as_they_are():
    assert repeated(["b", "a", "b"], {}) == ["a", "b", "b"]
    assert repeated(["b", "a"], {"a": CaseWeight(2), "b": CaseWeight(2)}) == ["a", "b"]


def test_weights_of_0_alone_are_refused():
    with pytest.raises(ValueError, match="above 0; found none"):
        repeated(["a"], {"a": CaseWeight(0)})


def test_a_training_loads_and_counts_by_the_table(make_trainer, preprocessed_cases, random_batch):
    trainer = make_trainer("nnUNetTrainerCaseWeights_member0")
    plain = make_trainer("nnUNetTrainer_member0")
    preprocessed_cases(trainer)
    trainer.fold = "all"
    table(Path(trainer.preprocessed_dataset_folder_base), "case1,3,1", "case2,1,0.25")
    training, validation = trainer.get_tr_and_val_datasets()
    assert Counter(training.identifiers) == {"case1": 30, "case2": 10}
    assert sorted(validation.identifiers) == ["case1", "case2"]

    batch = random_batch(trainer, 0)
    trainer.network.load_state_dict(plain.network.state_dict())
    one = {"data": batch["data"], "target": batch["target"]}
    same = trainer.train_step({**one, "keys": ["case1", "case1"]})["loss"]
    assert same == plain.train_step(one)["loss"]
    less = trainer.train_step({**one, "keys": ["case2", "case2"]})["loss"]
    assert less == pytest.approx(0.25 * trainer.loss(trainer.network(batch["data"]), batch["target"]).item(), rel=0.3)


def batch_dice_of_ddp(trainer):
    """nnU-Net's Dice as several processes have it: gathered from all of them, which fails in a test, being none."""
    [dice] = [module for module in trainer.loss.modules() if isinstance(module, MemoryEfficientSoftDiceLoss)]
    dice.batch_dice = dice.ddp = True
    return dice


@pytest.mark.parametrize("keys", [["case1", "case1"], ["case1", "case2"], ["case2", "case2"]])
def test_processes_of_ddp_do_not_wait_for_each_other_in_batches_of_different_weights(
    make_trainer, preprocessed_cases, random_batch, keys
):
    """Not even where all weights are 1, because those of another process may not be."""
    trainer = make_trainer("nnUNetTrainerCaseWeights")
    preprocessed_cases(trainer)
    table(Path(trainer.preprocessed_dataset_folder_base), "case2,1,0.5")
    batch_dice_of_ddp(trainer)
    trainer.get_tr_and_val_datasets()
    batch = {**random_batch(trainer, 0), "keys": keys}
    assert torch.isfinite(torch.tensor(trainer.train_step(batch)["loss"]))


def test_dice_of_the_batch_stays_where_the_table_has_sampling_weights_alone(make_trainer, preprocessed_cases):
    trainer = make_trainer("nnUNetTrainerCaseWeights")
    preprocessed_cases(trainer)
    table(Path(trainer.preprocessed_dataset_folder_base), "case2,3,1")
    dice = batch_dice_of_ddp(trainer)
    trainer.get_tr_and_val_datasets()
    assert dice.batch_dice


@pytest.mark.parametrize(
    "name", ["Boundary_ACE_Euler_SkeletonRecall_HausdorffConv", "ClDice_DSD", "AdvChain", "Streaming_DiceFocal_ACE"]
)
def test_cases_of_weight_0_change_nothing_whatever_is_in_the_loss(make_trainer, preprocessed_cases, name):
    trainer = make_trainer(f"nnUNetTrainerCaseWeights_{name}")
    preprocessed_cases(trainer)
    table(Path(trainer.preprocessed_dataset_folder_base), "case1,1,0", "case2,1,0")
    batch = next(trainer.get_dataloaders()[0])
    terms = trainer.loss_with_terms
    terms.set_epoch(9, 10, {added.name: [1.0] for added in terms.terms})
    assert any(terms.active)
    trainer.network.train()
    assert trainer.train_step(batch)["loss"] == 0
    assert not any(weight.grad.any() for weight in trainer.network.parameters() if weight.grad is not None)

    trainer.case_weights = {}
    trainer.train_step(batch)
    assert any(weight.grad.any() for weight in trainer.network.parameters())


def test_a_case_that_the_dataset_lacks_is_refused(make_trainer, preprocessed_cases):
    trainer = make_trainer("nnUNetTrainerCaseWeights")
    preprocessed_cases(trainer)
    trainer.fold = "all"
    table(Path(trainer.preprocessed_dataset_folder_base), "case7,1,1")
    with pytest.raises(ValueError, match="found case7"):
        trainer.get_tr_and_val_datasets()


def test_it_wraps_a_replaced_loss(make_trainer):
    trainer = make_trainer("nnUNetTrainerDiceFocal_CaseWeights")
    wrappers = [module for module in trainer.loss.modules() if isinstance(module, CaseWeightedLoss)]
    assert len(wrappers) == 1
    assert isinstance(wrappers[0].loss, DiceFocalLoss)
    assert torch.is_tensor(wrappers[0](torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)))
