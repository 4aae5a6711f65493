"""Every row of the self-distillation paper's ablation tables has a name, and that name the row's terms."""

import pytest
import torch

from nnunet_ext.losses.self_distillation import distillation_kl, mean_teacher_kl

# name: eta, alpha, beta, T, teacher, weight of the feature vectors, grid of the heads
ABLATIONS = {
    "DS": (1, 0, 0, 3, "deep", 0, "native"),
    "SDD": (1, 0, 1, 3, "deep", 0, "native"),
    "SDE": (1, 1, 0, 3, "deep", 0, "native"),
    "DSD": (1, 1, 1, 3, "deep", 0, "native"),
    "DS_FullResolution": (1, 0, 0, 3, "deep", 0, "full"),
    "SDD_FullResolution": (1, 0, 1, 3, "deep", 0, "full"),
    "SDE_FullResolution": (1, 1, 0, 3, "deep", 0, "full"),
    "DSD_FullResolution": (1, 1, 1, 3, "deep", 0, "full"),
    "DSD_FullResolution_Temperature1": (1, 1, 1, 1, "deep", 0, "full"),
    "DSD_FullResolution_Temperature2": (1, 1, 1, 2, "deep", 0, "full"),
    "DSD_FullResolution_Temperature4": (1, 1, 1, 4, "deep", 0, "full"),
    "DSD_FullResolution_AveragedTeacher": (1, 1, 1, 3, "mean", 0, "full"),
    "DSD_FullResolution_ReversedTeacher": (1, 1, 1, 3, "reversed", 0, "full"),
    "DSD_FullResolution_FeatureL2": (1, 1, 1, 3, "deep", 1e-4, "full"),
}


@pytest.mark.parametrize("summed", ["", "_SumSupervision"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_a_row_of_the_ablations_has_its_terms(make_trainer, name, summed):
    trainer = make_trainer(f"nnUNetTrainer{name}{summed}_NoDeepSupervision", initialize=False)
    terms = trainer.terms
    found = (terms.supervision, terms.encoder, terms.decoder, terms.temperature, terms.teacher, terms.vectors)
    assert (*found, trainer.distillation_resolution) == ABLATIONS[name]
    assert terms.mean_supervision is (summed == "")


def test_supervision_of_three_levels_is_summed_over_two_heads(make_trainer, random_batch):
    # D_1 and the bottleneck D_2: the mean is half of the sum
    batch, losses = None, []
    for part in ("DS", "DS_SumSupervision"):
        trainer = make_trainer(f"nnUNetTrainer{part}_member0")
        batch = batch or random_batch(trainer, 0)
        levels = trainer.network.train()(batch["data"]).decoder_logits
        losses.append(trainer.loss.supervision(levels, batch["target"][0]))
    torch.testing.assert_close(losses[1], 2 * losses[0])


def test_the_temperature_of_the_name_softens_the_divergence(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerSDE_Temperature2")
    e0, e1 = trainer.network.train()(random_batch(trainer, 0)["data"]).encoder_logits
    divergence = trainer.loss.divergence([e0, e1], teacher=-1)
    torch.testing.assert_close(divergence, distillation_kl(e0, e1, temperature=2.0))
    assert not torch.isclose(divergence, distillation_kl(e0, e1, temperature=3.0))


def test_several_forms_of_the_paper_combine(make_trainer, random_batch):
    # the mean of both levels of the encoder, softened by 4, on the image's grid
    trainer = make_trainer("nnUNetTrainerSDE_AveragedTeacher_Temperature4_FullResolution")
    logits = trainer.network.train()(random_batch(trainer, 0)["data"]).encoder_logits
    assert [tuple(level.shape[2:]) for level in logits] == [(32, 32), (32, 32)]
    expected = sum(mean_teacher_kl(level, logits, temperature=4.0) for level in logits)
    torch.testing.assert_close(trainer.loss.divergence(logits, teacher=-1), expected)
