"""Self-distilling trainers: what they train with, and stock training where a weight is zero."""

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

from nnunet_ext.architectures.feature_taps import taps_of
from nnunet_ext.losses.self_distillation import distillation_kl
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

FULL, AVERAGED, REVERSED = "DSD_FullResolution", "DSD_AveragedTeacher", "DSD_ReversedTeacher"
PARTS = ["DSD", "SDD", "SDE", "DS", FULL, AVERAGED, REVERSED]
NO_TERMS = {"supervision_weight": 0.0, "encoder_weight": 0.0, "decoder_weight": 0.0}
UNSUPERVISED = {"plain.decoder.seg_layers.0.weight", "plain.decoder.seg_layers.0.bias"}


def copies(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def all_equal(first, second):
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def parameters_without_gradient(network):
    """Nothing but the coarsest head of nnU-Net's own deep supervision, whose weight is zero, may be here."""
    return {name for name, parameter in network.named_parameters() if parameter.grad is None}


# --- training ---


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shared_heads", [False, True])
def test_a_step_trains_every_parameter(make_trainer, random_batch, part, regions, shared_heads):
    trainer = make_trainer(f"nnUNetTrainer{part}", regions=regions, shared_heads=shared_heads)
    trainer.network.train()
    before = copies(dict(trainer.network.named_parameters()))
    losses = [float(trainer.train_step(random_batch(trainer, step))["loss"]) for step in range(2)]
    assert np.isfinite(losses).all()
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED
    moved = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("distillation_heads") for name in moved)
    assert any(name.startswith("plain.encoder") for name in moved)


@pytest.mark.parametrize("regions", [False, True])
def test_features_themselves_are_compared_from_four_levels_up(
    make_trainer, random_batch, regions, initialized, of_four_levels, with_three_targets
):
    shape = make_trainer("nnUNetTrainerDSD_FeatureL2", regions=regions, initialize=False)
    trainer = initialized(of_four_levels(shape))
    losses = [trainer.train_step(with_three_targets(random_batch(trainer, step)))["loss"] for step in range(2)]
    assert np.isfinite(losses).all()
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED
    assert sorted(trainer.network.distillation_heads["vectors"].heads) == ["level_1", "level_2"]


def test_features_of_three_levels_leave_no_student_and_are_refused(make_trainer):
    with pytest.raises(ValueError, match=r"at least 4 levels.*found 3\. Leave FeatureL2 out, or raise n_stages"):
        make_trainer("nnUNetTrainerDSD_FeatureL2")


@pytest.mark.parametrize("part", [*PARTS, "DSD_FeatureL2"])
def test_parts_train_on_grids_whose_strides_differ_by_axis(
    make_trainer, random_batch, part, initialized, of_four_levels, with_three_targets
):
    trainer = initialized(of_four_levels(make_trainer(f"nnUNetTrainer{part}", initialize=False)))
    assert np.isfinite(trainer.train_step(with_three_targets(random_batch(trainer, 0)))["loss"])


def test_the_loss_is_the_stock_loss_plus_the_terms(make_trainer, random_batch):
    # L + 1/2 (L(D_1) + L(D_2)) + KL(E_1 || E_0) + KL(D_1 || D_2) of three levels; L of one output as nnU-Net has it
    trainer = make_trainer("nnUNetTrainerDSD")
    stock = make_trainer("nnUNetTrainer").loss
    batch = random_batch(trainer, 0)
    finest = batch["target"][0]
    output = trainer.network.train()(batch["data"])
    (e0, e1), (d1, d2) = output.encoder_logits, output.decoder_logits
    supervision = (stock.loss(d1, finest[..., 1::2, 1::2]) + stock.loss(d2, finest[..., 2::4, 2::4])) / 2
    distillation = distillation_kl(e0, e1) + distillation_kl(d2, d1)
    expected = stock(output.segmentation, batch["target"]) + supervision + distillation
    torch.testing.assert_close(trainer.loss(output, batch["target"]), expected)
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(expected.item(), rel=1e-5)


