"""A trainer's name is read word by word; what it builds is checked on the class and on trainers made of it."""

import inspect
import multiprocessing
import pickle

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs_noDataLoading import (
    nnUNetTrainerBenchmark_5epochs_noDataLoading,
)
from nnunetv2.training.nnUNetTrainer.variants.competitions.aortaseg24 import nnUNetTrainer_onlyMirror01_DA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainer_onlyMirror01,
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam1en3

from nnunet_ext.trainers import names
from nnunet_ext.trainers.averaging.ema import EMA
from nnunet_ext.trainers.averaging.swa import SWA
from nnunet_ext.trainers.length_and_seed.independent_member import IndependentMember
from nnunet_ext.trainers.length_and_seed.training_length import Epochs, Iterations
from nnunet_ext.trainers.names import TrainerNameError, UnknownPartError, trainer_class
from nnunet_ext.trainers.networks.posterior import Posterior
from nnunet_ext.trainers.part import load
from nnunet_ext.trainers.parts import PARTS
from nnunet_ext.trainers.schedules.cyclical import Cyclical

# --- words ---


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nnUNetTrainerCyclical", [Cyclical]),
        ("nnUNetTrainerSWA", [SWA]),
        ("nnUNetTrainerCyclical_EMA", [Cyclical, EMA]),
        ("nnUNetTrainerCyclical_250epochs", [Cyclical, Epochs]),
        ("nnUNetTrainerSWA_50iters_member4", [SWA, Iterations, IndependentMember]),
        ("nnUNetTrainer_posterior30", [Posterior]),
        ("nnUNetTrainer_50iters", [Iterations]),  # nothing attached: a leading underscore
        ("nnUNetTrainer_Cyclical", [Cyclical]),
        ("nnUNetTrainer50iters", [Iterations]),
    ],
)
def test_a_name_gives_a_class_of_that_name_with_those_parts(name, parts):
    found = trainer_class(name)
    assert found.__name__ == name
    assert issubclass(found, nnUNetTrainer)
    others = {load(part.mixin) for part in PARTS if part.mixin} - set(parts)
    assert all(issubclass(found, part) for part in parts)
    assert not any(issubclass(found, part) for part in others)


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("nnUNetTrainerCyclical", "cycles", 3),  # the paper's
        ("nnUNetTrainerCyclical5", "cycles", 5),
        ("nnUNetTrainerCyclical12_600epochs", "cycles", 12),
        ("nnUNetTrainerCyclical12_600epochs", "epochs", 600),
        ("nnUNetTrainer_50iters", "iterations", 50),
        ("nnUNetTrainer_member0", "member", 0),
        ("nnUNetTrainer_member17", "member", 17),
        ("nnUNetTrainer_posterior30", "posterior_size", 30),
    ],
)
def test_numbers_in_words_are_the_parts_values(name, attribute, value):
    assert getattr(trainer_class(name), attribute) == value


def test_a_number_in_one_name_leaves_other_names_alone():
    trainer_class("nnUNetTrainerCyclical7")
    assert trainer_class("nnUNetTrainerCyclical").cycles == 3


@pytest.mark.parametrize(
    "orders",
    [
        ("Cyclical_250epochs", "250epochs_Cyclical", "_250epochs_Cyclical", "_Cyclical_250epochs"),
        ("Cyclical_NoMirroring_5iters", "NoMirroring_5iters_Cyclical", "5iters_Cyclical_NoMirroring"),
        ("EMA_member3_BN", "BN_EMA_member3", "member3_BN_EMA"),
        ("Adam1en3_Cyclical", "Cyclical_Adam1en3"),
    ],
)
def test_any_order_of_words_inherits_in_the_same_order(orders):
    ancestors = [trainer_class(f"nnUNetTrainer{order}").__mro__[1:] for order in orders]
    assert all(others == ancestors[0] for others in ancestors)


def test_any_order_of_words_trains_the_same_way(make_trainer):
    # 1000 epochs are nnU-Net's, 1200 Cyclical's; the number in the name wins over both
    for name in ("nnUNetTrainerCyclical_7epochs", "nnUNetTrainer_7epochs_Cyclical"):
        assert make_trainer(name, initialize=False).num_epochs == 7


# --- stock variants as words ---


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("nnUNetTrainerCyclical_NoMirroring", nnUNetTrainerNoMirroring),
        ("nnUNetTrainerNoMirroring_Cyclical", nnUNetTrainerNoMirroring),
        ("nnUNetTrainerCyclical_BN", nnUNetTrainerBN),
        ("nnUNetTrainerSWA_Adam1en3", nnUNetTrainerAdam1en3),
        ("nnUNetTrainerCyclical_onlyMirror01", nnUNetTrainer_onlyMirror01),  # stock spells it with an underscore
        ("nnUNetTrainerEMA_DA5", nnUNetTrainerDA5),
    ],
)
def test_a_stock_variant_is_a_part(name, stock):
    found = trainer_class(name)
    assert issubclass(found, stock)
    own = next(mixin for part in PARTS if part.mixin and issubclass(found, mixin := load(part.mixin)))
    assert found.__mro__.index(own) < found.__mro__.index(stock)


