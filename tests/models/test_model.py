"""The network of nnU-Net's own trainer is built without that trainer, and is the same."""

import json

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.models import model as model_module
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import build_network, load_model

RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def with_residual_encoder(plans, configuration):
    """nnU-Net's other architecture, whose encoder has blocks instead of single convolutions."""
    architecture = plans["configurations"][configuration]["architecture"]
    architecture["network_class_name"] = RESIDUAL
    arguments = architecture["arch_kwargs"]
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")


def arguments_of(folder, configuration):
    plans = PlansManager(json.loads((folder / "plans.json").read_text(encoding="utf-8")))
    dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return plans, plans.get_configuration(configuration), dataset, plans.get_label_manager(dataset)


@pytest.fixture
def no_trainers(monkeypatch):
    """Trainers cannot be found: their import would take 2 seconds."""

    def find(name):
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(model_module, "find_trainer", find)


@pytest.mark.parametrize(
    "settings",
    [
        {"configuration": "2d"},
        {"configuration": "3d_fullres"},
        {"configuration": "2d", "channels": 3},
        {"configuration": "3d_cascade_fullres"},  # the previous stage's labels are channels, too
        {
            "configuration": "2d",
            "labels": {"background": 0, "whole": [1, 2], "core": [2]},
            "regions_class_order": [1, 2],
        },
        {"configuration": "2d", "labels": {"background": 0, "left": 1, "ignore": 2}},
    ],
    ids=["2d", "3d", "channels", "cascade", "regions", "ignore label"],
)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_the_network_is_the_one_that_nnunets_trainer_builds(make_model_folder, no_trainers, settings, residual):
    folder, configuration = make_model_folder(folds=(), **settings), settings["configuration"]
    if residual:
        plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
        with_residual_encoder(plans, configuration)
        (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    plans, planned, dataset, labels = arguments_of(folder, configuration)
    expected = nnUNetTrainer.build_network_architecture(
        plans, planned, determine_num_input_channels(plans, planned, dataset), labels.num_segmentation_heads, False
    )
    found = build_network("nnUNetTrainer", plans, planned, dataset, labels)
    assert type(found) is type(expected)
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in found.state_dict().items()] == [
        (name, tensor.shape, tensor.dtype) for name, tensor in expected.state_dict().items()
    ]
    assert str(found) == str(expected)  # all layers with their settings
    assert found.decoder.deep_supervision is expected.decoder.deep_supervision is False
    found.load_state_dict(expected.state_dict())
    channels = next(found.parameters()).shape[1]
    image = torch.randn((2, channels, *planned.patch_size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.eval()(image), expected.eval()(image))


def test_a_model_of_nnunets_trainer_opens_without_the_trainer(make_model_folder, no_trainers):
    model = load_model(make_model_folder(), None, MemberRule.parse("final"), device=torch.device("cpu"))
    assert model.members[0].trainer_name == "nnUNetTrainer"
    assert not model.network.training


def test_any_other_trainer_is_asked_for_its_network(make_model_folder, no_trainers):
    with pytest.raises(AssertionError, match="nnUNetTrainerBN was imported"):
        build_network("nnUNetTrainerBN", *arguments_of(make_model_folder(folds=()), "2d"))
