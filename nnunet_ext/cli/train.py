"""`nnunet_ext train`: all flags are nnUNetv2_train's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nnunet_ext import discovery
from nnunet_ext.cli.command import INTERRUPTED, Command, no_flags

EXAMPLE = """example:
  $ nnunet_ext train 123 2d 0 -tr nnUNetTrainerCyclical
  ...
  2026-01-31 12:00:00: Epoch 320
  2026-01-31 12:00:00: Current learning rate: 0.00756
  2026-01-31 12:01:40: Sampled the weights of cycle 0: checkpoint_c0_e0320.pth"""


def train(arguments: Sequence[str]) -> int:
    """`nnUNetv2_train` with the variable set; its flags and messages are nnU-Net's."""
    if "-h" in arguments or "--help" in arguments:
        print(f"nnunet_ext train is nnUNetv2_train with nnUNet_extTrainer set.\n\n{EXAMPLE}\n\nIts flags:\n")
    discovery.activate()
    from nnunetv2.run.run_training import run_training_entry

    from nnunet_ext.files.checkpoints import CheckpointError
    from nnunet_ext.trainers.names import TrainerNameError
    from nnunet_ext.trainers.pretrained_weights import PretrainedWeightsError, fitting_weights

    # as nnU-Net's own entry point sets it: several threads for compiling do not help and can cause problems
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        with fitting_weights(arguments) as fitting:
            sys.argv = ["nnUNetv2_train", *fitting]
            run_training_entry()
    except KeyboardInterrupt:
        print("\nnnunet_ext train: interrupted. Continue from the last checkpoint with --c.", file=sys.stderr)
        return INTERRUPTED
    except (
        TrainerNameError,
        PretrainedWeightsError,
        CheckpointError,
    ) as error:  # all other errors are nnU-Net's and keep their traceback
        print(f"nnunet_ext train: {error}", file=sys.stderr)
        return 1
    return 0


COMMAND = Command(
    "train",
    "nnUNetv2_train with nnUNet_extTrainer set, so that it finds the trainers",
    no_flags,
    lambda arguments: train([]),
    EXAMPLE,
)
