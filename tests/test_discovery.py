"""nnU-Net's own search finds the trainers, and finds everything else as it did before."""

import os
import pkgutil
import sys
import warnings

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5_10epochs
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import nnUNetTrainer_250epochs
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_ext import discovery
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

VARIABLE = "nnUNet_extTrainer"


@pytest.fixture
def our_folder(monkeypatch):
    """nnU-Net searches our folder."""
    monkeypatch.setenv(VARIABLE, discovery.path())


@pytest.fixture
def their_folder(tmp_path):
    """A folder of somebody else's with two trainers."""
    (tmp_path / "my_trainers.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerQuux(nnUNetTrainer): pass\n"
        "class nnUNetTrainerCyclicalQuux_250epochs(nnUNetTrainer): pass\n"
    )
    return str(tmp_path)


# --- the search ---


@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainerCyclical", "nnUNetTrainerSWA_250epochs", "nnUNetTrainer_50iters", "nnUNetTrainer_BN_posterior3"],
)
def test_nnunet_finds_our_trainers(our_folder, name):
    found = recursive_find_trainer_class_by_name(name)
    assert found.__name__ == name
    assert found is trainer_class(name)


def test_without_the_variable_nnunet_does_not_find_them(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        recursive_find_trainer_class_by_name("nnUNetTrainerCyclical")


def test_a_second_search_gives_the_same_class_though_nnunet_forgets_the_module(our_folder):
    first = recursive_find_trainer_class_by_name("nnUNetTrainerCyclical_19epochs")
    assert "nnunet_ext_trainers" not in sys.modules  # nnU-Net's purge
    assert recursive_find_trainer_class_by_name("nnUNetTrainerCyclical_19epochs") is first


def test_the_class_is_the_same_when_the_module_is_still_loaded(our_folder, monkeypatch):
    monkeypatch.syspath_prepend(discovery.path())
    import nnunet_ext_trainers

    before = nnunet_ext_trainers.nnUNetTrainerCyclical_18epochs
    assert recursive_find_trainer_class_by_name("nnUNetTrainerCyclical_18epochs") is before
    monkeypatch.delitem(sys.modules, "nnunet_ext_trainers")
    assert recursive_find_trainer_class_by_name("nnUNetTrainerCyclical_18epochs") is before


def test_a_search_after_the_whole_discovery_package_was_purged(our_folder, monkeypatch):
    # In a process where only nnU-Net's search imports us, the package lies in the purged folder, too.
    first = recursive_find_trainer_class_by_name("nnUNetTrainerEMA")
    monkeypatch.delitem(sys.modules, "nnunet_ext.discovery")
    assert recursive_find_trainer_class_by_name("nnUNetTrainerEMA") is first


@pytest.mark.parametrize("stock", [nnUNetTrainer, nnUNetTrainer_250epochs, nnUNetTrainerDA5_10epochs])
def test_stock_names_stay_stock_classes(our_folder, stock):
    assert recursive_find_trainer_class_by_name(stock.__name__) is stock


@pytest.mark.parametrize("name", ["nnUNetTrainerQuux", "nnUNetTrainer_mine", "QuuxTrainer"])
def test_an_unrelated_name_gets_nnunets_own_message(our_folder, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=f"Could not find requested nnunet trainer {name} "):
            recursive_find_trainer_class_by_name(name)


def test_an_unrelated_name_is_found_in_a_folder_behind_ours(monkeypatch, their_folder):
    monkeypatch.setenv(VARIABLE, os.pathsep.join([discovery.path(), their_folder]))
    assert recursive_find_trainer_class_by_name("nnUNetTrainerQuux").__module__ == "my_trainers"


def test_a_name_like_ours_is_found_in_a_folder_behind_ours_with_a_warning(monkeypatch, their_folder):
    monkeypatch.setenv(VARIABLE, os.pathsep.join([discovery.path(), their_folder]))
    with pytest.warns(UserWarning, match="Did you mean Cyclical"):
        found = recursive_find_trainer_class_by_name("nnUNetTrainerCyclicalQuux_250epochs")
    assert found.__module__ == "my_trainers"


def test_our_trainers_are_found_behind_another_folder(monkeypatch, their_folder):
    monkeypatch.setenv(VARIABLE, os.pathsep.join([their_folder, discovery.path()]))
    assert recursive_find_trainer_class_by_name("nnUNetTrainerSWA") is trainer_class("nnUNetTrainerSWA")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nnUNetTrainerCyclcal", "Did you mean Cyclical"),
        ("nnUNetTrainerCyclical_250epoch", "Did you mean <n>epochs"),
        ("nnUNetTrainerQuux_250epochs", "'Quux' is neither"),  # one word of two is ours
    ],
)
def test_a_mistyped_part_of_ours_gets_our_message(our_folder, name, hint):
    with pytest.raises(TrainerNameError, match=hint):
        recursive_find_trainer_class_by_name(name)


def test_a_mistyped_part_gets_our_message_when_no_folder_waits_behind_ours(monkeypatch, their_folder):
    monkeypatch.setenv(VARIABLE, os.pathsep.join([their_folder, discovery.path()]))
    with pytest.raises(TrainerNameError, match="Did you mean Cyclical"):
        recursive_find_trainer_class_by_name("nnUNetTrainerCyclcal")


def test_a_combination_that_makes_no_sense_gets_the_reason(our_folder):
    with pytest.raises(TrainerNameError, match=r"Cyclical and SWA both set"):
        recursive_find_trainer_class_by_name("nnUNetTrainerCyclical_SWA")


# --- the folder ---


def test_the_folder_holds_one_module():
    # nnU-Net imports every module of the folder by its bare name
    assert [module.name for module in pkgutil.walk_packages([discovery.path()])] == ["nnunet_ext_trainers"]


def test_activate_adds_the_folder_once_and_keeps_others(monkeypatch, their_folder):
    monkeypatch.setenv(VARIABLE, their_folder)  # monkeypatch restores what activate() changes
    discovery.activate()
    discovery.activate()
    assert os.environ[VARIABLE].split(os.pathsep) == [their_folder, discovery.path()]


@pytest.mark.parametrize("before", [None, "", os.pathsep, " "])
def test_activate_from_nothing_is_the_folder_alone(monkeypatch, before):
    monkeypatch.setenv(VARIABLE, before or "")
    if before is None:
        monkeypatch.delenv(VARIABLE)
    discovery.activate()
    assert os.environ[VARIABLE] == discovery.path()
    assert recursive_find_trainer_class_by_name("nnUNetTrainerSWA") is trainer_class("nnUNetTrainerSWA")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", 'export nnUNet_extTrainer="{}"'),
        ("powershell", '$env:nnUNet_extTrainer = "{}"'),
        ("cmd", 'set "nnUNet_extTrainer={}"'),
    ],
)
def test_the_line_for_each_shell(monkeypatch, shell, line):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert discovery.shell_line(shell) == line.format(discovery.path())
    monkeypatch.setenv(VARIABLE, "elsewhere")
    assert discovery.shell_line(shell) == line.format(f"elsewhere{os.pathsep}{discovery.path()}")


def test_an_unknown_shell_is_refused():
    with pytest.raises(ValueError, match=r"sh, powershell, cmd; found 'fish'"):
        discovery.shell_line("fish")
