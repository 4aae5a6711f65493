"""What holds for every pre-training: nnU-Net's optimizer, gradients, plain checkpoints, resuming, refusals."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from PIL import Image
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.weight_transfer import transfer_weights
from nnunet_ext.files.checkpoints import CANNOT_SEGMENT_KEY, EXTRA_STATE_KEY, load_checkpoint
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

WORDS = ("MAE", "S3D", "ModelsGenesis", "VolumeFusion", "VoCo")
NAMES = [f"nnUNetTrainer{word}" for word in WORDS]
EVERY = pytest.mark.parametrize("name", NAMES)
DRAWING = pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("nnUNetTrainerMAE", "explained variance"),
        ("nnUNetTrainerS3D", "explained variance"),
        ("nnUNetTrainerModelsGenesis", "explained variance"),
        ("nnUNetTrainerVolumeFusion", "accuracy"),
    ],
)


@EVERY
def test_nnunets_optimizer_and_schedule_train_it(make_trainer, name):
    trainer = make_trainer(name)
    group = trainer.optimizer.param_groups[0]
    assert (trainer.num_epochs, group["momentum"], group["nesterov"]) == (1000, 0.99, True)
    trainer.lr_scheduler.step(500)
    assert group["lr"] == pytest.approx(1e-2 * 0.5**0.9)


@EVERY
def test_what_a_stock_variant_sets_stays(make_trainer, name):
    def rate_and_length(words):
        trainer = make_trainer(f"{name}_{words}", initialize=False)
        return trainer.initial_lr, trainer.num_epochs

    assert rate_and_length("Adam3en4") == (3e-4, 1000)
    assert rate_and_length("1epoch") == (1e-2, 1)
    assert rate_and_length("Adam3en4_1epoch") == (3e-4, 1)
    assert rate_and_length("BN") == (1e-2, 1000)  # a variant that sets neither


def test_what_a_stock_variant_sets_stays_with_a_preset(make_trainer):
    assert make_trainer("nnUNetTrainerS3D_PresetL_Adam3en4", initialize=False).initial_lr == 3e-4
    assert make_trainer("nnUNetTrainerS3D_PresetL_1epoch", initialize=False).num_epochs == 1


@EVERY
def test_a_trainer_of_ones_own_sets_rate_and_length(make_trainer_of, name):
    class nnUNetTrainerMine(trainer_class(f"{name}_Adam3en4")):
        def set_hyperparameters(self):
            super().set_hyperparameters()
            self.initial_lr, self.num_epochs = 5e-3, 30

    trainer = make_trainer_of(nnUNetTrainerMine, initialize=False)
    assert (trainer.initial_lr, trainer.num_epochs) == (5e-3, 30)


@EVERY
def test_every_weight_that_is_trained_gets_a_gradient(make_trainer, batch_of, tmp_path, name):
    """Otherwise DistributedDataParallel fails in the second iteration."""
    trainer = make_trainer(name)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        trainer.network = DistributedDataParallel(trainer.network)
        for seed in range(3):
            assert np.isfinite(trainer.train_step(batch_of(seed))["loss"])
    finally:
        distributed.destroy_process_group()


@EVERY
def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(train, file_of, name):
    whole = train(f"{name}_3epochs")
    weights = {name: value.clone() for name, value in whole.network.named_parameters()}
    losses = whole.logger.get_value("val_losses", step=None)
    stopped = train(f"{name}_3epochs", stop_in_epoch=2)
    resumed = train(f"{name}_3epochs", start_from=file_of(stopped, "checkpoint_latest.pth"))
    assert all(torch.equal(value, weights[name]) for name, value in resumed.network.named_parameters())
    assert resumed.logger.get_value("val_losses", step=None) == losses


@EVERY
def test_checkpoints_hold_the_plain_network_and_say_that_it_cannot_segment(
    train, make_trainer, batch_of, file_of, name
):
    trainer = train(f"{name}_1epochs")
    checkpoint = load_checkpoint(file_of(trainer, "checkpoint_final.pth"))
    stock = make_trainer("nnUNetTrainer")
    assert checkpoint["network_weights"].keys() == stock.network.state_dict().keys()
    assert checkpoint["trainer_name"] == f"{name}_1epochs"
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert checkpoint["init_args"]["plans"]["plans_name"] == "nnUNetPlans"
    assert checkpoint[EXTRA_STATE_KEY][CANNOT_SEGMENT_KEY]
    stock.network.encoder.load_state_dict(  # strict
        {
            key.removeprefix("encoder."): value
            for key, value in checkpoint["network_weights"].items()
            if key.startswith("encoder.")
        }
    )
    load_pretrained_weights(stock.network, str(file_of(trainer, "checkpoint_best.pth")))
    image = batch_of()["data"]
    for pretrained, started in zip(trainer.plain_network.encoder(image), stock.network.encoder(image), strict=True):
        torch.testing.assert_close(pretrained, started, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES[:3])  # the others reconstruct nothing
def test_regions_removed_for_anonymity_are_not_part_of_the_loss(make_trainer, batch_of, name):
    trainer = make_trainer(name)
    labels = torch.zeros(2, 1, 32, 32)
    labels[:, :, :16], labels[:, :, 16:20] = 1, -1  # removed; around the image
    batch = {**batch_of(), "target": labels}
    outputs = torch.randn(2, 1, 32, 32)
    wrong_where_removed = torch.where(labels > 0, 50.0, outputs)
    for is_marked in (True, False):
        if is_marked:  # without the mark the labels are organs
            trainer.dataset_json["nnunet_ext_removed_regions"] = True
        else:
            del trainer.dataset_json["nnunet_ext_removed_regions"]
        _, targets = trainer.inputs_and_targets(batch)
        losses = [float(trainer.training_loss(each, targets)) for each in (outputs, wrong_where_removed)]
        assert (losses[0] == losses[1]) == is_marked


@pytest.fixture
def one_voxel_annotated(make_trainer, preprocessed_cases):
    """`one_voxel_annotated(name)`: a trainer on two images of 3 slices; labels are "ignore" but for one voxel.

    The voxel at (z, y, x) has the intensity 10000 z + 100 y + x.
    """

    def make(name):
        given = deepcopy(make_trainer(name, initialize=False).my_init_kwargs)
        given["plans"]["continue_training"] = False  # the constructor has taken it out
        given["dataset_json"]["labels"] = {**given["dataset_json"]["labels"], "ignore": 3}
        trainer = trainer_class(name)(**given)
        preprocessed_cases(trainer)
        folder = Path(trainer.preprocessed_dataset_folder)
        for file in folder.glob("case*"):
            file.unlink()
        z, y, x = np.indices((1, 3, 40, 40), dtype=np.float32)[1:]
        labels = np.full((1, 3, 40, 40), 3, dtype=np.int8)
        labels[0, 1, 20, 20] = 0
        annotated = {"class_locations": {1: [], 2: [], (-1, 0, 1, 2): np.argwhere(labels < 3)}}
        blocks = {"chunks": labels.shape, "blocks": labels.shape}
        for case in ("case1", "case2"):
            image = 10000 * z + 100 * y + x
            nnUNetDatasetBlosc2.save_case(image, labels, annotated, str(folder / case), **blocks)
        trainer.initialize()
        return trainer

    return make


@EVERY
def test_patches_are_from_anywhere_if_a_label_is_to_be_ignored(one_voxel_annotated, name):
    """Around the annotated voxel there is one position of 3 * 9 * 9: patches of 32 * 32 in slices of 40 * 40."""
    _, batches = one_voxel_annotated(name).get_dataloaders()  # validation: not rotated
    drawn = np.concatenate([next(batches)["data"][:, 0, 0, 0].numpy() for _ in range(100)]).astype(int)
    assert {*(drawn // 10000)} == {0, 1, 2}
    assert {*(drawn // 100 % 100)} == {*(drawn % 100)} == {*range(9)}


def test_training_patches_are_from_any_slice_if_a_label_is_to_be_ignored(one_voxel_annotated):
    batches, _ = one_voxel_annotated("nnUNetTrainerMAE").get_dataloaders()
    centres = np.concatenate([next(batches)["data"][:, 0, 16, 16].numpy() for _ in range(50)])
    assert {*np.round(centres / 10000).astype(int)} == {0, 1, 2}


@EVERY
def test_finetune_reads_encoder_and_decoder(make_trainer, name):
    weights = make_trainer(name).network.state_dict()
    segmenting = make_trainer("nnUNetTrainer").network
    report = transfer_weights(segmenting, weights, with_decoder=True)
    assert not report.adapted
    assert not report.left
    assert torch.equal(segmenting.decoder.transpconvs[0].weight, weights["decoder.transpconvs.0.weight"])


@DRAWING
def test_it_logs_and_draws_what_it_learns(train, file_of, name, curve):
    trainer = train(f"{name}_4epochs")
    figures = trainer.logger.get_value(f"validation {curve}", step=None)
    assert len(figures) == 4
    assert max(figures) < 1
    pictures = sorted(path.name for path in file_of(trainer, "reconstructions").iterdir())
    assert pictures == ["epoch_0000.png", "epoch_0002.png", "epoch_0003.png"]  # every second, and the last
    with Image.open(file_of(trainer, "reconstructions") / pictures[0]) as picture:
        assert picture.width >= 3 * 160


@EVERY
def test_a_cascades_second_stage_is_refused(make_trainer, name):
    trainer = make_trainer(name, initialize=False)
    trainer.is_cascaded = True
    with pytest.raises(ValueError, match="cascade"):
        trainer.as_pretrained(make_trainer("nnUNetTrainer").network)


@EVERY
@pytest.mark.parametrize("other", ["DSD", "DiceFocal", "DeepLab", "ACE", "CarveMix", "DA5"])
def test_what_needs_labels_or_another_network_is_refused(name, other):
    with pytest.raises(TrainerNameError):
        trainer_class(f"{name}_{other}")


def test_two_pretrainings_are_refused():
    with pytest.raises(TrainerNameError):
        trainer_class("nnUNetTrainerS3D_ModelsGenesis")
