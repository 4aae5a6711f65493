"""Streaming mixes the networks of the parts in a name."""

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.architectures.streaming import BottleneckDropout, FixedWeights
from nnunet_ext.trainers.compatibility import TrainerNameError, UsedPart, require_compatible
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.networks.deeplab import DeepLab
from nnunet_ext.trainers.networks.network_part import NetworkPart, network_parts_of
from nnunet_ext.trainers.networks.streaming import Streaming
from nnunet_ext.trainers.part import PLANNED, Claim, Kind, Part
from nnunet_ext.trainers.parts import DEEPLAB, NETWORK, PARTS


class OneLayer(NetworkPart):
    """A second network beside DeepLab."""

    @classmethod
    def build_network(cls, configuration, input_channels, outputs, deep_supervision):
        return nn.Conv2d(input_channels, outputs, 1)


ROW = Part("OneLayer", Kind.NETWORK, "", "one layer", "", "nnUNetTrainerOneLayer", claims=NETWORK)


def build(trainer, shape):
    """The network that prediction builds for the fixture's plans."""
    return trainer.build_network_architecture(shape.plans_manager, shape.configuration_manager, 1, 3, False)


def used(*words):
    """Parts of the table, and the one of this file."""
    rows = {part.spelling: part for part in (*PARTS, ROW)}
    return [UsedPart(word, rows[word]) for word in words]


@pytest.fixture
def shape(make_trainer):
    return make_trainer("nnUNetTrainer", initialize=False)


def mixture(*parts, **attributes):
    return type("nnUNetTrainerMixture", (Streaming, *parts), attributes)


def test_a_network_part_alone_is_the_network(shape):
    assert type(build(OneLayer, shape)) is nn.Conv2d
    assert type(build(trainer_class("nnUNetTrainerDeepLab"), shape)) is DeepLabV3Plus


@pytest.mark.parametrize(
    ("parts", "attributes", "classifiers"),
    [
        ((), {}, [BottleneckDropout] * 2),
        ((OneLayer,), {}, [nn.Conv2d] * 2),
        ((OneLayer, DeepLab), {}, [nn.Conv2d, DeepLabV3Plus]),
        ((DeepLab, OneLayer), {}, [DeepLabV3Plus, nn.Conv2d]),
        ((DeepLab, OneLayer), {"classifiers": 3}, [DeepLabV3Plus, nn.Conv2d, DeepLabV3Plus]),
        ((), {"networks": (PLANNED, DEEPLAB)}, [BottleneckDropout, DeepLabV3Plus]),
    ],
)
def test_classifiers_are_the_networks_in_turn(shape, parts, attributes, classifiers):
    network = build(mixture(*parts, **attributes), shape)
    assert [type(classifier) for classifier in network.classifiers] == classifiers
    assert network.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3, 32, 32)


def test_fewer_classifiers_than_networks_are_refused(shape):
    with pytest.raises(ValueError, match=r"has 2 networks and 1 classifiers\. Write Streaming2"):
        build(mixture(OneLayer, DeepLab, classifiers=1), shape)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"weighting": "fixed", "fixed_weights": (0.5, 0.3, 0.2)}, "found 0.5, 0.3, 0.2 for 2 classifiers"),
        ({"weighting": "fixed", "fixed_weights": (1.5, -0.5)}, "not negative"),
        ({"weighting": "fixed", "weight_ratio": (0, 0)}, "not all 0"),
        ({"weighting": "random"}, "found 'random'"),
    ],
)
def test_weights_that_fit_no_mixture_are_refused(shape, attributes, message):
    with pytest.raises(ValueError, match=message):
        build(mixture(**attributes), shape)


def test_fixed_weights_are_equal_unless_they_are_given():
    rule = mixture(weighting="fixed", classifiers=4).weight_rule()
    assert isinstance(rule, FixedWeights)
    assert rule.weights == (0.25,) * 4


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        ("StreamingFixed_Weights70x30", (0.7, 0.3)),
        ("StreamingFixed_Weights1x3", (0.25, 0.75)),
        ("StreamingFixed3_Weights2x1x1", (0.5, 0.25, 0.25)),
        ("StreamingFixed_Weights1x0", (1, 0)),
        ("StreamingFixedUNetD3P_Weights60x40", (0.6, 0.4)),  # instead of the paper's 0.7 and 0.3
    ],
)
def test_a_name_holds_any_fixed_weights_as_a_ratio(part, weights):
    assert trainer_class(f"nnUNetTrainer{part}").weight_rule().weights == weights


def test_weights_of_a_name_need_fixed_weights_and_one_number_per_classifier():
    with pytest.raises(TrainerNameError, match=r"Weights70x30 changes StreamingFixed, .*, which the name lacks"):
        trainer_class("nnUNetTrainerStreaming_Weights70x30")
    with pytest.raises(ValueError, match=r"found 1, 2, 3 for 2 classifiers\. Give 2 numbers"):
        trainer_class("nnUNetTrainerStreamingFixed_Weights1x2x3").weight_rule()


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("Streaming_WithPlanned_SegResNet", ["planned", "SegResNet"]),
        ("Streaming_WithPlanned", ["planned", "planned"]),
        ("Streaming3_LCOVNet_WithPlanned_SegResNet", ["planned", "SegResNet", "LCOVNet"]),  # in the table's order
        ("Streaming_UNETR_VNet", ["VNet", "UNETR"]),
        ("StreamingFixed3_VNet", ["VNet", "VNet", "VNet"]),
    ],
)
def test_any_networks_are_partners(shape, part, names):
    trainer = trainer_class(f"nnUNetTrainer{part}")
    assert trainer.classifier_names() == names
    network = build(trainer, shape).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32)).softmax(1).sum(1).allclose(torch.ones(1, 32, 32))


def test_network_parts_of_a_trainer_are_found_in_the_tables_order():
    assert network_parts_of(trainer_class("nnUNetTrainerDSD_EMA")) == []
    assert network_parts_of(trainer_class("nnUNetTrainerDeepLab_EMA")) == [DeepLab]
    assert network_parts_of(mixture(OneLayer, DeepLab)) == [OneLayer, DeepLab]


# --- by name ---


def test_two_networks_combine_only_in_a_mixture():
    require_compatible("nnUNetTrainer", used("Streaming", "DeepLab", "OneLayer"))
    with pytest.raises(TrainerNameError, match="DeepLab and OneLayer both set the network"):
        require_compatible("nnUNetTrainer", used("DeepLab", "OneLayer"))


def test_a_mixture_takes_no_network_twice_and_no_planned_network_that_it_does_not_build():
    batch_norm = UsedPart("BN", variant=nn.Module, variant_claims=frozenset({Claim.PLANNED_NETWORK}))
    with pytest.raises(TrainerNameError, match="both set the network"):
        require_compatible("nnUNetTrainer", used("Streaming", "DeepLab", "DeepLab"))
    with pytest.raises(TrainerNameError, match="DeepLab and BN both set the planned network"):
        require_compatible("nnUNetTrainer", [*used("Streaming", "DeepLab"), batch_norm])


def test_a_mixture_with_networks_of_its_own_takes_no_other():
    with pytest.raises(TrainerNameError, match="StreamingUNetD3P and OneLayer both set the network"):
        require_compatible("nnUNetTrainer", used("StreamingUNetD3P", "OneLayer"))
    assert issubclass(trainer_class("nnUNetTrainerStreamingUNetD3P_BN"), Streaming)
