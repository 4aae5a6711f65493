"""Streaming trainers: steps on slabs and on 3D patches, checkpoints that predict, bits that resume."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunet_ext import discovery
from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.architectures.posterior import PosteriorNetwork
from nnunet_ext.architectures.streaming import BottleneckDropout, FixedWeights, MemoryWeights, StreamingNetwork
from nnunet_ext.trainers.names import TrainerNameError, trainer_class
from nnunet_ext.trainers.networks.posterior import posterior_trainer_name

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
MIXTURES = [part for part in PARTS if part != "DeepLab"]
SLICES = 3


def streaming_plans(plans):
    """The fixture's 2D plans for slabs of three slices, and a 3D configuration beside them."""
    changed = deepcopy(plans)
    changed["continue_training"] = False  # the constructor takes it out
    changed["original_median_shape_after_transp"] = [SLICES, 40, 40]
    planar = changed["configurations"]["2d"]
    planar.update(batch_size=2 * SLICES, patch_size=[16, 16])
    architecture = deepcopy(planar["architecture"])
    architecture["arch_kwargs"].update(
        conv_op="torch.nn.modules.conv.Conv3d",
        norm_op="torch.nn.modules.instancenorm.InstanceNorm3d",
        kernel_sizes=[[3, 3, 3]] * 3,
        strides=[[1, 1, 1], [2, 2, 2], [1, 2, 2]],
    )
    volumetric = {"batch_size": 2, "patch_size": [4, 16, 16], "architecture": architecture}
    changed["configurations"]["3d_fullres"] = {**planar, **volumetric}
    return changed


@pytest.fixture(autouse=True)
def nnunet_finds_our_trainers(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", discovery.path())


@pytest.fixture
def make_streaming(make_trainer):
    """`make_streaming(part, **options)`: a trainer that is ready for a step."""

    def make(part, *, configuration="2d", regions=False, initialize=True, **attributes):
        shape = make_trainer(f"nnUNetTrainer{part}", initialize=False, regions=regions)
        given = deepcopy(shape.my_init_kwargs)
        trainer = type(shape)(**{**given, "plans": streaming_plans(given["plans"]), "configuration": configuration})
        for attribute, value in attributes.items():
            assert hasattr(trainer, attribute)
            setattr(trainer, attribute, value)
        if initialize:
            trainer.initialize()
            trainer.inference_allowed_mirroring_axes = (0, 1) if configuration == "2d" else (0, 1, 2)
            trainer.network.train()
        return trainer

    return make


def random_batch(trainer, seed=0):
    """In the form of the loader: slabs of a 2D configuration (2, 1, 3, 16, 16), patches of a 3D one."""
    generator = torch.Generator().manual_seed(seed)
    patch = trainer.configuration_manager.patch_size
    shape = (SLICES, *patch) if len(patch) == 2 else tuple(patch)
    image = torch.randn((2, 1, *shape), generator=generator)
    channels, classes = (2, 2) if trainer.label_manager.has_regions else (1, 3)
    target = torch.randint(classes, (2, channels, *shape), generator=generator).float()
    if not trainer.enable_deep_supervision:
        return {"data": image, "target": target}
    coarser = target[..., ::2, ::2] if len(patch) == 2 else target[..., ::2, ::2, ::2]
    return {"data": image, "target": [target, coarser]}


def run_epochs(trainer, until):
    """nnU-Net's hooks of each epoch, one step an epoch; batch and dropout depend on the epoch alone."""
    while trainer.current_epoch < until:
        epoch = trainer.current_epoch
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        torch.manual_seed(epoch)
        trainer.on_train_epoch_end([trainer.train_step(random_batch(trainer, epoch))])
        trainer.logger.log("mean_fg_dice", 0.9 - 0.01 * epoch, epoch)
        trainer.logger.log("dice_per_class_or_region", [0.9, 0.8], epoch)
        trainer.logger.log("val_losses", 0.5, epoch)
        trainer.on_epoch_end()


def network_for_prediction(trainer, name=None):
    """A new network as nnU-Net's predictor builds it from a trainer's name."""
    found = recursive_find_trainer_class_by_name(name or type(trainer).__name__)
    heads = trainer.label_manager.num_segmentation_heads
    return found.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, heads, False)


