"""Streaming trainers: steps on slabs and on 3D patches, which classifiers they mix, and which names resolve."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.architectures.streaming import BottleneckDropout, FixedWeights, MemoryWeights, StreamingNetwork
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

PARTS = [
    "Streaming",
    "Streaming3",
    "StreamingFixed",
    "StreamingFixed3",
    "StreamingUNetD3P",
    "StreamingFixedUNetD3P",
    "DeepLab",
    "Streaming_DeepLab",
    "Streaming_BN",
    "Streaming_Cyclical2_EMA",
]
SLICES = 3


def outputs(network, image):
    with torch.no_grad():
        return network.eval()(image)


def unsupervised(network):
    """The coarsest heads of nnU-Net's U-Nets, to which its own deep supervision gives no weight."""
    return {name for name, _ in network.named_parameters() if ".seg_layers.0." in name}


# --- training ---


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_a_step_trains_every_parameter(make_streaming, part, regions, configuration, slab_batch):
    trainer = make_streaming(part, regions=regions, configuration=configuration)
    if part == "DeepLab" and configuration == "2d":  # the only one here that has single slices
        batch = slab_batch(trainer)
        batch = {"data": batch["data"][:, :, 0], "target": [target[:, :, 0] for target in batch["target"]]}
    else:
        batch = slab_batch(trainer)
    losses = [trainer.train_step(batch)["loss"] for _ in range(2)]
    assert np.isfinite(losses).all()
    without_gradient = {name for name, each in trainer.network.named_parameters() if each.grad is None}
    assert without_gradient == unsupervised(trainer.network)
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


@pytest.mark.parametrize("part", ["Streaming", "StreamingFixedUNetD3P"])
def test_without_deep_supervision(make_streaming, part, slab_batch):
    trainer = make_streaming(f"{part}_NoDeepSupervision")
    batch = slab_batch(trainer)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert outputs(trainer.network, batch["data"]).shape == (2, 3, SLICES, 16, 16)


def test_training_lowers_the_loss(make_streaming, slab_batch):
    trainer = make_streaming("Streaming_member0")
    batch = slab_batch(trainer)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(15)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_one_classifier_without_dropout_trains_as_stock_does(make_streaming, monkeypatch, slab_batch):
    # nnU-Net's softmax undoes the logarithm, so the losses differ by rounding only
    monkeypatch.setattr(trainer_class("nnUNetTrainerStreaming1_member3"), "bottleneck_dropout", 0.0)
    losses = []
    for part in ("Streaming1_member3", "_member3"):
        trainer = make_streaming(part)
        batch = slab_batch(trainer)
        of_slices = {
            "data": batch["data"].transpose(1, 2).flatten(0, 1),
            "target": [target.transpose(1, 2).flatten(0, 1) for target in batch["target"]],
        }  # (6, 1, 16, 16): six stacks of one slice
        losses.append([float(trainer.train_step(of_slices)["loss"]) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loss_is_that_of_the_mixed_probabilities(make_streaming, slab_batch):
    trainer = make_streaming("Streaming_NoDeepSupervision")
    batch = slab_batch(trainer)
    probabilities = outputs(trainer.network, batch["data"]).exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, SLICES, 16, 16))
    labels = batch["target"][:, 0].long()
    cross_entropy = -probabilities.gather(1, labels[:, None]).log().mean()
    found = trainer.loss.stock.ce(outputs(trainer.network, batch["data"]), batch["target"])
    torch.testing.assert_close(found, cross_entropy)


# --- which classifiers, which weights ---


