"""Networks with dropout: its place, that it is off in evaluation, and that checkpoints fit the plain network."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.networks.mc_dropout import limit_dropout, with_dropout_layers

RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def configuration(trainer, *, residual=False, axes=2):
    """The fixture's configuration, its own copy; with residual blocks, or with a third axis."""
    found = deepcopy(trainer.configuration_manager.configuration)
    arguments = found["architecture"]["arch_kwargs"]
    if residual:
        found["architecture"]["network_class_name"] = RESIDUAL
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    if axes == 3:
        found["patch_size"] = [32, 32, 32]
        arguments["conv_op"] = "torch.nn.modules.conv.Conv3d"
        arguments["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm3d"
        for name in ("kernel_sizes", "strides"):
            arguments[name] = [[*sizes, sizes[0]] for sizes in arguments[name]]
    return ConfigurationManager(found)


def build(builder, manager, *, seed=0):
    """The network that prediction builds, with its first weights of a seed."""
    torch.manual_seed(seed)
    return builder.build_network_architecture(None, manager, 1, 3, False)


def variant(**attributes):
    """The trainer with other values of its class attributes."""
    return type("Variant", (trainer_class("nnUNetTrainerMCDropout"),), attributes)


def probabilities_of(module):
    """The probabilities of all dropout layers in a module, each once."""
    return [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout2d | nn.Dropout3d)]


@pytest.fixture
def plans(make_trainer):
    """`plans(**options)`: a configuration as above."""
    trainer = make_trainer("nnUNetTrainer", initialize=False)
    return lambda **options: configuration(trainer, **options)


# --- where dropout lies ---


def test_dropout_is_in_the_two_deepest_levels(plans):
    # Three levels of one block each. The decoder's list begins at the deepest: level 1, level 0.
    network = build(variant(), plans())
    assert [probabilities_of(stage) for stage in network.encoder.stages] == [[0.0], [0.5], [0.5]]
    assert [probabilities_of(stage) for stage in network.decoder.stages] == [[0.5], [0.0]]


def test_dropout_can_be_in_all_levels_and_of_another_probability(plans):
    network = build(variant(dropout_levels="all", dropout_probability=0.2), plans())
    assert probabilities_of(network) == [0.2] * 5


def test_the_name_sets_the_probability_in_percent(plans):
    network = build(trainer_class("nnUNetTrainerMCDropout_Dropout10"), plans())
    assert probabilities_of(network.encoder) == [0.0, 0.1, 0.1]


def test_residual_blocks_have_it_too_and_the_stem_belongs_to_the_finest_level(plans):
    network = build(variant(), plans(residual=True))
    assert probabilities_of(network.encoder.stem) == [0.0]
    assert [probabilities_of(stage) for stage in network.encoder.stages] == [[0.0], [0.5], [0.5]]


@pytest.mark.parametrize(("axes", "kind"), [(2, nn.Dropout2d), (3, nn.Dropout3d)])
def test_whole_channels_are_dropped_between_convolution_and_norm(plans, axes, kind):
    block = build(variant(), plans(axes=axes)).encoder.stages[2][0].convs[0]
    assert [type(layer).__name__ for layer in block.all_modules] == [
        f"Conv{axes}d",
        kind.__name__,
        f"InstanceNorm{axes}d",
        "LeakyReLU",
    ]
    before_norm = block.all_modules[:2].train()(torch.randn(1, 8, *[8] * axes))
    zero = (before_norm == 0).flatten(start_dim=2)  # (1, 8, voxels)
    assert torch.equal(zero.any(dim=2), zero.all(dim=2))
    assert 0 < zero.all(dim=2).sum() < 8  # both kinds with a probability of 1 - 2 / 2^8, and the seed is fixed