def load(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=False)


def copies(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def all_equal(first, second):
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


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
def test_a_step_trains_every_parameter(make_streaming, part, regions, configuration):
    trainer = make_streaming(part, regions=regions, configuration=configuration)
    if part == "DeepLab" and configuration == "2d":  # the only one here that has single slices
        batch = random_batch(trainer)
        batch = {"data": batch["data"][:, :, 0], "target": [target[:, :, 0] for target in batch["target"]]}
    else:
        batch = random_batch(trainer)
    losses = [trainer.train_step(batch)["loss"] for _ in range(2)]
    assert np.isfinite(losses).all()
    without_gradient = {name for name, each in trainer.network.named_parameters() if each.grad is None}
    assert without_gradient == unsupervised(trainer.network)
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


@pytest.mark.parametrize("part", ["Streaming", "StreamingFixedUNetD3P"])
def test_without_deep_supervision(make_streaming, part):
    trainer = make_streaming(f"{part}_NoDeepSupervision")
    batch = random_batch(trainer)
    assert trainer.network(batch["data"]).shape == (2, 3, SLICES, 16, 16)
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_training_lowers_the_loss(make_streaming):
    trainer = make_streaming("Streaming_member0")
    batch = random_batch(trainer)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(15)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_one_classifier_without_dropout_trains_as_stock_does(make_streaming, monkeypatch):
    # nnU-Net's softmax undoes the logarithm, so the losses differ by rounding only
    monkeypatch.setattr(trainer_class("nnUNetTrainerStreaming1_member3"), "bottleneck_dropout", 0.0)
    losses = []
    for part in ("Streaming1_member3", "_member3"):
        trainer = make_streaming(part)
        batch = random_batch(trainer)
        of_slices = {
            "data": batch["data"].transpose(1, 2).flatten(0, 1),
            "target": [target.transpose(1, 2).flatten(0, 1) for target in batch["target"]],
        }  # (6, 1, 16, 16): six stacks of one slice
        losses.append([float(trainer.train_step(of_slices)["loss"]) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loss_is_that_of_the_mixed_probabilities(make_streaming):
    trainer = make_streaming("Streaming_NoDeepSupervision")
    batch = random_batch(trainer)
    probabilities = outputs(trainer.network, batch["data"]).exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, SLICES, 16, 16))
    labels = batch["target"][:, 0].long()
    cross_entropy = -probabilities.gather(1, labels[:, None]).log().mean()
    found = trainer.loss.ce(outputs(trainer.network, batch["data"]), batch["target"])
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
def test_fixed_weights(make_streaming, part, weights, regions):
    trainer = make_streaming(part, regions=regions)
    trainer.set_deep_supervision_enabled(False)
    network, image = trainer.network.eval(), random_batch(trainer)["data"]
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


def test_the_papers_mixture_trains_on_probabilities(make_streaming):
    # Even a perfect mixture of three classes costs -ln(e / (e + 2)) = 0.5514 in cross-entropy
    trainer = make_streaming("Streaming_PaperMixture")
    batch = random_batch(trainer)
    finest, _ = outputs(trainer.network, batch["data"])
    torch.testing.assert_close(finest.sum(dim=1), torch.ones(2, SLICES, 16, 16))
    assert finest.min() >= 0
    assert trainer.loss.loss.ce(finest, batch["target"][0]) > 0.5514
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_the_papers_mixture_is_refused_for_regions(make_streaming):
    with pytest.raises(ValueError, match=r"PaperMixture needs labels rather than regions; found the regions organ"):
        make_streaming("Streaming_PaperMixture", regions=True, initialize=False)


def test_the_papers_mixture_as_a_value_is_refused_for_regions(make_streaming):
    trainer = make_streaming("Streaming", regions=True, initialize=False, mixture="paper")
    with pytest.raises(ValueError, match=r'second softmax.*found a dataset of regions.*Use mixture = "log"'):
        trainer.initialize()


# --- checkpoints ---


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("part", [*MIXTURES, "DeepLab"])
def test_a_checkpoint_predicts_what_the_trainer_does(make_streaming, part, regions):
    trainer = make_streaming(part, regions=regions)
    slices = random_batch(trainer, 1)["data"][:, :, 0]
    if part == "DeepLab":
        target = [target[:, :, 0] for target in random_batch(trainer)["target"]]
        trainer.train_step({"data": random_batch(trainer)["data"][:, :, 0], "target": target})
    else:
        trainer.train_step(random_batch(trainer))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint.pth"))
    network = network_for_prediction(trainer)
    network.load_state_dict(load(trainer, "checkpoint.pth")["network_weights"])  # strict
    trainer.set_deep_supervision_enabled(False)
    assert torch.equal(outputs(network, slices), outputs(trainer.network, slices))
    if part != "DeepLab":
        slabs = random_batch(trainer, 1)["data"]
        assert network.has_regions is regions
        assert torch.equal(outputs(network, slabs), outputs(trainer.network, slabs))


@pytest.mark.parametrize("part", ["Streaming", "StreamingUNetD3P"])
def test_a_3d_checkpoint_predicts_what_the_trainer_does(make_streaming, part):
    trainer = make_streaming(part, configuration="3d_fullres", regions=True)
    batch = random_batch(trainer)
    trainer.train_step(batch)
    network = network_for_prediction(trainer)
    network.load_state_dict(trainer.network.state_dict())
    trainer.set_deep_supervision_enabled(False)
    assert torch.equal(outputs(network, batch["data"]), outputs(trainer.network, batch["data"]))


@pytest.mark.parametrize(
    ("part", "regions"),
    [
        ("Streaming", False),
        ("Streaming", True),
        ("StreamingUNetD3P", False),
        ("Streaming_BN", False),
        ("Streaming_EMA", True),
    ],
)
def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_streaming, part, regions):
    part = f"{part}_member0_9epochs"
    whole = make_streaming(part, regions=regions)
    run_epochs(whole, 4)

    stopped = make_streaming(part, regions=regions, save_every=2)
    run_epochs(stopped, 2)
    resumed = make_streaming(part, regions=regions, initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    assert resumed.network.has_regions is regions
    run_epochs(resumed, 4)

    assert all_equal(resumed.network.state_dict(), whole.network.state_dict())
    momenta = [
        [state["momentum_buffer"] for state in trainer.optimizer.state_dict()["state"].values()]
        for trainer in (resumed, whole)
    ]
    assert all(torch.equal(*pair) for pair in zip(*momenta, strict=True))


def test_pretrained_weights_reach_all_classifiers(make_streaming):
    given, trainer = make_streaming("Streaming_member1"), make_streaming("Streaming_member2")
    file = Path(given.output_folder) / "pretrained.pth"
    given.save_checkpoint(str(file))
    load_pretrained_weights(trainer.network, str(file))  # nnUNetv2_train -pretrained_weights; leaves seg_layers out
    expected, found = given.network.state_dict(), trainer.network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in found if ".seg_layers." not in name)


