"""Teachers whose gradient is stopped: refused where nothing else trains their head."""

import pytest
import torch

FULL, AVERAGED, REVERSED = "DSD_FullResolution", "DSD_AveragedTeacher", "DSD_ReversedTeacher"
UNSUPERVISED = {"plain.decoder.seg_layers.0.weight", "plain.decoder.seg_layers.0.bias"}


def parameters_without_gradient(network):
    """Nothing but the coarsest head of nnU-Net's own deep supervision, whose weight is zero, may be here."""
    return {name for name, parameter in network.named_parameters() if parameter.grad is None}


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


@pytest.fixture
def detached_with_vectors(make_trainer, of_four_levels):
    """`detached_with_vectors(**attributes)`: DSD_FeatureL2 of four levels with detached teachers, not initialized."""

    def make(**attributes):
        trainer = of_four_levels(make_trainer("nnUNetTrainerDSD_FeatureL2", initialize=False))
        for attribute, value in {"detach_teacher": True, **attributes}.items():
            setattr(trainer, attribute, value)
        return trainer

    return make


@pytest.mark.parametrize("attributes", [{}, {"teacher": "mean"}])
def test_shared_heads_of_detached_vectors_learn_on_the_other_side(
    detached_with_vectors, random_batch, attributes, with_three_targets, initialized
):
    # E_2 teaches with the head that D_2 learns with, and D_1 with that of E_1
    trainer = initialized(detached_with_vectors(**attributes))
    trainer.train_step(with_three_targets(random_batch(trainer, 0)))
    assert parameters_without_gradient(trainer.network) == UNSUPERVISED


@pytest.mark.parametrize("attributes", [{"encoder_weight": 0.0}, {"teacher": "mean"}])
def test_separate_heads_of_detached_vectors_are_refused(detached_with_vectors, attributes, initialized):
    # Only E_2's own vector head and that of D_1 learn nothing; the heads of logits all do
    trainer = detached_with_vectors(shared_heads=False, **attributes)
    with pytest.raises(ValueError, match="A detached teacher needs another term of the loss that trains its head"):
        initialized(trainer)


@pytest.mark.parametrize("detach", [False, True])
def test_the_divergences_gradient_reaches_the_teacher_unless_it_is_detached(make_trainer, random_batch, detach):
    trainer = make_trainer(f"nnUNetTrainerDSD{'_DetachedTeacher' * detach}")
    output = trainer.network.train()(random_batch(trainer, 0)["data"])
    for levels, teacher in ((output.encoder_logits, -1), (output.decoder_logits, 0)):
        divergence = trainer.loss.divergence(levels, teacher=teacher)
        of_teacher, of_student = torch.autograd.grad(
            divergence, (levels[teacher], levels[-1 - teacher]), allow_unused=True
        )
        assert of_student.abs().sum() > 0
        assert (of_teacher is None) if detach else (of_teacher.abs().sum() > 0)
