"""`nnunet_ext env`."""

from __future__ import annotations

import argparse
import os

from nnunet_ext import discovery
from nnunet_ext.cli.command import Command


def env_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shell",
        choices=("sh", "powershell", "cmd"),
        default="powershell" if os.name == "nt" else "sh",
        help="shell whose syntax to print (default: by operating system)",
    )


def env(arguments: argparse.Namespace) -> int:
    print(discovery.shell_line(arguments.shell))
    return 0


COMMAND = Command(
    "env",
    "print the line that lets nnU-Net find the trainers",
    env_flags,
    env,
    """example:
  $ eval "$(nnunet_ext env)"          # beside nnUNet_raw, nnUNet_preprocessed and nnUNet_results
  $ nnunet_ext env
  export nnUNet_extTrainer="/path/to/nnunet_ext/discovery\"""",
)
