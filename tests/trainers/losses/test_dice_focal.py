"""Dice plus focal loss in a trainer: values by hand, with nnU-Net's deep supervision and with other parts."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_ext.losses.dice_focal import DiceFocalLoss
from nnunet_ext.losses.self_distillation import distillation_kl
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

# Logits of zero, three classes, all voxels background. p = 1/3 everywhere.
#   Dice of the background: 2 (1/3) / (1/9 + 1) = 0.6; of the two others 0. Loss (0.4 + 1 + 1) / 3 = 0.8
#   without the factor 2: 0.3 instead of 0.6, so (0.7 + 1 + 1) / 3 = 0.9
#   focal: 0.2 (2/3)^2 ln 3 / 3 classes = 0.0325511, times 10
DICE, DICE_PAPER = 0.8, 0.9
FOCAL = 0.0325511
# Two regions, no voxel in either. p = 1/2.
#   Dice 0 for both: loss 1
#   focal: (1 - alpha) (1/2)^2 ln 2 = 0.1732868 (1 - alpha)
NEGATIVE_FOCAL = 0.1732868


def zeros(outputs):
    """Logits at both supervised resolutions."""
    return [torch.zeros(2, outputs, 32, 32), torch.zeros(2, outputs, 16, 16)]


def background(channels=1):
    return zeros(channels)


def loss_of_zeros(trainer):
    """The trainer's loss of the example above."""
    regions = trainer.label_manager.has_regions
    outputs = trainer.label_manager.num_segmentation_heads
    return float(trainer.loss(zeros(outputs), background(outputs if regions else 1)))


def like(trainer, *, labels=None, **plans_entries):
    """A trainer of the same kind, initialized, for another dataset or plans with further entries."""
    given = deepcopy(trainer.my_init_kwargs)
    given["plans"] |= {"continue_training": False, **plans_entries}  # the constructor takes the first one out
    if labels:
        given["dataset_json"]["labels"] = labels
    other = type(trainer)(**given)
    other.initialize()
    other.network.train()
    return other


# --- the numbers ---


def test_classes_by_hand(make_trainer):
    assert loss_of_zeros(make_trainer("nnUNetTrainerDiceFocal")) == pytest.approx(DICE + 10 * FOCAL, abs=2e-5)


def test_the_released_codes_form_by_hand(make_trainer):
    expected = DICE_PAPER + 10 * FOCAL
    assert loss_of_zeros(make_trainer("nnUNetTrainerDiceFocalPaper")) == pytest.approx(expected, abs=2e-5)


def test_negative_voxels_of_regions_count_as_much_as_positive_ones(make_trainer):
    # alpha = 1 - alpha = 0.5
    trainer = make_trainer("nnUNetTrainerDiceFocal", regions=True)
    assert loss_of_zeros(trainer) == pytest.approx(1 + 10 * 0.5 * NEGATIVE_FOCAL, abs=2e-5)


def test_alpha_can_be_set_for_regions_and_for_classes(make_trainer):
    regions = make_trainer("nnUNetTrainerDiceFocal", regions=True, focal_alpha=0.2)
    assert loss_of_zeros(regions) == pytest.approx(1 + 10 * 0.8 * NEGATIVE_FOCAL, abs=2e-5)
    classes = make_trainer("nnUNetTrainerDiceFocal", focal_alpha=0.4)  # twice 0.2
    assert loss_of_zeros(classes) == pytest.approx(DICE + 20 * FOCAL, abs=2e-5)


def test_weights_of_the_terms_and_the_exponent_can_be_set(make_trainer):
    # gamma = 0: 0.2 ln 3 / 3 = 0.0732408
    trainer = make_trainer("nnUNetTrainerDiceFocal", dice_weight=3.0, focal_weight=2.0, focal_gamma=0.0)
    assert loss_of_zeros(trainer) == pytest.approx(3 * DICE + 2 * 0.0732408, abs=2e-5)


@pytest.mark.parametrize("weights", [{"organ": 2.0}, {1: 2.0}])
def test_classes_are_weighted_by_name_or_by_label(make_trainer, weights):
    # "organ" is label 1. Proper: (0.4 + 2 * 1 + 1) / 4 = 0.85; the code's: (0.7 + 2 * 1 + 1) / 3 = 1.2333333
    proper = make_trainer("nnUNetTrainerDiceFocal", class_weight_by_label=weights)
    assert loss_of_zeros(proper) == pytest.approx(0.85 + 10 * FOCAL, abs=2e-5)
    paper = make_trainer("nnUNetTrainerDiceFocalPaper", class_weight_by_label=weights)
    assert loss_of_zeros(paper) == pytest.approx(1.2333333 + 10 * FOCAL, abs=2e-5)


def test_a_class_that_the_dataset_lacks_is_refused(make_trainer):
    with pytest.raises(ValueError, match=r'found "liver"\. Known are: .*organ \(1\)'):
        make_trainer("nnUNetTrainerDiceFocal", class_weight_by_label={"liver": 2.0})