@pytest.mark.parametrize("regions", [False, True])
def test_pretrained_weights_of_another_dataset_leave_the_kind_of_outputs(make_streaming, regions):
    given, trainer = make_streaming("Streaming", regions=not regions), make_streaming("Streaming", regions=regions)
    file = Path(given.output_folder) / "pretrained.pth"
    given.save_checkpoint(str(file))
    load_pretrained_weights(trainer.network, str(file))
    trainer.on_train_epoch_start()
    assert trainer.network.has_regions is regions


# --- with other parts ---


@pytest.mark.parametrize("regions", [False, True])
def test_with_ema_the_average_is_a_mixture(make_streaming, regions):
    trainer = make_streaming("Streaming_EMA_3epochs", regions=regions)
    run_epochs(trainer, 3)
    trainer.on_train_end()
    network = network_for_prediction(trainer)
    network.load_state_dict(load(trainer, "checkpoint_ema.pth")["network_weights"])
    assert network.has_regions is regions


def test_with_batch_norm_the_mean_of_weights_is_refreshed_on_slabs(make_streaming):
    trainer = make_streaming("Streaming_BN_SWA_4epochs", num_iterations_per_epoch=2)
    trainer.dataloader_train = iter([random_batch(trainer, 10 + step) for step in range(2)])
    run_epochs(trainer, 4)
    trainer.on_train_end()
    weights = load(trainer, "checkpoint_swa.pth")["network_weights"]
    network = network_for_prediction(trainer)
    network.load_state_dict(weights)
    counters = {int(value) for name, value in weights.items() if name.endswith("num_batches_tracked")}
    assert counters == {2}
    assert outputs(network, random_batch(trainer)["data"]).isfinite().all()