def test_a_stock_variant_of_two_words_is_one_part():
    # onlyMirror01 and DA5 exist on their own as well; together they would both set the mirroring
    found = trainer_class("nnUNetTrainerCyclical_onlyMirror01_DA5")
    assert issubclass(found, nnUNetTrainer_onlyMirror01_DA5)


def test_a_stock_variant_may_hold_a_word_that_is_also_ours():
    found = trainer_class("nnUNetTrainerCyclical_Benchmark_5epochs_noDataLoading")
    assert issubclass(found, nnUNetTrainerBenchmark_5epochs_noDataLoading)
    assert not issubclass(found, Epochs)


def test_a_word_of_ours_between_two_stock_words_keeps_them_apart():
    with pytest.raises(TrainerNameError, match="onlyMirror01 and DA5 both set mirroring"):
        trainer_class("nnUNetTrainer_onlyMirror01_Cyclical_DA5")


def test_stock_augmentation_with_our_length(make_trainer):
    trainer = make_trainer("nnUNetTrainerDA5_10epochs", initialize=False)
    assert isinstance(trainer, nnUNetTrainerDA5)
    assert trainer.num_epochs == 10


def test_a_stock_variants_values_hold_under_our_parts(make_trainer):
    # Adam1en3 sets initial_lr to 0.001 in its constructor; the restart is ten times the initial rate
    trainer = make_trainer("nnUNetTrainerCyclical_Adam1en3_Restart10_30epochs")
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    trainer.lr_scheduler.step(0)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_stock_variants_length_stays(make_trainer):
    assert make_trainer("nnUNetTrainerCyclical_1epoch", initialize=False).num_epochs == 1


def test_only_parts_that_change_the_network_are_network_parts():
    assert trainer_class("nnUNetTrainerCyclical_250epochs_NoMirroring").network_parts == ()
    assert trainer_class("nnUNetTrainerCyclical_BN_NoMirroring").network_parts == ("BN",)


# --- refused ---


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("nnUNetTrainerCyclical_SWA", ("Cyclical", "SWA"), "the learning-rate schedule"),
        ("nnUNetTrainerCyclical_Cyclical5", ("Cyclical", "Cyclical5"), "the learning-rate schedule"),
        ("nnUNetTrainer_10epochs_20epochs", ("10epochs", "20epochs"), "number of epochs"),
        ("nnUNetTrainer_10iters_20iters", ("10iters", "20iters"), "iterations per epoch"),
        ("nnUNetTrainer_member1_member2", ("member1", "member2"), "seed"),
        ("nnUNetTrainerEMA_EMA", ("EMA", "EMA"), "checkpoint_ema.pth"),
        ("nnUNetTrainerCyclical_CosAnneal", ("Cyclical", "CosAnneal"), "learning-rate schedule"),
        ("nnUNetTrainerSWA_warmup", ("SWA", "warmup"), "learning-rate schedule"),
        ("nnUNetTrainerAdan_Adam_Cyclical", ("Adan", "Adam"), "optimizer"),
        ("nnUNetTrainerDiceLoss_CELoss", ("DiceLoss", "CELoss"), "loss"),
    ],
)
def test_parts_that_replace_the_same_thing_are_refused_with_the_reason(name, words, reason):
    with pytest.raises(TrainerNameError) as error:
        trainer_class(name)
    message = str(error.value)
    assert name in message
    assert f"{words[0]} and {words[1]} both set" in message
    assert reason in message
    assert "Leave one out" in message


@pytest.mark.parametrize(
    ("name", "stock_word"),
    [
        ("nnUNetTrainer_1epoch_20epochs", "1epoch"),
        ("nnUNetTrainer_20epochs_onlyMirror01_1500ep", "onlyMirror01_1500ep"),
    ],
)
def test_two_lengths_are_refused_also_where_nnunet_brings_one(name, stock_word):
    with pytest.raises(TrainerNameError, match=f"20epochs and {stock_word} both set the number of epochs"):
        trainer_class(name)


@pytest.mark.parametrize(
    "name", ["nnUNetTrainer_posterior3_posterior4", "nnUNetTrainerCyclical_NoDeepSupervision_NoDeepSupervision"]
)
def test_a_part_that_claims_nothing_is_refused_too_when_it_comes_twice(name):
    with pytest.raises(TrainerNameError, match=f"{name} cannot be built.*Leave one out"):
        trainer_class(name)


