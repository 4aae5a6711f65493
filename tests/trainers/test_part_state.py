"""The state of parts is stored separately; checkpoints are exchanged with stock nnU-Net in both directions."""

import numpy as np
import pytest
import torch

from nnunet_ext.trainers.averaging.ema import EMA
from nnunet_ext.trainers.part_state import PartWithState


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()


def test_the_averages_of_two_parts_are_both_kept(make_trainer, run_epochs, tmp_path):
    trainer = make_trainer("nnUNetTrainerSWA_EMA_1epochs")
    run_epochs(trainer, 1)
    trainer.save_checkpoint(str(tmp_path / "both.pth"))
    resumed = make_trainer("nnUNetTrainerSWA_EMA_1epochs", initialize=False)
    resumed.load_checkpoint(str(tmp_path / "both.pth"))
    for average, original in ((resumed.swa, trainer.swa), (resumed.ema, trainer.ema)):
        np.testing.assert_array_equal(flat(average.module), flat(original.module))
        assert average.n_averaged == original.n_averaged == 1


def test_two_parts_with_one_key_are_refused():
    class Twin(PartWithState):
        state_key = EMA.state_key

    with pytest.raises(ValueError, match=r"its own state_key; found 'ema' in Twin and in EMA"):
        type("nnUNetTrainerTwins", (Twin, EMA), {}).parts_with_state()


def test_a_part_whose_state_is_not_in_a_checkpoint_starts_fresh(make_trainer, random_batch, tmp_path):
    without = make_trainer("nnUNetTrainerSWA")
    without.save_checkpoint(str(tmp_path / "swa.pth"))
    both = make_trainer("nnUNetTrainerSWA_EMA", initialize=False)
    both.load_checkpoint(str(tmp_path / "swa.pth"))
    assert both.ema.n_averaged == 0
    both.train_step(random_batch(both, 0))
    assert both.ema.n_averaged == 1


def test_stock_nnunet_continues_from_our_checkpoint(make_trainer, run_epochs, tmp_path):
    trainer = make_trainer("nnUNetTrainerEMA_2epochs")
    run_epochs(trainer, 1)
    trainer.save_checkpoint(str(tmp_path / "ours.pth"))
    stock = make_trainer("nnUNetTrainer_NoMirroring", initialize=False)  # stock classes only
    stock.load_checkpoint(str(tmp_path / "ours.pth"))
    np.testing.assert_array_equal(flat(stock.network), flat(trainer.network))


def test_our_trainer_loads_a_stock_checkpoint(make_trainer, run_epochs, tmp_path):
    stock = make_trainer("nnUNetTrainer_NoMirroring")
    run_epochs(stock, 1)
    stock.save_checkpoint(str(tmp_path / "stock.pth"))
    trainer = make_trainer("nnUNetTrainerSWA_EMA_8epochs", initialize=False)
    trainer.load_checkpoint(str(tmp_path / "stock.pth"))
    np.testing.assert_array_equal(flat(trainer.network), flat(stock.network))


@pytest.mark.parametrize("name", ["nnUNetTrainerDS_warmup", "nnUNetTrainerEMA_warmup"])
def test_nnunets_warmup_resumes(make_trainer, run_epochs, name):
    """It reads checkpoints with torch's default, which refuses the NumPy numbers of nnU-Net's log."""
    interrupted = make_trainer(name, save_every=1)
    run_epochs(interrupted, 2)
    resumed = make_trainer(name, initialize=False)
    resumed.load_checkpoint(f"{interrupted.output_folder}/checkpoint_latest.pth")
    assert resumed.current_epoch == 2
    np.testing.assert_array_equal(flat(resumed.network), flat(interrupted.network))
    for trainer in (interrupted, resumed):
        run_epochs(trainer, 4)
    np.testing.assert_array_equal(flat(resumed.network), flat(interrupted.network))
    assert resumed.logger.get_value("lrs", None) == interrupted.logger.get_value("lrs", None)


@pytest.mark.parametrize("call_that_fails", [1, 2])  # nnU-Net's own save, then ours with the average
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    make_trainer, run_epochs, tmp_path, monkeypatch, call_that_fails
):
    trainer = make_trainer("nnUNetTrainerEMA_2epochs")
    run_epochs(trainer, 1)
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()
    real_save, calls = torch.save, []

    def full_disk(content, file):
        calls.append(file)
        if len(calls) == call_that_fails:
            raise OSError("No space left on device")
        real_save(content, file)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.glob(".partial*")) == []