def test_a_perfect_prediction_has_no_loss_but_half_per_class_in_the_codes_form(make_trainer):
    target = torch.arange(3).repeat(2, 1, 32, 11)[..., :32].float()  # all three classes, (2, 1, 32, 32)
    logits = 40 * torch.stack([(target[:, 0] == label).float() for label in range(3)], dim=1)
    both = [logits, logits[..., ::2, ::2]], [target, target[..., ::2, ::2]]
    assert float(make_trainer("nnUNetTrainerDiceFocal").loss(*both)) == pytest.approx(0, abs=1e-4)
    assert float(make_trainer("nnUNetTrainerDiceFocalPaper").loss(*both)) == pytest.approx(0.5, abs=1e-4)


# --- around it ---


def test_outputs_are_weighted_as_in_stock(make_trainer):
    stock, ours = (make_trainer(f"nnUNetTrainer{part}").loss for part in ("", "DiceFocal"))
    assert isinstance(ours, DeepSupervisionWrapper)
    assert ours.weight_factors == stock.weight_factors == (1.0, 0.0)  # 1 and 1/2, of which nnU-Net drops the last


def test_without_deep_supervision_the_loss_is_of_one_output(make_trainer):
    loss = make_trainer("nnUNetTrainerDiceFocal_NoDeepSupervision").loss
    assert isinstance(loss, DiceFocalLoss)
    assert float(loss(zeros(3)[0], background()[0])) == pytest.approx(DICE + 10 * FOCAL, abs=2e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_have_no_gradient(make_trainer, random_batch, regions):
    shape = make_trainer("nnUNetTrainerDiceFocal", regions=regions)
    trainer = like(shape, labels={**shape.dataset_json["labels"], "ignore": 3})
    targets = random_batch(trainer, 0)["target"]
    if regions:  # nnU-Net marks ignored voxels in a channel behind those of the regions
        targets = [torch.cat([target, torch.zeros_like(target[:, :1])], dim=1) for target in targets]
    for target in targets:
        target[:, -1:, : target.shape[2] // 2] = 1 if regions else 3
    logits = [tensor.requires_grad_() for tensor in zeros(trainer.label_manager.num_segmentation_heads)]
    (gradient,) = torch.autograd.grad(trainer.loss(logits, targets), logits[:1])
    assert gradient[:, :, :16].abs().sum() == 0
    assert gradient[:, :, 16:].abs().min() > 0


@pytest.mark.parametrize("part", ["DiceFocal", "DiceFocalPaper"])
@pytest.mark.parametrize("regions", [False, True])
def test_a_training_step_lowers_the_loss_of_its_batch(make_trainer, random_batch, part, regions):
    trainer = make_trainer(f"nnUNetTrainer{part}_member1", regions=regions)
    trainer.network.train()
    losses = [float(trainer.train_step(random_batch(trainer, 0))["loss"]) for _ in range(4)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


# --- with other parts ---


def test_self_distillation_supervises_its_heads_by_it(make_trainer, random_batch):
    # L + 1/2 (L(D_1) + L(D_2)) + KL(E_1 || E_0) + KL(D_1 || D_2) of three levels, L of one output is Dice plus focal
    trainer = make_trainer("nnUNetTrainerDSD_DiceFocal")
    loss = make_trainer("nnUNetTrainerDiceFocal").loss
    batch = random_batch(trainer, 0)
    finest = batch["target"][0]
    output = trainer.network.train()(batch["data"])
    (e0, e1), (d1, d2) = output.encoder_logits, output.decoder_logits
    supervision = (loss.loss(d1, finest[..., 1::2, 1::2]) + loss.loss(d2, finest[..., 2::4, 2::4])) / 2
    expected = loss(output.segmentation, batch["target"]) + supervision + distillation_kl(e0, e1)
    torch.testing.assert_close(trainer.loss(output, batch["target"]), expected + distillation_kl(d2, d1))


@pytest.mark.parametrize("regions", [False, True])
def test_streaming_trains_slabs_with_it(make_trainer, regions):
    shape = make_trainer("nnUNetTrainerStreaming_DiceFocal", initialize=False, regions=regions)
    trainer = like(shape, original_median_shape_after_transp=[4, 32, 32])
    generator = torch.Generator().manual_seed(0)
    channels = 2 if regions else 1
    target = torch.randint(2, (1, channels, 4, 32, 32), generator=generator).float()
    batch = {"data": torch.randn((1, 1, 4, 32, 32), generator=generator), "target": [target, target[..., ::2, ::2]]}
    assert np.isfinite(float(trainer.train_step(batch)["loss"]))
    assert all(p.grad is not None for p in trainer.network.classifiers[1].encoder.parameters())


def test_cyclical_trains_with_it(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerCyclical_DiceFocal_3epochs")
    run_epochs(trainer, 2)
    assert isinstance(trainer.loss.loss, DiceFocalLoss)
    assert np.isfinite(trainer.logger.get_value("train_losses", step=-1))


@pytest.mark.parametrize("other", ["DiceFocalPaper", "CELoss", "Topk10Loss"])
def test_two_losses_are_refused(other):
    with pytest.raises(TrainerNameError, match=r"Leave one out"):
        trainer_class(f"nnUNetTrainerDiceFocal_{other}")