@pytest.mark.parametrize("regions", [False, True])
def test_samples_of_a_cyclical_training_are_mixtures_and_so_are_the_posteriors_members(make_streaming, regions):
    # Two cycles of five epochs, whose plateaus begin at 0.8 * 5 = 4: samples at epochs 4 and 9
    trainer = make_streaming("Streaming_Cyclical2_EMA_10epochs", regions=regions)
    run_epochs(trainer, 10)
    trainer.on_train_end()
    image = random_batch(trainer)["data"][:, :, 0]
    nonlinearity = torch.sigmoid if regions else torch.nn.Softmax(dim=1)
    samples = []
    for name in ("checkpoint_c0_e0004.pth", "checkpoint_c1_e0009.pth"):
        samples.append(network_for_prediction(trainer))
        samples[-1].load_state_dict(load(trainer, name)["network_weights"])

    posterior = load(trainer, "checkpoint_posterior.pth")
    assert posterior["trainer_name"] == "nnUNetTrainer_Streaming_posterior2"
    network = network_for_prediction(trainer, posterior["trainer_name"])
    assert type(network) is PosteriorNetwork
    network.load_state_dict(posterior["network_weights"])
    assert [member.has_regions for member in network.members] == [regions] * 2
    network.mirrored.fill_(False)
    expected = sum(nonlinearity(outputs(sample, image)) for sample in samples) / 2
    torch.testing.assert_close(nonlinearity(outputs(network, image)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("Streaming_Cyclical", ("Streaming",)),
        ("Streaming3_Cyclical", ("Streaming3",)),
        ("StreamingFixed3_Cyclical", ("StreamingFixed3",)),
        ("StreamingFixedUNetD3P_Cyclical", ("StreamingFixedUNetD3P",)),
        ("DeepLab_Cyclical", ("DeepLab",)),
        ("Cyclical_DeepLab_Streaming", ("Streaming", "DeepLab")),
        ("Streaming_BN_Cyclical", ("Streaming", "BN")),
        ("Streaming_PaperMixture_Cyclical", ("Streaming", "PaperMixture")),
    ],
)
def test_the_posteriors_name_builds_networks_into_which_samples_load(make_streaming, part, words):
    trainer = make_streaming(part)
    assert trainer.network_parts == words
    name = posterior_trainer_name(trainer.network_parts, 2)
    assert name == "_".join(["nnUNetTrainer", *words, "posterior2"])
    posterior = network_for_prediction(trainer, name)
    assert len(posterior.members) == 2
    for member in posterior.members:
        member.load_state_dict(trainer.plain_network.state_dict())  # strict
        assert type(member) is type(trainer.plain_network)
    assert outputs(posterior, torch.zeros((1, 1, 16, 16))).shape == (1, 3, 16, 16)


# --- names ---


@pytest.mark.parametrize("part", [*PARTS, "StreamingFixed2_250epochs", "Streaming_NoMirroring", "SWA_Streaming"])
def test_names_resolve_where_nnunet_looks_for_them(part):
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
