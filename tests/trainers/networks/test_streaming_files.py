"""Checkpoints of Streaming trainers predict, resume bit for bit, and average."""

from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_ext.architectures.posterior import PosteriorNetwork
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


def network_for_prediction(trainer, name=None):
    """A new network as nnU-Net's predictor builds it from a trainer's name."""
    found = recursive_find_trainer_class_by_name(name or type(trainer).__name__)
    heads = trainer.label_manager.num_segmentation_heads
    return found.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, heads, False)


def load(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=False)


def all_equal(first, second):
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def outputs(network, image):
    with torch.no_grad():
        return network.eval()(image)


# --- checkpoints ---


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("part", [*MIXTURES, "DeepLab"])
def test_a_checkpoint_predicts_what_the_trainer_does(make_streaming, part, regions, slab_batch):
    trainer = make_streaming(part, regions=regions)
    slices = slab_batch(trainer, 1)["data"][:, :, 0]
    if part == "DeepLab":
        target = [target[:, :, 0] for target in slab_batch(trainer)["target"]]
        trainer.train_step({"data": slab_batch(trainer)["data"][:, :, 0], "target": target})
    else:
        trainer.train_step(slab_batch(trainer))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint.pth"))
    network = network_for_prediction(trainer)
    network.load_state_dict(load(trainer, "checkpoint.pth")["network_weights"])  # strict
    trainer.set_deep_supervision_enabled(False)
    assert torch.equal(outputs(network, slices), outputs(trainer.network, slices))
    if part != "DeepLab":
        slabs = slab_batch(trainer, 1)["data"]
        assert network.has_regions is regions
        assert torch.equal(outputs(network, slabs), outputs(trainer.network, slabs))


@pytest.mark.parametrize("part", ["Streaming", "StreamingUNetD3P"])
def test_a_3d_checkpoint_predicts_what_the_trainer_does(make_streaming, part, slab_batch):
    trainer = make_streaming(part, configuration="3d_fullres", regions=True)
    batch = slab_batch(trainer)
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
def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_streaming, part, regions, run_slab_epochs):
    part = f"{part}_member0_9epochs"
    whole = make_streaming(part, regions=regions)
    run_slab_epochs(whole, 4)

    stopped = make_streaming(part, regions=regions, save_every=2)
    run_slab_epochs(stopped, 2)
    resumed = make_streaming(part, regions=regions, initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    assert resumed.network.has_regions is regions
    run_slab_epochs(resumed, 4)

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
def test_with_ema_the_average_is_a_mixture(make_streaming, regions, run_slab_epochs):
    trainer = make_streaming("Streaming_EMA_3epochs", regions=regions)
    run_slab_epochs(trainer, 3)
    trainer.on_train_end()
    network = network_for_prediction(trainer)
    network.load_state_dict(load(trainer, "checkpoint_ema.pth")["network_weights"])
    assert network.has_regions is regions


def test_with_batch_norm_the_mean_of_weights_is_refreshed_on_slabs(make_streaming, slab_batch, run_slab_epochs):
    trainer = make_streaming("Streaming_BN_SWA_4epochs", num_iterations_per_epoch=2)
    trainer.dataloader_train = iter([slab_batch(trainer, 10 + step) for step in range(2)])
    run_slab_epochs(trainer, 4)
    trainer.on_train_end()
    weights = load(trainer, "checkpoint_swa.pth")["network_weights"]
    network = network_for_prediction(trainer)
    network.load_state_dict(weights)
    counters = {int(value) for name, value in weights.items() if name.endswith("num_batches_tracked")}
    assert counters == {2}
    assert outputs(network, slab_batch(trainer)["data"]).isfinite().all()


@pytest.mark.parametrize("regions", [False, True])
def test_samples_of_a_cyclical_training_are_mixtures_and_so_are_the_posteriors_members(
    make_streaming, regions, slab_batch, run_slab_epochs
):
    # Two cycles of five epochs, whose plateaus begin at 0.8 * 5 = 4: samples at epochs 4 and 9
    trainer = make_streaming("Streaming_Cyclical2_EMA_10epochs", regions=regions)
    run_slab_epochs(trainer, 10)
    trainer.on_train_end()
    image = slab_batch(trainer)["data"][:, :, 0]
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
