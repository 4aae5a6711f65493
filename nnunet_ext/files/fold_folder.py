"""What nnU-Net keeps in the folder of a trained fold."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint from which nnU-Net's `--c` continues; None if there is none."""
    return next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)