# --- what stays as it is ---


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"axes": 3}])
def test_in_evaluation_it_is_the_plain_network_with_the_same_initial_weights(plans, options):
    ours, plain = build(variant(), plans(**options)), build(nnUNetTrainer, plans(**options))
    image = torch.randn(1, 1, *[32] * options.get("axes", 2))
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), plain.eval()(image))
        assert not torch.equal(ours.train()(image), plain.train()(image))


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"axes": 3}])
def test_weights_have_the_plain_networks_names(plans, options):
    ours, plain = build(variant(), plans(**options)), build(nnUNetTrainer, plans(**options), seed=1)
    assert list(ours.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(ours.state_dict())  # strictly
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name])


def test_a_checkpoint_loads_in_the_plain_network_and_a_plain_one_here(make_trainer, run_epochs, random_batch):
    trainer = make_trainer("nnUNetTrainerMCDropout_1epochs", save_every=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    file = str(Path(trainer.output_folder) / "checkpoint_final.pth")
    plain, another = make_trainer("nnUNetTrainer"), make_trainer("nnUNetTrainerMCDropout")
    image = random_batch(trainer, 0)["data"]
    for other in (plain, another):
        other.load_checkpoint(file)
        with torch.no_grad():
            assert torch.equal(other.network.eval()(image)[0], trainer.network.eval()(image)[0])
    plain_file = Path(plain.output_folder) / "plain.pth"
    plain.inference_allowed_mirroring_axes = (0, 1)
    plain.save_checkpoint(str(plain_file))
    another.load_checkpoint(str(plain_file))


def test_the_plans_stay_as_they_are(plans):
    manager = plans()
    before = deepcopy(manager.configuration)
    build(variant(), manager)
    build(trainer_class("nnUNetTrainerMCDropout_BN"), manager)  # nnU-Net's BN writes into what it is given
    assert manager.configuration == before


# --- what is refused ---


def test_plans_of_a_network_without_dropout_are_refused(plans):
    manager = plans()
    del manager.configuration["architecture"]["arch_kwargs"]["dropout_op"]
    with pytest.raises(ValueError, match=r"takes dropout_op; the plans have none for .*PlainConvUNet\. Leave"):
        build(variant(), manager)


def test_a_network_that_is_no_unet_is_refused():
    with pytest.raises(ValueError, match=r"needs a U-Net .*found Conv2d\. Leave the part out"):
        limit_dropout(torch.nn.Conv2d(1, 1, 1), "deepest")


def test_deeplab_is_refused_by_name():
    with pytest.raises(ValueError, match=r"MCDropout needs a U-Net .*, which DeepLab does not provide"):
        trainer_class("nnUNetTrainerMCDropout_DeepLab")


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_a_probability_outside_its_range_is_refused(plans, probability):
    with pytest.raises(ValueError, match=f"at least 0 and below 1; found {probability}"):
        with_dropout_layers(plans(), probability)


def test_unknown_levels_are_refused(plans):
    with pytest.raises(ValueError, match=r'must be "deepest" or "all"; found \'bottleneck\''):
        build(variant(dropout_levels="bottleneck"), plans())


# --- with other parts ---


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("parts", ["MCDropout", "DSD_MCDropout", "MCDropout_BN", "MCDropout_EMA"])
def test_it_trains(make_trainer, random_batch, parts, regions):
    trainer = make_trainer(f"nnUNetTrainer{parts}", regions=regions)
    trainer.network.train()
    losses = [float(trainer.train_step(random_batch(trainer, step))["loss"]) for step in range(2)]
    assert np.isfinite(losses).all()


def test_the_classifiers_of_streaming_have_it(plans):
    network = build(trainer_class("nnUNetTrainerStreaming_MCDropout"), plans())
    for classifier in network.classifiers:
        assert [probabilities_of(stage) for stage in classifier.encoder.stages] == [[0.0], [0.5], [0.5]]
    assert list(network.state_dict()) == list(build(trainer_class("nnUNetTrainerStreaming"), plans()).state_dict())