@pytest.mark.parametrize(
    ("part", "classifiers"),
    [
        ("Streaming", [BottleneckDropout] * 2),
        ("Streaming1", [BottleneckDropout]),
        ("Streaming3", [BottleneckDropout] * 3),
        ("StreamingFixed3", [BottleneckDropout] * 3),
        ("StreamingUNetD3P", [BottleneckDropout, DeepLabV3Plus]),
        ("StreamingFixedUNetD3P", [BottleneckDropout, DeepLabV3Plus]),
        ("Streaming_DeepLab", [DeepLabV3Plus] * 2),
    ],
)
def test_a_mixture_has_these_classifiers(make_streaming, part, classifiers):
    network = make_streaming(part).network
    assert type(network) is StreamingNetwork
    assert [type(classifier) for classifier in network.classifiers] == classifiers


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_a_deeplab_takes_the_place_of_the_planned_network(make_streaming, configuration):
    assert type(make_streaming("DeepLab", configuration=configuration).network) is DeepLabV3Plus


def test_dropout_is_that_of_the_paper(make_streaming):
    classifiers = make_streaming("StreamingUNetD3P").network.classifiers
    rates = [{module.p for module in each.modules() if isinstance(module, nn.Dropout)} for each in classifiers]
    assert rates == [{0.5}, {0.5}]


@pytest.mark.parametrize(
    "part", ["Streaming", "Streaming3", "Streaming_BN", "Streaming_DeepLab", "Streaming_member0"]
)
def test_classifiers_begin_with_weights_of_their_own(make_streaming, part):
    first, *others = make_streaming(part).network.classifiers
    for other in others:
        for name, weight in first.named_parameters():
            if weight.ndim > 1:  # norms and biases begin alike
                assert not torch.equal(weight, other.get_parameter(name)), name


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_other_norms_reach_the_planned_classifiers(make_streaming, configuration):
    norms = (nn.InstanceNorm2d, nn.InstanceNorm3d)
    for classifier in make_streaming("Streaming_BN", configuration=configuration).network.classifiers:
        assert any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in classifier.modules())
        assert not any(isinstance(module, norms) for module in classifier.modules())


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        ("StreamingFixed", [0.5, 0.5]),
        ("StreamingFixed2", [0.5, 0.5]),
        ("StreamingFixed3", [1 / 3, 1 / 3, 1 / 3]),
        ("StreamingFixedUNetD3P", [0.7, 0.3]),  # the paper's optimum: the U-Net 0.7
    ],
)
@pytest.mark.parametrize("regions", [False, True])
def test_fixed_weights(make_streaming, part, weights, regions, slab_batch):
    trainer = make_streaming(part, regions=regions)
    trainer.set_deep_supervision_enabled(False)
    network, image = trainer.network.eval(), slab_batch(trainer)["data"]
    assert isinstance(network.weigh, FixedWeights)
    assert network.weigh.weights == pytest.approx(weights)
    nonlinearity = torch.sigmoid if regions else torch.nn.Softmax(dim=1)
    with torch.no_grad():
        classified = [nonlinearity(network.classify(each, image)) for each in network.classifiers]
        expected = sum(weight * each for weight, each in zip(weights, classified, strict=True))
        torch.testing.assert_close(nonlinearity(network(image)), expected)


@pytest.mark.parametrize("part", ["Streaming", "Streaming3", "StreamingUNetD3P", "Streaming_DeepLab"])
def test_other_weights_are_the_memorys_with_the_papers_kappa(make_streaming, part):
    rule = make_streaming(part).network.weigh
    assert isinstance(rule, MemoryWeights)
    assert rule.kappa == 1


@pytest.mark.parametrize("regions", [False, True])
def test_the_network_knows_whether_outputs_are_regions(make_streaming, regions):
    assert make_streaming("Streaming", regions=regions).network.has_regions is regions


# --- the paper's mixture ---


def test_the_papers_mixture_trains_on_probabilities(make_streaming, slab_batch):
    # Even a perfect mixture of three classes costs -ln(e / (e + 2)) = 0.5514 in cross-entropy
    trainer = make_streaming("Streaming_PaperMixture")
    batch = slab_batch(trainer)
    finest, _ = outputs(trainer.network, batch["data"])
    torch.testing.assert_close(finest.sum(dim=1), torch.ones(2, SLICES, 16, 16))
    assert finest.min() >= 0
    assert trainer.loss.loss.ce(finest, batch["target"][0]) > 0.5514
    assert np.isfinite(trainer.train_step(batch)["loss"])


