"""How nnU-Net finds the trainers: this folder is what the variable nnUNet_extTrainer points at.

nnU-Net imports every module of the folder by its bare name and asks each for the class, so the folder holds one
module, `nnunet_ext_trainers`, and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "nnUNet_extTrainer"


def path() -> str:
    """The folder to put into `nnUNet_extTrainer`."""
    return str(Path(__file__).parent)


def activate() -> None:
    """Sets `nnUNet_extTrainer` in this process and those it starts, keeping folders that are already there."""
    os.environ[VARIABLE] = extended_value(os.environ.get(VARIABLE, ""))


def extended_value(current: str) -> str:
    """The value of `nnUNet_extTrainer` that adds this folder to `current`, a list as nnU-Net splits it."""
    folders = [folder for folder in current.split(os.pathsep) if folder.strip()]
    return os.pathsep.join(folders if path() in folders else [*folders, path()])


def shell_line(shell: str) -> str:
    """The line that sets the variable in a shell: "sh", "powershell" or "cmd".

    A folder that is in the variable already stays in it.

    Raises:
        ValueError: if the shell is another one.
    """
    value = extended_value(os.environ.get(VARIABLE, ""))
    lines = {
        "sh": f'export {VARIABLE}="{value}"',
        "powershell": f'$env:{VARIABLE} = "{value}"',
        "cmd": f'set "{VARIABLE}={value}"',
    }
    if shell not in lines:
        raise ValueError(f"The shell must be one of {', '.join(lines)}; found {shell!r}.")
    return lines[shell]
