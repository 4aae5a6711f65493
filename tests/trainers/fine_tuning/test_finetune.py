"""The stages of a fine-tuning: what trains, at which rate, and that an interrupted training goes on as it was."""

from contextlib import contextmanager

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.trainers.names import TrainerNameError, trainer_class

# Epochs 0 and 1 are the decoder's, 2 and 3 the network's warm-up, 4 to 7 the decay.
NAME = "nnUNetTrainerFinetune2_member3_8epochs"
RATES = [1e-3, 1e-3, 0.5e-3, 1e-3, *(1e-3 * (1 - k / 4) ** 0.9 for k in range(4))]  # h = 1


def trained(trainer):
    """The names of the parameters in the optimizer."""
    kept = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    return {name for name, parameter in trainer.plain_network.named_parameters() if id(parameter) in kept}


def outside_the_encoder(trainer):
    return {name for name, _ in trainer.plain_network.named_parameters() if not name.startswith("encoder.")}


def equal(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# --- stages ---


def test_each_epoch_has_the_rate_of_its_stage(fine_tuned, run_epochs):
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 8)
    assert trainer.logger.get_value("lrs", None) == pytest.approx(RATES)


def test_in_the_decoder_warm_up_the_encoder_is_frozen(fine_tuned, run_epochs, snapshot):
    trainer = fine_tuned(NAME)
    before = snapshot(trainer.network.encoder)
    decoder = snapshot(trainer.network.decoder.stages)
    run_epochs(trainer, 2)
    assert trained(trainer) == outside_the_encoder(trainer)
    assert equal(trainer.network.encoder, before)
    assert not equal(trainer.network.decoder.stages, decoder)
    for parameter in trainer.network.encoder.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert parameter not in trainer.optimizer.state


def test_then_the_whole_network_trains_with_a_new_optimizer(fine_tuned, run_epochs, snapshot):
    trainer = fine_tuned(NAME)
    run_epochs(trainer, 2)
    before, decoders = snapshot(trainer.network.encoder), trainer.optimizer
    trainer.on_train_epoch_start()
    assert trainer.optimizer is not decoders
    assert not trainer.optimizer.state  # no momentum of the decoder warm-up
    assert trained(trainer) == {name for name, _ in trainer.network.named_parameters()}
    run_epochs(trainer, 3)
    assert not equal(trainer.network.encoder, before)
    networks = trainer.optimizer
    run_epochs(trainer, 6)
    assert trainer.optimizer is networks  # warm-up and decay share one


def test_the_optimizer_is_nnunets(fine_tuned, make_trainer):
    ours, stock = fine_tuned(NAME).optimizer, make_trainer("nnUNetTrainer").optimizer
    assert type(ours) is type(stock)
    chosen = ("momentum", "nesterov", "weight_decay")
    assert [ours.param_groups[0][key] for key in chosen] == [stock.param_groups[0][key] for key in chosen]


def test_frozen_batch_norm_keeps_its_statistics(make_trainer, run_epochs, fine_tuned, snapshot, tmp_path):
    file = tmp_path / "batch_norm.pth"
    make_trainer("nnUNetTrainer_BN").save_checkpoint(str(file))
    trainer = fine_tuned("nnUNetTrainerFinetune2_BN_8epochs", file=file)
    before = snapshot(trainer.network.encoder)
    run_epochs(trainer, 2)
    assert any("running_mean" in name for name in before)
    assert equal(trainer.network.encoder, before)
    run_epochs(trainer, 3)
    assert not equal(trainer.network.encoder, before)


# --- words of the name ---


@pytest.mark.parametrize(
    ("name", "epochs", "starts"),
    [
        ("nnUNetTrainerFinetune", 1100, (50, 100)),
        ("nnUNetTrainerFinetune20", 1040, (20, 40)),
        ("nnUNetTrainerFinetune_DecoderWarmUp0", 1050, (0, 50)),
        ("nnUNetTrainerFinetune_DecoderWarmUp30_NetworkWarmUp10_200epochs", 200, (30, 40)),
        ("nnUNetTrainerFinetune_1000epochs", 1000, (50, 100)),
        ("nnUNetTrainerFinetune_FrozenEncoder", 1050, (0, 50)),
        ("nnUNetTrainerFinetune_40epochs", 40, (10, 20)),
        ("nnUNetTrainerLoRA", 1100, (50, 100)),
    ],
)
def test_lengths_of_the_stages(make_trainer, name, epochs, starts):
    trainer = make_trainer(name, initialize=False)
    assert trainer.num_epochs == epochs
    assert (trainer.plan.network_start, trainer.plan.decay_start) == starts
    assert trainer.initial_lr == 1e-3


@pytest.mark.parametrize(
    ("name", "rate", "epochs"),
    [
        ("nnUNetTrainerFinetune_Adam3en4", 3e-4, 1100),
        ("nnUNetTrainerFinetune_Adan1en1", 1e-1, 1100),
        ("nnUNetTrainerLoRA_Adam3en4", 3e-4, 1100),
        ("nnUNetTrainerFinetune_1epoch", 1e-3, 1),
        ("nnUNetTrainerFinetune2_1epoch_Adam3en4", 3e-4, 1),
        ("nnUNetTrainerFinetune_BN", 1e-3, 1100),  # a variant that sets neither
    ],
)
def test_what_a_stock_variant_sets_stays(make_trainer, name, rate, epochs):
    trainer = make_trainer(name, initialize=False)
    assert (trainer.initial_lr, trainer.num_epochs) == (rate, epochs)