@pytest.mark.parametrize("part", ["Streaming_MixtureLoss", "Streaming_PaperMixture", "Streaming1"])
def test_without_losses_of_the_classifiers_the_loss_is_stocks(make_streaming, part):
    trainer = make_streaming(part)
    assert type(trainer.loss) is type(make_streaming("").loss)
    assert not trainer.network.shows_classifiers


def test_the_papers_mixture_is_refused_for_regions(make_streaming):
    with pytest.raises(ValueError, match=r"PaperMixture needs labels rather than regions; found the regions organ"):
        make_streaming("Streaming_PaperMixture", regions=True, initialize=False)


def test_the_papers_mixture_as_a_value_is_refused_for_regions(make_streaming):
    trainer = make_streaming("Streaming", regions=True, initialize=False, mixture="paper")
    with pytest.raises(ValueError, match=r'second softmax.*found a dataset of regions.*Use mixture = "log"'):
        trainer.initialize()


@pytest.mark.parametrize(
    ("part", "rate"), [("Streaming", 0.5), ("Streaming_Dropout0", 0.0), ("Streaming_Dropout25", 0.25)]
)
def test_a_name_says_how_much_is_dropped(make_streaming, part, rate):
    (first, second) = make_streaming(part).network.classifiers
    assert [first.dropout.p, second.dropout.p] == [rate, rate]


# --- names ---


@pytest.mark.parametrize("part", [*PARTS, "StreamingFixed2_250epochs", "Streaming_NoMirroring", "SWA_Streaming"])
def test_names_resolve_where_nnunet_looks_for_them(nnunet_finds_our_trainers, part):
    found = recursive_find_trainer_class_by_name(f"nnUNetTrainer{part}")
    assert found is trainer_class(f"nnUNetTrainer{part}")
    assert found.__name__ == f"nnUNetTrainer{part}"


@pytest.mark.parametrize(
    ("part", "classifiers"),
    [("Streaming", 2), ("Streaming1", 1), ("Streaming12", 12), ("StreamingFixed", 2), ("StreamingFixed4", 4)],
)
def test_the_number_in_a_name_is_that_of_the_classifiers(part, classifiers):
    assert trainer_class(f"nnUNetTrainer{part}").classifiers == classifiers


@pytest.mark.parametrize("part", ["DSD_Streaming", "Streaming_SDD", "StreamingFixed_DS", "StreamingUNetD3P_DSD"])
def test_self_distillation_of_a_mixture_is_refused_with_the_reason(part):
    with pytest.raises(
        TrainerNameError, match=r"both set what the network returns in training\. Leave one out"
    ) as error:
        trainer_class(f"nnUNetTrainer{part}")
    assert all(word in str(error.value) for word in part.split("_"))


@pytest.mark.parametrize(
    "part", ["Streaming_StreamingFixed", "Streaming_Streaming3", "StreamingUNetD3P_StreamingFixedUNetD3P"]
)
def test_two_mixtures_are_refused(part):
    with pytest.raises(TrainerNameError, match=f"nnUNetTrainer{part} cannot be built"):
        trainer_class(f"nnUNetTrainer{part}")


def test_a_deeplab_with_another_norm_is_refused():
    with pytest.raises(TrainerNameError, match="both set the planned network"):
        trainer_class("nnUNetTrainerDeepLab_BN")


def test_a_mixture_of_no_classifiers_is_refused():
    with pytest.raises(TrainerNameError, match=r"Streaming<K> must be at least 1; found 'Streaming0'"):
        trainer_class("nnUNetTrainerStreaming0")