def test_a_stock_variant_with_one_derived_from_it_is_refused():
    with pytest.raises(TrainerNameError, match="Leave one out"):
        trainer_class("nnUNetTrainerprobabilisticOversampling_Cyclical_probabilisticOversampling_033")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("Cyclcal", "Cyclical"),
        ("cyclical", "Cyclical"),
        ("Cylical5", "Cyclical"),
        ("Swa", "SWA"),
        ("250epoch", "<n>epochs"),
        ("250Epochs", "<n>epochs"),
        ("50iter", "<n>iters"),
        ("membr2", "member<k>"),
        ("member", "member<k>"),  # the number is missing
    ],
)
def test_an_unknown_word_gets_the_closest_known_one(word, hint):
    with pytest.raises(UnknownPartError) as error:
        trainer_class(f"nnUNetTrainer_{word}")
    assert f"{word!r} is neither a part" in str(error.value)
    assert f"Did you mean {hint}?" in str(error.value)


def test_a_word_like_no_other_gets_the_list_of_known_ones():
    with pytest.raises(UnknownPartError) as error:
        trainer_class("nnUNetTrainerQuux_250epochs")
    message = str(error.value)
    assert "'Quux'" in message
    assert "Did you mean" not in message
    for part in ("Cyclical", "Cyclical<M>", "SWA", "EMA", "<n>epochs", "<n>iters", "member<k>"):
        assert part in message
    assert "posterior" not in message  # not for users


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nnUNetTrainerCyclical0", "Cyclical<M> must be at least 1; found 'Cyclical0'"),
        ("nnUNetTrainer_0epochs", "<n>epochs must be at least 1; found '0epochs'"),
        ("nnUNetTrainer_0iters", "<n>iters must be at least 1; found '0iters'"),
        ("nnUNetTrainer_posterior0", "posterior<M> must be at least 1; found 'posterior0'"),
    ],
)
def test_a_number_that_is_too_small_is_refused(name, rule):
    with pytest.raises(TrainerNameError) as error:
        trainer_class(name)
    assert rule in str(error.value)


@pytest.mark.parametrize("name", ["Cyclical", "nnunettrainerCyclical", "", "MynnUNetTrainerCyclical"])
def test_a_name_must_begin_as_nnunets_trainers_do(name):
    with pytest.raises(TrainerNameError, match="begins with nnUNetTrainer"):
        trainer_class(name)


# --- what nnU-Net and Python ask of the class ---


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.spelling)
def test_the_example_in_the_table_is_a_trainer_with_that_part(part):
    assert part.spelling in {used.row.spelling for used in names.parse(part.example) if used.row}
    assert issubclass(trainer_class(part.example), load(part.mixin) if part.mixin else nnUNetTrainer)
    assert part.summary


def test_the_same_name_is_the_same_class():
    assert trainer_class("nnUNetTrainerCyclical_33epochs") is trainer_class("nnUNetTrainerCyclical_33epochs")
    assert trainer_class("nnUNetTrainerCyclical_33epochs") is not trainer_class("nnUNetTrainer_33epochs_Cyclical")


@pytest.mark.parametrize("name", ["nnUNetTrainerCyclical5_500epochs", "nnUNetTrainerEMA_member2_BN"])
def test_the_class_lives_in_nnunet_ext_trainers_and_pickles(name):
    found = trainer_class(name)
    assert found.__module__.startswith("nnunet_ext.trainers")
    assert pickle.loads(pickle.dumps(found)) is found


def test_a_class_that_was_not_built_yet_unpickles():
    pickled = pickle.dumps(trainer_class("nnUNetTrainerCyclical_41epochs"))
    unpickled = pickle.loads(pickled.replace(b"_41epochs", b"_42epochs"))
    assert unpickled is trainer_class("nnUNetTrainerCyclical_42epochs")


def test_the_class_pickles_into_a_spawned_process_and_back():
    found = trainer_class("nnUNetTrainerCyclical5_500epochs")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(getattr, (found, "cycles")) == 5
        assert pool.apply(getattr, (found, "mro"))()[0] is found


def test_the_module_has_no_other_attributes():
    assert not hasattr(names, "nnUNetTrainerNonsense")
    assert not hasattr(names, "Cyclical5")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.spelling)
@pytest.mark.parametrize("more", ["", "_NoMirroring"])
def test_the_constructor_is_that_of_the_stock_trainer(part, more):
    # nnU-Net reads the argument names off the signature and re-creates trainers from them
    ours = inspect.signature(trainer_class(part.example + more), eval_str=True)
    stock = inspect.signature(nnUNetTrainer, eval_str=True)
    assert list(ours.parameters.values()) == list(stock.parameters.values())


def test_the_constructors_arguments_are_kept_for_the_checkpoint(make_trainer):
    kept = make_trainer("nnUNetTrainerCyclical_EMA_NoMirroring", initialize=False).my_init_kwargs
    assert list(kept) == ["plans", "configuration", "fold", "dataset_json", "device"]
    assert (kept["configuration"], kept["fold"], kept["device"]) == ("2d", 0, torch.device("cpu"))