def test_the_rate_of_a_stock_variant_is_the_peak(fine_tuned, run_epochs):
    trainer = fine_tuned("nnUNetTrainerFinetune2_Adam3en4_8epochs")
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    run_epochs(trainer, 8)
    assert trainer.logger.get_value("lrs", None) == pytest.approx([0.3 * rate for rate in RATES])


def test_a_trainer_of_ones_own_sets_rate_and_length(make_trainer_of):
    class nnUNetTrainerMine(trainer_class("nnUNetTrainerFinetune_Adam3en4")):
        def set_hyperparameters(self):
            super().set_hyperparameters()
            self.initial_lr, self.num_epochs = 5e-3, 30

    trainer = make_trainer_of(nnUNetTrainerMine, initialize=False)
    assert (trainer.plan.peak_lr, trainer.plan.total_epochs) == (5e-3, 30)


def test_a_frozen_encoder_stays_frozen(fine_tuned, run_epochs, snapshot):
    trainer = fine_tuned("nnUNetTrainerFinetune2_FrozenEncoder_8epochs")
    before = snapshot(trainer.network.encoder)
    run_epochs(trainer, 8)
    assert equal(trainer.network.encoder, before)
    assert trained(trainer) == outside_the_encoder(trainer)


def test_of_a_shallow_encoder_the_first_stages_train(fine_tuned, run_epochs):
    trainer = fine_tuned("nnUNetTrainerFinetune2_ShallowEncoder2_8epochs")
    run_epochs(trainer, 2)
    assert trained(trainer) == outside_the_encoder(trainer)
    run_epochs(trainer, 3)
    shallow = {
        n for n, _ in trainer.network.named_parameters() if n.startswith(("encoder.stages.0", "encoder.stages.1"))
    }
    assert trained(trainer) == outside_the_encoder(trainer) | shallow


def test_the_stem_may_train_in_the_decoder_warm_up(fine_tuned):
    trainer = fine_tuned("nnUNetTrainerFinetune2_TrainedStem_8epochs")
    stem = {name for name, _ in trainer.network.named_parameters() if name.startswith("encoder.stages.0.0.convs.0.")}
    assert trained(trainer) == outside_the_encoder(trainer) | stem


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nnUNetTrainerFinetune_Cyclical", "both set the learning-rate schedule"),
        ("nnUNetTrainerFinetune_LoRA", "both set the learning-rate schedule"),
        ("nnUNetTrainerFinetune_Streaming", "needs a single network"),
        ("nnUNetTrainerFinetune_DeepLab", "needs a U-Net"),
        ("nnUNetTrainerFinetune_FrozenEncoder_ShallowEncoder2", "both set which weights of the encoder train"),
        ("nnUNetTrainerWithDecoder", "changes Finetune, Finetune<n>, LoRA or LoRA<r>, which the name lacks"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(name, message):
    with pytest.raises(TrainerNameError, match=message):
        trainer_class(name)


# --- resume, torch.compile, DDP ---


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    "name", [NAME, "nnUNetTrainerLoRA2_DecoderWarmUp2_NetworkWarmUp2_WithDecoder_member3_8epochs"]
)
def test_a_resumed_training_equals_an_uninterrupted_one(fine_tuned, resumed, run_epochs, name, stop):
    """Inside each stage and at their borders: epochs 2 and 4 are the first of a stage."""
    whole = fine_tuned(name)
    run_epochs(whole, 7)
    interrupted = fine_tuned(name, save_every=1)
    run_epochs(interrupted, stop)
    again = resumed(interrupted)
    assert again.current_epoch == stop
    run_epochs(again, 7)
    for parameter, expected in zip(again.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    for state, expected in zip(again.optimizer.state.values(), whole.optimizer.state.values(), strict=True):
        assert torch.equal(state["momentum_buffer"], expected["momentum_buffer"])


@pytest.mark.parametrize("name", [NAME, "nnUNetTrainerLoRA2_DecoderWarmUp2_NetworkWarmUp2_member3_8epochs"])
def test_a_compiled_network_notices_when_the_encoder_is_released(fine_tuned, run_epochs, name):
    plain, compiled = fine_tuned(name), fine_tuned(name)
    compiled.network = torch.compile(compiled.network, backend="aot_eager")
    for trainer in (plain, compiled):
        run_epochs(trainer, 4)
    for parameter, expected in zip(compiled.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-5)


@contextmanager
def one_process(tmp_path):
    """A process group of this process alone, as long as it lasts."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_ddp_trains_the_same_through_the_border_of_stages(tmp_path, fine_tuned, run_epochs, resumed):
    plain, parallel = fine_tuned(NAME), fine_tuned(NAME, save_every=3)
    parallel.is_ddp = True
    plain.loss = parallel.loss = parallel._build_loss()  # with DDP, nnU-Net's uses every output
    run_epochs(plain, 4)
    with one_process(tmp_path):
        parallel.network = DistributedDataParallel(parallel.network)
        run_epochs(parallel, 4)
        assert isinstance(parallel.network, DistributedDataParallel)
    for parameter, expected in zip(parallel.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    assert resumed(parallel).current_epoch == 3
