"""What stock nnU-Net's loading of `-pretrained_weights` does with a fine-tuning, and with unsuitable files."""

import re

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.trainers.fine_tuning.incoming_weights import PretrainedWeightsError

NAME = "nnUNetTrainerFinetune_8epochs"


def same(module, weights, prefix):
    """Whether a module has these weights."""
    return all(torch.equal(tensor, weights[prefix + name]) for name, tensor in module.state_dict().items())


def saved_with(tmp_path, weights, **more):
    """A checkpoint file with these weights."""
    file = tmp_path / "other.pth"
    torch.save({"network_weights": weights, **more}, file)
    return file


def test_stock_loading_hands_over_the_encoder(fine_tuned, pretrained, weights_of, log_of):
    trainer = fine_tuned(NAME)
    assert same(trainer.network.encoder, weights_of(pretrained), "encoder.")
    assert not same(trainer.network.decoder.stages, weights_of(pretrained), "decoder.stages.")
    encoder = len(list(trainer.network.encoder.parameters()))
    assert f"Pre-trained weights: {encoder} of {encoder} tensors of the encoder." in log_of(trainer)


def test_with_decoder(fine_tuned, pretrained, weights_of):
    trainer = fine_tuned(NAME + "_WithDecoder")
    assert same(trainer.network.decoder.stages, weights_of(pretrained), "decoder.stages.")
    assert not same(trainer.network.decoder.seg_layers, weights_of(pretrained), "decoder.seg_layers.")


def test_a_file_with_nothing_but_the_encoder_suffices(fine_tuned, pretrained, weights_of, tmp_path):
    encoder = {name: tensor for name, tensor in weights_of(pretrained).items() if name.startswith("encoder.")}
    trainer = fine_tuned(NAME, file=saved_with(tmp_path, encoder))
    assert same(trainer.network.encoder, encoder, "encoder.")


def test_a_checkpoint_of_nnssl_is_read_with_and_without_its_plan(fine_tuned, pretrained, weights_of, tmp_path):
    """Its trainers save the U-Net's state dict; SparK's add their own and leave the adaptation plan out."""
    weights = weights_of(pretrained)
    plan = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stages.0", "pretrain_num_input_channels": 1}
    for more in ({"nnssl_adaptation_plan": plan}, {"spark_weights": {"mask_token": torch.zeros(3)}}):
        trainer = fine_tuned(NAME, file=saved_with(tmp_path, weights, trainer_name="SparkMAETrainer", **more))
        assert same(trainer.network.encoder, weights, "encoder.")


def test_afterwards_the_network_is_loaded_and_saved_as_any_other(fine_tuned, pretrained, weights_of):
    trainer = fine_tuned(NAME)
    assert list(trainer.network.state_dict()) == list(weights_of(pretrained))
    trainer.network.load_state_dict(weights_of(pretrained))
    assert same(trainer.network, weights_of(pretrained), "")


def test_a_training_without_weights_is_refused_with_the_command_that_makes_some(make_trainer):
    trainer = make_trainer(NAME)
    with pytest.raises(
        PretrainedWeightsError, match=r"-pretrained_weights FILE.*`nnunet_ext pretrain -i FOLDER -d ID`"
    ):
        trainer.on_train_start()
    assert trainer.network.state_dict()  # its own again


def test_a_training_with_weights_starts(fine_tuned, monkeypatch, log_of):
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)  # it needs a dataset
    trainer = fine_tuned("nnUNetTrainerFinetune")
    trainer.on_train_start()
    assert "decoder warm-up until epoch 50, network warm-up until epoch 100, 1100 epochs in all" in log_of(trainer)


def test_nine_tenths_of_the_encoder_must_arrive(fine_tuned, pretrained, weights_of, tmp_path):
    """The tiny encoder has 3 blocks of 4 tensors; without one block 8 of 12 are left."""
    weights = {name: tensor for name, tensor in weights_of(pretrained).items() if "encoder.stages.1." not in name}
    with pytest.raises(PretrainedWeightsError, match=r"found 8 of 12. Left: encoder\.stages\.1\..*not in the file"):
        fine_tuned(NAME, file=saved_with(tmp_path, weights))


def test_one_tensor_of_twelve_may_be_missing(fine_tuned, pretrained, weights_of, tmp_path, log_of):
    """11 of 12 are 92 %."""
    dropped = re.compile(r"encoder\.stages\.1\.0\.convs\.0\.(conv|all_modules\.0)\.bias")
    weights = {name: tensor for name, tensor in weights_of(pretrained).items() if not dropped.search(name)}
    trainer = fine_tuned(NAME, file=saved_with(tmp_path, weights))
    assert "left at its initial weights: encoder.stages.1.0.convs.0.conv.bias: not in the file" in log_of(trainer)


def test_another_network_is_refused(make_trainer, fine_tuned, tmp_path):
    other = make_trainer("nnUNetTrainer", features=(6, 8, 8))
    with pytest.raises(PretrainedWeightsError, match=r"\(6, 1, 3, 3\) in the file, \(4, 1, 3, 3\) in the network"):
        fine_tuned(NAME, file=saved_with(tmp_path, other.network.state_dict()))


def test_self_distillation_loads_into_its_plain_network(fine_tuned, pretrained, weights_of):
    trainer = fine_tuned("nnUNetTrainerFinetune_DSD_8epochs")
    assert same(trainer.plain_network.encoder, weights_of(pretrained), "encoder.")
