"""Self-distilling trainers: stock training where a weight is zero, plain checkpoints, and bits that resume."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.architectures.feature_taps import tap_features
from nnunet_ext.architectures.self_distilling import DistillationOutput
from nnunet_ext.losses.self_distillation import distillation_kl
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

FULL, AVERAGED, REVERSED = "DSD_FullResolution", "DSD_AveragedTeacher", "DSD_ReversedTeacher"
PARTS = ["DSD", "SDD", "SDE", "DS", FULL, AVERAGED, REVERSED]
NO_TERMS = {"supervision_weight": 0.0, "encoder_weight": 0.0, "decoder_weight": 0.0}


def dataset_like(trainer, *, labels=None, **arguments):
    """A trainer of the same kind for a dataset or plans that differ in something."""
    given = {**deepcopy(trainer.my_init_kwargs), **arguments}
    given["plans"]["continue_training"] = False  # the constructor takes it out
    if labels:
        given["dataset_json"]["labels"] = labels
    return type(trainer)(**given)


def initialized(trainer):
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1)  # nnU-Net sets it with its data loaders
    trainer.network.train()
    return trainer


def of_four_levels(trainer):
    """The same with one level more than the plans of the fixture, not initialized."""
    plans = deepcopy(trainer.my_init_kwargs["plans"])
    architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    architecture.update(
        n_stages=4,
        features_per_stage=[4, 8, 8, 8],
        kernel_sizes=[[3, 3]] * 4,
        strides=[[1, 1], [2, 2], [2, 1], [1, 2]],
        n_conv_per_stage=[1] * 4,
        n_conv_per_stage_decoder=[1] * 3,
    )
    return dataset_like(trainer, plans=plans)


def with_three_targets(batch):
    """nnU-Net's targets of the four levels above: full resolution, half, and half of that along the first axis."""
    finest, half = batch["target"]
    return {**batch, "target": [finest, half, half[..., ::2, :]]}


def with_one_target(batch):
    """As the loader gives it without deep supervision."""
    return {**batch, "target": batch["target"][0]}


def plain_network(trainer, *, deep_supervision=True):
    """A new network of the stock trainer, as prediction builds it."""
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        enable_deep_supervision=deep_supervision,
    )


