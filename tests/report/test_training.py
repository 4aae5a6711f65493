from __future__ import annotations

import numpy as np

from nnunet_ext.files.checkpoints import save_checkpoint
from nnunet_ext.report.training import FoldTraining, read_training

LOG = {
    "train_losses": [np.float32(0.5), np.float32(-0.25)],
    "val_losses": [0.25, -0.5],
    "mean_fg_dice": [0.5, 0.75],
    "lrs": [0.01, 0.005],
}


def test_the_log_of_the_final_checkpoint_is_read(tmp_path):
    save_checkpoint({"logging": LOG}, tmp_path / "checkpoint_final.pth")
    save_checkpoint({"logging": {}}, tmp_path / "checkpoint_latest.pth")
    assert read_training(tmp_path) == FoldTraining((0.5, -0.25), (0.25, -0.5), (0.5, 0.75), (0.01, 0.005))


def test_a_training_that_goes_on_has_its_latest_checkpoint(tmp_path):
    save_checkpoint({"logging": {**LOG, "lrs": [0.01, 0.005, 0.001]}}, tmp_path / "checkpoint_latest.pth")
    found = read_training(tmp_path)
    assert found is not None
    assert found.learning_rate == (0.01, 0.005)  # the epoch that has not ended is left out


def test_a_fold_without_a_log_has_no_training(tmp_path):
    assert read_training(tmp_path) is None
    save_checkpoint({"network_weights": {}}, tmp_path / "checkpoint_final.pth")
    assert read_training(tmp_path) is None


def test_a_damaged_checkpoint_is_logged(tmp_path, caplog):
    (tmp_path / "checkpoint_final.pth").write_bytes(b"no checkpoint")
    assert read_training(tmp_path) is None
    assert "leaves out the training" in caplog.text
