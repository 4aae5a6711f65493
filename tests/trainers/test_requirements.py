"""Requirements of parts on each other are checked by name, those on plans and datasets at construction."""

import subprocess
import sys

import pytest
import torch

from nnunet_ext.trainers.names import TrainerNameError, trainer_class
from nnunet_ext.trainers.own_steps import OwnStepsTrainer
from nnunet_ext.trainers.part import Requirement
from nnunet_ext.trainers.requirements import INSTEAD, CheckedRequirements, RequirementError

# --- by name ---


@pytest.mark.parametrize("part", ["DSD", "SDD", "SDE", "DS", "MCDropout"])
def test_what_needs_a_unet_is_refused_beside_a_deeplab(part):
    with pytest.raises(TrainerNameError, match=rf"{part} needs a U-Net .*, which DeepLab does not provide\. Leave"):
        trainer_class(f"nnUNetTrainer{part}_DeepLab")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("FullResolution", "DSD, SDD, SDE or DS"),
        ("SumSupervision", "DSD, SDD, SDE or DS"),
        ("Temperature2", "DSD, SDD or SDE"),
        ("AveragedTeacher", "DSD, SDD or SDE"),
        ("ReversedTeacher", "DSD, SDD or SDE"),
        ("FeatureL2", "DSD"),
        ("PaperMixture", "Streaming, .*, StreamingUNetD3P or StreamingFixedUNetD3P"),
        ("DS_AveragedTeacher", "DSD, SDD or SDE"),  # has no teacher
        ("DSD_PaperMixture", "Streaming, .*"),
    ],
)
def test_a_part_without_what_it_changes_is_refused(part, changes):
    with pytest.raises(TrainerNameError, match=f"changes {changes}, which the name lacks. Write nnUNetTrainer"):
        trainer_class(f"nnUNetTrainer{part}_250epochs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DSDFull", "DSD_FullResolution"),
        ("DSDMeanTeacher", "DSD_AveragedTeacher"),
        ("DSDReversedTeacher", "DSD_ReversedTeacher"),
        ("DSDFeatureL2", "DSD_FeatureL2"),
    ],
)
def test_a_renamed_part_is_refused_with_its_new_name(old, new):
    with pytest.raises(TrainerNameError, match=f"{old} is called {new} now"):
        trainer_class(f"nnUNetTrainerCyclical_{old}")
    trainer_class(f"nnUNetTrainerCyclical_{new}")


def test_names_of_our_parts_are_refused_without_importing_torch():
    script = (
        "import sys\n"
        "from nnunet_ext.trainers.names import TrainerNameError, known_spellings, trainer_class\n"
        "try: trainer_class('nnUNetTrainerDSD_DeepLab')\n"
        "except TrainerNameError: print(len(known_spellings()) > 20, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# --- at construction ---


def test_every_requirement_is_checked():
    assert set(INSTEAD) == set(Requirement)


def test_regions_are_refused_where_a_part_needs_labels(make_trainer):
    make_trainer("nnUNetTrainerStreaming_PaperMixture", initialize=False)
    with pytest.raises(RequirementError) as error:
        make_trainer("nnUNetTrainerStreaming_PaperMixture", initialize=False, regions=True)
    message = str(error.value)
    assert "PaperMixture needs labels rather than regions; found the regions organ, lesion. Leave" in message
    assert "or train on a dataset of labels" in message


def with_network(trainer, network_class):
    """A trainer of the same kind for plans of another network."""
    plans = trainer.my_init_kwargs["plans"]
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = network_class
    plans["continue_training"] = False  # the constructor takes it out
    return type(trainer)(plans, "2d", 0, trainer.dataset_json, torch.device("cpu"))


@pytest.mark.parametrize("part", ["DSD", "MCDropout"])
def test_plans_of_another_network_are_refused_where_a_part_needs_a_unet(make_trainer, part):
    trainer = make_trainer(f"nnUNetTrainer{part}", initialize=False)
    primus = "dynamic_network_architectures.architectures.primus.PrimusS"
    with pytest.raises(RequirementError, match=rf"{part} needs a U-Net .*; found {primus}\. Leave {part} out, or ch"):
        with_network(trainer, primus)


@pytest.mark.parametrize("network", ["architectures.unet.ResidualEncoderUNet", "architectures.unet.PlainConvUNet"])
def test_nnunets_unets_meet_the_requirement(make_trainer, network):
    with_network(make_trainer("nnUNetTrainerDSD", initialize=False), f"dynamic_network_architectures.{network}")


def test_a_third_party_network_is_checked_when_it_is_built(make_trainer):
    trainer = with_network(make_trainer("nnUNetTrainerDSD", initialize=False), "torch.nn.Identity")
    with pytest.raises(ValueError, match=r"needs a U-Net .*; found Identity\. Leave the part out"):
        trainer.initialize()


def test_a_2d_configuration_is_refused_where_three_axes_are_needed(make_trainer):
    trainer = make_trainer("nnUNetTrainer", initialize=False)

    class nnUNetTrainerOfVolumes(CheckedRequirements):
        requirements = (("Volumes", Requirement.THREE_AXES),)

    plans = {**trainer.my_init_kwargs["plans"], "continue_training": False}
    with pytest.raises(RequirementError, match=r"Volumes needs a 3D configuration; found the configuration 2d"):
        nnUNetTrainerOfVolumes(plans, "2d", 0, trainer.dataset_json, torch.device("cpu"))


def test_a_training_without_labels_is_refused_where_a_part_needs_labels(make_trainer):
    trainer = make_trainer("nnUNetTrainer", initialize=False)

    class nnUNetTrainerOwnSteps(CheckedRequirements, OwnStepsTrainer):
        requirements = (("Boundary", Requirement.SEGMENTATION),)

    plans = {**trainer.my_init_kwargs["plans"], "continue_training": False}
    with pytest.raises(RequirementError, match=r"Boundary needs a training on labels; found a training without"):
        nnUNetTrainerOwnSteps(plans, "2d", 0, trainer.dataset_json, torch.device("cpu"))