def test_regions_are_compared_as_regions(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerSDE", regions=True)
    assert trainer.terms.regions
    e0, e1 = trainer.network.train()(random_batch(trainer, 0)["data"]).encoder_logits
    expected = distillation_kl(e0, e1, regions=True)
    assert torch.equal(trainer.loss.divergence([e0, e1], teacher=-1), expected)
    assert not make_trainer("nnUNetTrainerSDE").terms.regions


def test_levels_take_part_as_the_terms_need_them(make_trainer):
    # Three levels: E_0 and E_1 in the encoder, D_1 and the bottleneck D_2 in the decoder
    heads = {}
    for part in ("DSD", "SDD", "SDE", "DS"):
        heads[part] = make_trainer(f"nnUNetTrainer{part}").network.distillation_heads["segmentation"]
    found = {part: (list(levels.encoder_keys), list(levels.decoder_keys)) for part, levels in heads.items()}
    assert found == {"DSD": ([0, 1], [1, 2]), "SDD": ([], [1, 2]), "SDE": ([0, 1], [1, 2]), "DS": ([], [1, 2])}


def test_without_terms_there_are_no_heads(make_trainer):
    # Parameters that get no gradient would make DDP stop
    assert list(make_trainer("nnUNetTrainerDSD", **NO_TERMS).network.distillation_heads.parameters()) == []


@pytest.mark.parametrize(("part", "grids"), [("DSD", [(32, 32), (16, 16)]), (FULL, [(32, 32), (32, 32)])])
def test_logits_are_on_the_features_grid_or_on_the_images(make_trainer, random_batch, part, grids):
    trainer = make_trainer(f"nnUNetTrainer{part}")
    output = trainer.network.train()(random_batch(trainer, 0)["data"])
    assert [tuple(logits.shape[2:]) for logits in output.encoder_logits] == grids


# --- what stays as it is in stock training ---


@pytest.mark.parametrize("regions", [False, True])
def test_without_terms_training_is_that_of_stock_exactly(make_trainer, random_batch, regions):
    ours = make_trainer("nnUNetTrainerDSD_member3", regions=regions, **NO_TERMS)
    stock = make_trainer("nnUNetTrainer_member3", regions=regions)
    for step in range(3):
        losses = []
        for trainer in (ours, stock):
            trainer.network.train()
            losses.append(float(trainer.train_step(random_batch(trainer, step))["loss"]))
        assert losses[0] == losses[1]
    assert all_equal(ours.network.state_dict(), stock.network.state_dict())


@pytest.mark.parametrize("part", PARTS)
def test_the_plain_network_begins_as_stock_does(make_trainer, part):
    torch.manual_seed(7)
    ours = make_trainer(f"nnUNetTrainer{part}").network.state_dict()
    torch.manual_seed(7)
    assert all_equal(ours, make_trainer("nnUNetTrainer").network.state_dict())


def test_the_validation_loss_is_the_stock_loss_of_the_plain_network(make_trainer, random_batch):
    for regions in (False, True):
        trainer, stock = (make_trainer(f"nnUNetTrainer{part}_member1", regions=regions) for part in ("DSD", ""))
        results = []
        for validated in (trainer, stock):
            validated.on_validation_epoch_start()
            with torch.no_grad():
                results.append(validated.validation_step(random_batch(validated, 0)))
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, results[1][name])


def test_nnunet_can_switch_deep_supervision_for_its_final_validation(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    image = random_batch(trainer, 0)["data"]
    trainer.network.eval()
    listed = trainer.network(image)
    trainer.set_deep_supervision_enabled(False)
    assert torch.equal(trainer.network(image), listed[0])


def test_the_class_builds_the_plain_network_for_prediction_also_after_training(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    for build in (type(trainer).build_network_architecture, trainer.build_network_architecture):
        network = build(trainer.plans_manager, trainer.configuration_manager, 1, 3, False)
        assert type(network) is PlainConvUNet
    assert type(trainer.plain_network) is PlainConvUNet


def test_a_network_that_cannot_be_initialized_leaves_the_class_as_it_was(make_trainer):
    trainer = make_trainer("nnUNetTrainerDSD_FeatureL2", initialize=False)
    with pytest.raises(ValueError, match="at least 4 levels"):
        trainer.initialize()
    assert "build_network_architecture" not in vars(trainer)


# --- the features ---


def test_heads_read_the_features_that_the_plain_network_computes(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    image = random_batch(trainer, 0)["data"]
    output = trainer.network.train()(image)
    encoder, decoder, _ = taps_of(trainer.plain_network)(image)
    heads = trainer.network.distillation_heads["segmentation"].heads
    assert torch.equal(output.encoder_logits[1], heads["level_1"](encoder[1]))
    assert torch.equal(output.decoder_logits[0], heads["level_1"](decoder[1]))
    assert torch.equal(output.decoder_logits[1], heads["level_2"](decoder[2]))  # the bottleneck


# --- names ---


@pytest.mark.parametrize("others", ["DSD_SDD", "SDE_DS"])
def test_two_kinds_of_self_distillation_are_refused_with_the_reason(others):
    with pytest.raises(TrainerNameError) as error:
        trainer_class(f"nnUNetTrainer{others}")
    message = str(error.value)
    assert f"nnUNetTrainer{others} cannot be built" in message
    assert "both set what the network returns in training. Leave one out" in message
    assert all(word in message for word in others.split("_"))


@pytest.mark.parametrize(("part", "encoder", "decoder"), [("DSD", 0.25, 0.25), ("SDD", 0, 0.25), ("SDE", 0.25, 0)])
def test_the_name_gives_the_weight_of_the_divergences(make_trainer, part, encoder, decoder):
    terms = make_trainer(f"nnUNetTrainer{part}_Divergence25").terms
    assert (terms.encoder, terms.decoder, terms.supervision) == (encoder, decoder, 1.0)