def copies(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def all_equal(first, second):
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def load(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=False)


def same_output(network, other, image):
    """Both networks' logits are the same bits, at every supervised resolution."""
    with torch.no_grad():
        outputs = zip(network.eval()(image), other.eval()(image), strict=True)
        return all(torch.equal(*pair) for pair in outputs)


def parameters_without_gradient(network):
    """Nothing but the coarsest head of nnU-Net's own deep supervision, whose weight is zero, may be here."""
    return {name for name, parameter in network.named_parameters() if parameter.grad is None}


UNSUPERVISED = {"plain.decoder.seg_layers.0.weight", "plain.decoder.seg_layers.0.bias"}


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
def test_features_themselves_are_compared_from_four_levels_up(make_trainer, random_batch, regions):
    shape = make_trainer("nnUNetTrainerDSD_FeatureL2", regions=regions, initialize=False)
    trainer = initialized(of_four_levels(shape))
    losses = [trainer.train_step(with_three_targets(random_batch(trainer, step)))["loss"] for step in range(2)]
    assert np.isfinite(losses).all()
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED
    assert sorted(trainer.network.distillation_heads["vectors"].heads) == ["level_1", "level_2"]


def test_features_of_three_levels_leave_no_student_and_are_refused(make_trainer):
    with pytest.raises(ValueError, match=r"at least 4 levels.*found 3\. Use nnUNetTrainerDSD, or raise n_stages"):
        make_trainer("nnUNetTrainerDSD_FeatureL2")


@pytest.mark.parametrize("part", [*PARTS, "DSD_FeatureL2"])
def test_parts_train_on_grids_whose_strides_differ_by_axis(make_trainer, random_batch, part):
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


# --- checkpoints ---


def test_a_checkpoint_holds_the_plain_network_and_loads_in_stock(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    saved = load(trainer, file.name)
    stock = plain_network(trainer)
    assert list(saved["network_weights"]) == list(make_trainer("nnUNetTrainer").network.state_dict())
    stock.load_state_dict(saved["network_weights"])
    assert same_output(stock, trainer.network, random_batch(trainer, 1)["data"])
    assert list(saved["nnunet_ext"]) == ["distillation_heads"]
    assert all_equal(saved["nnunet_ext"]["distillation_heads"], trainer.network.distillation_heads.state_dict())


@pytest.mark.parametrize("part", ["DSD", FULL, "DSD_BN"])
def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_trainer, run_epochs, part):
    name = f"nnUNetTrainer{part}_member0_9epochs"
    whole = make_trainer(name)
    run_epochs(whole, 4)

    stopped = make_trainer(name, save_every=2)
    run_epochs(stopped, 2)
    resumed = make_trainer(name, initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    heads = stopped.network.distillation_heads.state_dict()
    assert len(heads) > 0
    assert all_equal(resumed.network.distillation_heads.state_dict(), heads)
    run_epochs(resumed, 4)

    assert all_equal(resumed.network.state_dict(), whole.network.state_dict())
    final = (trainer.network.distillation_heads.state_dict() for trainer in (resumed, whole))
    assert all_equal(*final)
    momenta = [
        [state["momentum_buffer"] for state in trainer.optimizer.state_dict()["state"].values()]
        for trainer in (resumed, whole)
    ]
    assert all(torch.equal(*pair) for pair in zip(*momenta, strict=True))


def test_heads_and_their_momenta_are_not_lost_in_a_resume_of_feature_comparison(make_trainer, random_batch):
    trainer = initialized(of_four_levels(make_trainer("nnUNetTrainerDSD_FeatureL2", initialize=False)))
    trainer.train_step(with_three_targets(random_batch(trainer, 0)))
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    resumed = of_four_levels(trainer)
    resumed.load_checkpoint(str(file))
    resumed.network.train()
    heads = [each.network.distillation_heads.state_dict() for each in (trainer, resumed)]
    assert any(key.startswith("vectors") for key in heads[0])
    assert all_equal(*heads)
    batch = with_three_targets(random_batch(trainer, 1))
    assert resumed.train_step(batch)["loss"] == trainer.train_step(batch)["loss"]


def test_pretrained_weights_load_as_in_stock(make_trainer):
    stock, trainer = (make_trainer(f"nnUNetTrainer{part}_member{seed}") for part, seed in (("", 1), ("DSD", 2)))
    file = Path(stock.output_folder) / "pretrained.pth"
    stock.save_checkpoint(str(file))
    load_pretrained_weights(trainer.network, str(file))  # nnUNetv2_train -pretrained_weights; leaves seg_layers out
    given, found = stock.network.state_dict(), trainer.network.state_dict()
    loaded = {name for name, tensor in found.items() if torch.equal(tensor, given[name])}
    assert {name for name in found if ".seg_layers." not in name} <= loaded
    assert "decoder.seg_layers.0.weight" not in loaded


# --- with other parts ---


def test_with_ema_the_average_is_a_plain_network(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerDSD_EMA_3epochs")
    run_epochs(trainer, 3)
    trainer.on_train_end()
    plain_network(trainer).load_state_dict(load(trainer, "checkpoint_ema.pth")["network_weights"])
    assert sorted(load(trainer, "checkpoint_final.pth")["nnunet_ext"]) == ["distillation_heads", "ema"]


def test_with_swa_the_average_is_a_plain_network(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerDSD_SWA_4epochs")
    run_epochs(trainer, 4)
    trainer.on_train_end()
    plain_network(trainer).load_state_dict(load(trainer, "checkpoint_swa.pth")["network_weights"])


def test_with_cyclical_the_samples_are_plain_networks(make_trainer, run_epochs, checkpoint_files):
    # One cycle of five epochs, whose plateau begins at 0.8 * 5 = 4: one sample, at epoch 4
    trainer = make_trainer("nnUNetTrainerDSD_Cyclical1_5epochs")
    run_epochs(trainer, 5)
    trainer.on_train_end()
    assert "checkpoint_c0_e0004.pth" in checkpoint_files(trainer)
    for name in ("checkpoint_c0_e0004.pth", "checkpoint_swa.pth", "checkpoint_final.pth"):
        plain_network(trainer).load_state_dict(load(trainer, name)["network_weights"])
    posterior = load(trainer, "checkpoint_posterior.pth")
    assert posterior["trainer_name"] == "nnUNetTrainer_posterior1"  # predicts without the heads


@pytest.mark.parametrize("part", ["DSD", FULL, "DS"])
def test_without_deep_supervision(make_trainer, random_batch, part):
    trainer = make_trainer(f"nnUNetTrainer{part}_NoDeepSupervision")
    trainer.network.train()
    batch = with_one_target(random_batch(trainer, 0))
    output = trainer.network(batch["data"])
    assert isinstance(output, DistillationOutput)
    assert output.segmentation.shape == (2, 3, 32, 32)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


def test_without_deep_supervision_and_terms_it_is_stock_exactly(make_trainer, random_batch):
    ours = make_trainer("nnUNetTrainerDSD_NoDeepSupervision_member3", **NO_TERMS)
    stock = make_trainer("nnUNetTrainerNoDeepSupervision_member3")
    losses = [t.train_step(with_one_target(random_batch(t, 0)))["loss"] for t in (ours, stock)]
    assert losses[0] == losses[1]


def test_with_batch_norm_the_running_statistics_are_the_plain_networks(make_trainer, random_batch):
    # The features pass each normalisation once a step, whatever reads them
    trainer = make_trainer("nnUNetTrainerDSD_BN")
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    counters = [value for key, value in trainer.network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert len(counters) > 0
    assert {int(counter) for counter in counters} == {1}


@pytest.mark.parametrize("others", ["DSD_SDD", "SDE_DS"])
def test_two_kinds_of_self_distillation_are_refused_with_the_reason(others):
    with pytest.raises(TrainerNameError) as error:
        trainer_class(f"nnUNetTrainer{others}")
    message = str(error.value)
    assert f"nnUNetTrainer{others} cannot be built" in message
    assert "both set what the network returns in training. Leave one out" in message
    assert all(word in message for word in others.split("_"))


# --- detached teachers ---


@pytest.mark.parametrize(
    ("part", "attributes", "untaught"),
    [
        # Three levels: the encoder's teacher is E_1, the decoder's D_1; reversed E_0 and D_2.
        ("DSD", {"shared_heads": False}, "encoder_1"),
        ("SDE", {"shared_heads": False}, "encoder_1"),
        (REVERSED, {}, "level_0"),
        (REVERSED, {"shared_heads": False}, "encoder_0"),
        ("SDE", {"supervision_weight": 0.0}, "level_1"),
        ("SDD", {"supervision_weight": 0.0}, "level_1"),
        ("SDD", {"supervision_weight": 0.0, "shared_heads": False}, "decoder_1"),
        ("DSD", {"supervision_weight": 0.0, "shared_heads": False}, "encoder_1, decoder_1"),
        ("DSD", {"supervision_weight": 0.0}, "level_1"),  # the head of both, named once
    ],
)
def test_a_detached_teacher_whose_head_nothing_trains_is_refused(make_trainer, part, attributes, untaught):
    with pytest.raises(
        ValueError, match=rf"trains its head; found none for {untaught}\. Set.*detach_teacher = False"
    ):
        make_trainer(f"nnUNetTrainer{part}", detach_teacher=True, **attributes)


TAUGHT = [
    ("DSD", {}),
    ("SDD", {}),
    ("SDD", {"shared_heads": False}),
    ("SDE", {}),
    (FULL, {}),
    (AVERAGED, {}),
    (AVERAGED, {"shared_heads": False, "supervision_weight": 0.0}),
]


@pytest.mark.parametrize(("part", "attributes"), TAUGHT)
def test_other_detached_teachers_have_heads_that_learn(make_trainer, random_batch, part, attributes):
    trainer = make_trainer(f"nnUNetTrainer{part}", detach_teacher=True, **attributes)
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED


def detached_with_vectors(make_trainer, **attributes):
    """DSD_FeatureL2 of four levels whose teachers are detached, not initialized."""
    trainer = of_four_levels(make_trainer("nnUNetTrainerDSD_FeatureL2", initialize=False))
    for attribute, value in {"detach_teacher": True, **attributes}.items():
        setattr(trainer, attribute, value)
    return trainer


@pytest.mark.parametrize("attributes", [{}, {"teacher": "mean"}])
def test_shared_heads_of_detached_vectors_learn_on_the_other_side(make_trainer, random_batch, attributes):
    # E_2 teaches with the head that D_2 learns with, and D_1 with that of E_1
    trainer = initialized(detached_with_vectors(make_trainer, **attributes))
    trainer.train_step(with_three_targets(random_batch(trainer, 0)))
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED


@pytest.mark.parametrize("attributes", [{"encoder_weight": 0.0}, {"teacher": "mean"}])
def test_separate_heads_of_detached_vectors_are_refused(make_trainer, attributes):
    # Only E_2's own vector head and that of D_1 learn nothing; the heads of logits all do
    trainer = detached_with_vectors(make_trainer, shared_heads=False, **attributes)
    with pytest.raises(ValueError, match="A detached teacher needs another term of the loss that trains its head"):
        initialized(trainer)


@pytest.mark.parametrize("detach", [False, True])
def test_the_divergences_gradient_reaches_the_teacher_unless_it_is_detached(make_trainer, random_batch, detach):
    trainer = make_trainer("nnUNetTrainerDSD", detach_teacher=detach)
    output = trainer.network.train()(random_batch(trainer, 0)["data"])
    for levels, teacher in ((output.encoder_logits, -1), (output.decoder_logits, 0)):
        divergence = trainer.loss.divergence(levels, teacher=teacher)
        of_teacher, of_student = torch.autograd.grad(
            divergence, (levels[teacher], levels[-1 - teacher]), allow_unused=True
        )
        assert of_student.abs().sum() > 0
        assert (of_teacher is None) if detach else (of_teacher.abs().sum() > 0)


# --- the ignore label ---

IGNORE_LABELS = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
IGNORE_REGIONS = {"background": 0, "organ": [1, 2], "lesion": [2], "ignore": 3}


def with_ignored_half(batch, *, regions):
    """The upper half of each image is not annotated."""
    finest = batch["target"][0].clone()
    if regions:
        finest = torch.cat([finest, torch.zeros_like(finest[:, :1])], dim=1)  # nnU-Net appends the ignored voxels
        finest[:, -1, :16] = 1
    else:
        finest[:, :, :16] = 3
    return {**batch, "target": [finest, finest[..., ::2, ::2]]}


def trainer_with_ignore_label(make_trainer, part, *, regions):
    trainer = make_trainer(f"nnUNetTrainer{part}", regions=regions, initialize=False)
    return initialized(dataset_like(trainer, labels=IGNORE_REGIONS if regions else IGNORE_LABELS))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("regions", [False, True])
def test_a_dataset_with_an_ignore_label_trains_and_validates(make_trainer, random_batch, part, regions):
    trainer = trainer_with_ignore_label(make_trainer, part, regions=regions)
    assert trainer.label_manager.has_ignore_label
    batch = with_ignored_half(random_batch(trainer, 0), regions=regions)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


@pytest.mark.parametrize("part", ["DSD", FULL])
@pytest.mark.parametrize("regions", [False, True])
def test_supervision_of_the_levels_does_not_look_at_ignored_voxels(make_trainer, random_batch, part, regions):
    # The upper half of every grid: 32 rows of the image, 16 of D_1, 8 of the bottleneck
    trainer = trainer_with_ignore_label(make_trainer, part, regions=regions)
    batch = with_ignored_half(random_batch(trainer, 0), regions=regions)
    levels = trainer.network(batch["data"]).decoder_logits
    loss = trainer.loss.supervision(levels, batch["target"][0])
    for gradient in torch.autograd.grad(loss, levels):
        rows = gradient.shape[2] // 2
        assert gradient[:, :, :rows].abs().sum() == 0
        assert gradient[:, :, rows:].abs().sum() > 0


def test_all_voxels_ignored_leave_only_the_distillation(make_trainer, random_batch):
    trainer = trainer_with_ignore_label(make_trainer, "DSD", regions=False)
    batch = random_batch(trainer, 0)
    batch["target"] = [torch.full_like(target, 3) for target in batch["target"]]
    loss = trainer.loss(trainer.network(batch["data"]), batch["target"])
    assert loss.isfinite()
    loss.backward()
    gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


# --- the features ---


def test_heads_read_the_features_that_the_plain_network_computes(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    image = random_batch(trainer, 0)["data"]
    output = trainer.network.train()(image)
    encoder, decoder, _ = tap_features(trainer.plain_network, image)
    heads = trainer.network.distillation_heads["segmentation"].heads
    assert torch.equal(output.encoder_logits[1], heads["level_1"](encoder[1]))
    assert torch.equal(output.decoder_logits[0], heads["level_1"](decoder[1]))
    assert torch.equal(output.decoder_logits[1], heads["level_2"](encoder[2]))  # the bottleneck
