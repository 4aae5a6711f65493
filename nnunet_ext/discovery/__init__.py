"""How nnU-Net finds the trainers: the variable nnUNet_extTrainer points to this folder.

nnU-Net imports every module of the folder by its bare name and asks each for the class, so the folder holds one
module, `nnunet_ext_trainers`, and nothing else.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

VARIABLE = "nnUNet_extTrainer"


def path() -> str:
    """The folder to put into `nnUNet_extTrainer`."""
    return str(Path(__file__).parent)


def activate() -> None:
    """Sets `nnUNet_extTrainer` in this process and those it starts, keeping folders that are already there."""
    os.environ[VARIABLE] = extended_value(os.environ.get(VARIABLE, ""))


def extended_value(current: str) -> str:
    """The value of `nnUNet_extTrainer` with this folder added to `current`, a list as nnU-Net splits it."""
    folders = [folder for folder in current.split(os.pathsep) if folder.strip()]
    return os.pathsep.join(folders if path() in folders else [*folders, path()])


def shell_line(shell: str) -> str:
    """The line that sets the variable in a shell: "sh", "powershell" or "cmd".

    Folders that are already in the variable stay in it.

    Raises:
        ValueError: if the shell is none of these.
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


def offer_to_nnunet(name: str) -> type[nnUNetTrainer]:
    """The class for a name that nnU-Net looks for in our discovery module.

    Raises:
        AttributeError: for a name that is not ours: nnU-Net continues its search and has its own message.
        TrainerNameError: for a name that is ours but wrong. If other folders follow ours in `nnUNet_extTrainer`,
            an unknown part only gives a warning, because the trainer may be in one of them.
    """
    from nnunet_ext.trainers import names  # imports nnU-Net's trainer: 2 seconds

    if not name.startswith(names.PREFIX):
        raise AttributeError(name)
    try:
        return names.trainer_class(name)
    except names.UnknownPartError as error:
        if not names.resembles_ours(name):
            raise AttributeError(name) from None
        if _other_folders_follow_ours():
            warnings.warn(str(error), stacklevel=3)
            raise AttributeError(name) from None
        raise


def _other_folders_follow_ours() -> bool:
    folders = [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    ours = Path(path())
    return ours in folders and folders.index(ours) < len(folders) - 1
