"""Fine-tuning of low-rank adapters: what trains, and checkpoints that the plain network loads."""

from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.architectures.low_rank import low_rank_convs
from nnunet_ext.files.checkpoints import EXTRA_STATE_KEY

NAME = "nnUNetTrainerLoRA2_DecoderWarmUp1_NetworkWarmUp1_member3_4epochs"
ENCODER_PARTS = ("conv.down", "conv.up", "norm.weight", "norm.bias")  # that train in a transferred block


def plain_network(trainer):
    """A new network of the stock trainer, as prediction builds it."""
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )


def test_the_pre_trained_weights_stay_and_the_adapters_train(fine_tuned, pretrained, weights_of, run_epochs):
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 4)
    convs = low_rank_convs(trainer.network)
    assert set(convs) == {f"encoder.stages.{stage}.0.convs.0.conv" for stage in range(3)}
    for name, conv in convs.items():
        assert torch.equal(conv.weight, weights_of(pretrained)[name + ".weight"])
        assert conv.weight.grad is None
        assert conv.weight not in trainer.optimizer.state
        assert conv.up.any()
        assert conv.down in trainer.optimizer.state


def test_in_the_decoder_warm_up_the_adapters_are_frozen_as_well(fine_tuned, run_epochs):
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 1)
    assert not any(conv.up.any() for conv in low_rank_convs(trainer.network).values())


def test_with_the_decoder_its_convolutions_have_adapters_too(fine_tuned):
    trainer = fine_tuned(NAME + "_WithDecoder")
    assert any(name.startswith("decoder.stages.") for name in low_rank_convs(trainer.network))


def trained(trainer):
    """The names of the parameters in the optimizer."""
    kept = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    return {name for name, parameter in trainer.plain_network.named_parameters() if id(parameter) in kept}


def test_convolutions_of_a_decoder_that_the_file_lacks_train_themselves(fine_tuned, encoder_only, run_epochs):
    trainer = fine_tuned(NAME + "_WithDecoder", file=encoder_only)
    convs = {f"decoder.stages.{stage}.convs.0.conv" for stage in range(2)}
    start = {name: trainer.network.get_submodule(name).weight.detach().clone() for name in convs}
    outside = {name for name, _ in trainer.network.named_parameters() if not name.startswith("encoder.")}
    adapters = {f"{name}.{part}" for name in convs for part in ("down", "up")}
    assert trained(trainer) == outside - adapters  # all that `Finetune` trains in its decoder warm-up
    run_epochs(trainer, 2)
    encoder = {f"encoder.stages.{stage}.0.convs.0.{part}" for stage in range(3) for part in ENCODER_PARTS}
    assert trained(trainer) == (outside - adapters) | encoder
    for name, before in start.items():
        conv = trainer.network.get_submodule(name)
        assert not torch.equal(conv.weight, before)
        assert not conv.up.any()  # the adapter changes nothing


def test_a_bias_that_the_file_lacks_trains_beside_a_kept_weight(fine_tuned, pretrained, weights_of, tmp_path):
    name = "decoder.stages.0.convs.0.conv"
    weights, file = weights_of(pretrained), tmp_path / "without_a_bias.pth"
    for same in (name, "decoder.stages.0.convs.0.all_modules.0"):
        del weights[f"{same}.bias"]
    torch.save({"network_weights": weights}, file)
    found = trained(fine_tuned(NAME + "_WithDecoder", file=file))
    assert {part for part in ("weight", "bias", "down", "up") if f"{name}.{part}" in found} == {"bias", "down", "up"}


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_it_still_trains_what_was_not_transferred(fine_tuned, encoder_only, resumed, run_epochs, stop):
    name = NAME.replace("LoRA2", "LoRA2_WithDecoder")
    whole, interrupted = (fine_tuned(name, file=encoder_only, save_every=1) for _ in range(2))
    run_epochs(whole, 4)
    run_epochs(interrupted, stop)
    again = resumed(interrupted)
    assert trained(again) == trained(interrupted)
    run_epochs(again, 4)
    for parameter, expected in zip(again.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_checkpoint_holds_merged_weights_of_the_plain_network(fine_tuned, run_epochs, weights_of):
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 4)
    trainer.on_train_end()
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    plain = plain_network(trainer)
    plain.load_state_dict(weights_of(file))  # strict
    image = torch.randn((2, 1, 32, 32), generator=torch.Generator().manual_seed(5))
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(image), trainer.network.eval()(image), rtol=1e-5, atol=1e-6)
    adapters = torch.load(file, weights_only=False)[EXTRA_STATE_KEY]["low_rank_adapters"]
    assert adapters.pop("not_transferred") == []
    assert {name for state in adapters.values() for name in state} == {"weight", "down", "up"}


def test_every_name_of_a_layer_shares_the_merged_tensor(fine_tuned, run_epochs, weights_of):
    """A file that stores each of them would be several times as large."""
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 3)
    weights = trainer.network.state_dict()
    layer = "stages.0.0.convs.0."
    names = [part + layer + kind for part in ("encoder.", "decoder.encoder.") for kind in ("conv", "all_modules.0")]
    assert len({weights[name + ".weight"].data_ptr() for name in names}) == 1


def test_it_trains_with_self_distillation(fine_tuned, run_epochs):
    trainer = fine_tuned(NAME.replace("member3", "member3_DSD"))
    run_epochs(trainer, 3)
    assert all(conv.up.any() for conv in low_rank_convs(trainer.plain_network).values())
