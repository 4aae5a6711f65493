"""Self-distillation of datasets with an ignore label."""

import numpy as np
import pytest
import torch

FULL, AVERAGED, REVERSED = "DSD_FullResolution", "DSD_AveragedTeacher", "DSD_ReversedTeacher"
PARTS = ["DSD", "SDD", "SDE", "DS", FULL, AVERAGED, REVERSED]
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


@pytest.fixture
def trainer_with_ignore_label(make_trainer, dataset_like, initialized):
    """`trainer_with_ignore_label(part, regions=...)`: ready for a step."""

    def make(part, *, regions):
        trainer = make_trainer(f"nnUNetTrainer{part}", regions=regions, initialize=False)
        return initialized(dataset_like(trainer, labels=IGNORE_REGIONS if regions else IGNORE_LABELS))

    return make


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("regions", [False, True])
def test_a_dataset_with_an_ignore_label_trains_and_validates(trainer_with_ignore_label, random_batch, part, regions):
    trainer = trainer_with_ignore_label(part, regions=regions)
    assert trainer.label_manager.has_ignore_label
    batch = with_ignored_half(random_batch(trainer, 0), regions=regions)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


@pytest.mark.parametrize("part", ["DSD", FULL])
@pytest.mark.parametrize("regions", [False, True])
def test_supervision_of_the_levels_does_not_look_at_ignored_voxels(
    trainer_with_ignore_label, random_batch, part, regions
):
    # The upper half of every grid: 32 rows of the image, 16 of D_1, 8 of the bottleneck
    trainer = trainer_with_ignore_label(part, regions=regions)
    batch = with_ignored_half(random_batch(trainer, 0), regions=regions)
    levels = trainer.network(batch["data"]).decoder_logits
    loss = trainer.loss.supervision(levels, batch["target"][0])
    for gradient in torch.autograd.grad(loss, levels):
        rows = gradient.shape[2] // 2
        assert gradient[:, :, :rows].abs().sum() == 0
        assert gradient[:, :, rows:].abs().sum() > 0


def test_all_voxels_ignored_leave_only_the_distillation(trainer_with_ignore_label, random_batch):
    trainer = trainer_with_ignore_label("DSD", regions=False)
    batch = random_batch(trainer, 0)
    batch["target"] = [torch.full_like(target, 3) for target in batch["target"]]
    loss = trainer.loss(trainer.network(batch["data"]), batch["target"])
    assert loss.isfinite()
    loss.backward()
    gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
