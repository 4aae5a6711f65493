"""What `nnunet_ext doctor` checks."""

from __future__ import annotations

import io
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import nnunet_ext
from nnunet_ext import discovery
from nnunet_ext.error_text import first_line
from nnunet_ext.nnunet_versions import installed_version, remark_on

FOLDERS = {
    "nnUNet_raw": "the folder with your DatasetXXX_NAME folders",
    "nnUNet_preprocessed": "a folder on a fast disk for preprocessed data",
    "nnUNet_results": "the folder for trained models",
}
TEST_TRAINER = "nnUNetTrainerCyclical"
SAFE_UNPICKLER = (2, 10)  # CVE-2026-24747: earlier weights_only loads can corrupt memory


@dataclass(frozen=True)
class Diagnosis:
    """One line of the output.

    Attributes:
        subject: what was checked.
        state: what was found.
        remedy: what to do; "" where all is well.
    """

    subject: str
    state: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'problem' if self.remedy else 'ok':8} {self.subject:20} {self.state}"
        return line + (f"\n{'':29} -> {self.remedy}" if self.remedy else "")


def examine() -> list[Diagnosis]:
    """Checks everything that a first training or prediction needs."""
    return [*versions(), *folders(), *devices(), *trainer_search()]


def versions() -> Iterator[Diagnosis]:
    """Python and the packages that matter."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Diagnosis("python", platform.python_version(), "" if supported else "use Python 3.10 to 3.13")
    yield Diagnosis("nnunet_ext", nnunet_ext.__version__)
    nnunet = installed_version()
    yield Diagnosis("nnunetv2", nnunet, remark_on(nnunet))
    torch = metadata.version("torch")
    recent = tuple(int(part) for part in torch.split("+")[0].split(".")[:2]) >= SAFE_UNPICKLER
    yield Diagnosis(
        "torch", torch, "" if recent else "update torch to 2.10 or later before you open untrusted checkpoints"
    )
    yield torchvision_diagnosis()


def torchvision_diagnosis() -> Diagnosis:
    """nnU-Net's search for trainers imports timm, which imports torchvision; a mismatched build breaks it."""
    try:
        with warnings.catch_warnings():  # about parts of torchvision that nnU-Net does not use
            warnings.simplefilter("ignore")
            import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        return Diagnosis(
            "torchvision",
            f"cannot be imported with this torch ({first_line(error)})",
            "install torch and torchvision from the same index (for a CPU: PyTorch's CPU index)",
        )
    return Diagnosis("torchvision", torchvision.__version__)


def folders() -> Iterator[Diagnosis]:
    """nnU-Net's three variables."""
    for variable, meaning in FOLDERS.items():
        value = os.environ.get(variable)
        if not value:
            yield Diagnosis(variable, "is not set", f"set {variable} to {meaning}")
        elif not Path(value).is_dir():
            yield Diagnosis(variable, f"{value} is not a folder", f"create it, or set {variable} to {meaning}")
        elif variable != "nnUNet_raw" and not os.access(value, os.W_OK):
            yield Diagnosis(variable, f"{value} is not writable", f"set {variable} to a folder that you can write to")
        else:
            yield Diagnosis(variable, value)


def devices() -> Iterator[Diagnosis]:
    """Where networks can run."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Diagnosis(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Diagnosis("mps", "available")
    else:
        yield Diagnosis("cpu", f"{os.cpu_count()} cores, no GPU: give nnU-Net's own commands -device cpu")


def trainer_search() -> Iterator[Diagnosis]:
    """Whether nnU-Net itself finds our trainers."""
    value = os.environ.get(discovery.VARIABLE, "")
    if discovery.path() not in value.split(os.pathsep):
        yield Diagnosis(
            discovery.VARIABLE,
            f"is {value}, without the folder of nnunet_ext" if value else "is not set",
            f"{discovery.shell_line('powershell' if os.name == 'nt' else 'sh')}   "
            "(needed for stock nnUNetv2_train and nnUNetv2_predict; nnunet_ext's own commands do not need it)",
        )
        return
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net prints where it searches
            found = recursive_find_trainer_class_by_name(TEST_TRAINER)
    except (RuntimeError, ImportError, ValueError) as error:
        yield Diagnosis(discovery.VARIABLE, f"nnU-Net's search fails: {error}", "fix what the message names")
        return
    yield Diagnosis(discovery.VARIABLE, f"nnU-Net finds {found.__name__}")
