"""Which weights a Cyclical training sampled, and which of them make an ensemble (arXiv 2212.06278, section 2)."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from nnunet_ext.files.atomic import PARTIAL_PREFIX, write_json
from nnunet_ext.files.strict_json import read_strict_json

MANIFEST = "samples.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One entry of the manifest.

    Attributes:
        file: name of the checkpoint in the manifest's folder.
        cycle: index of its cycle, from 0.
        epoch: index of its epoch, from 0; the weights are those at the epoch's end.
        epoch_in_cycle: the same, counted within the cycle.
        learning_rate: learning rate of that epoch.
        pseudo_dice: nnU-Net's online validation Dice (mean over the foreground); None where it was not finite.
        sha256: hash of the file.
    """

    file: str
    cycle: int
    epoch: int
    epoch_in_cycle: int
    learning_rate: float
    pseudo_dice: float | None
    sha256: str


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("file", "sha256"), (str,)),
    **dict.fromkeys(("cycle", "epoch", "epoch_in_cycle"), (int,)),
    "learning_rate": (float, int),
    "pseudo_dice": (float, int, NoneType),
}


def sample_file_name(cycle: int, epoch: int) -> str:
    """`checkpoint_c<cycle>_e<epoch>.pth`, zero-padded so that names sort in the order of epochs."""
    return f"checkpoint_c{cycle}_e{epoch:04d}.pth"


def is_sample_file(name: str) -> bool:
    """Whether a file name is that of a sample."""
    return re.fullmatch(r"checkpoint_c\d+_e\d{4,}\.pth", name) is not None


def read_manifest(folder: Path) -> list[Sample]:
    """The samples of a fold folder, by epoch; empty where there is no manifest.

    Raises:
        ValueError: if the manifest is not one that a training wrote.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        entries = read_strict_json(path)["samples"]
        return sorted((_recorded_sample(entry) for entry in entries), key=lambda sample: sample.epoch)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(
            f"{path} must list samples as the training wrote them; found something else ({error}). Copy it again, or "
            f"choose members by a file pattern: 'checkpoint_c*.pth'."
        ) from error


def _recorded_sample(entry: Mapping[str, Any]) -> Sample:
    """An entry of the manifest; TypeError or ValueError if it is not one that a training wrote."""
    sample = Sample(**entry)
    for name, value in entry.items():
        kinds = _KINDS[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name} is {reprlib.repr(value)}")
    if not re.fullmatch(r"[\w.-]+\.pth", sample.file):  # also the name of a file elsewhere
        raise ValueError(f"file is {reprlib.repr(sample.file)}")
    return sample


def add_to_manifest(folder: Path, sample: Sample) -> None:
    """Adds a sample; one of the same file is replaced, as happens when a resumed run re-creates it."""
    others = [known for known in read_manifest(folder) if known.file != sample.file]
    samples = sorted([*others, sample], key=lambda known: known.epoch)
    write_json({"samples": [asdict(known) for known in samples]}, folder / MANIFEST)


def changed_message(file: Path) -> str:
    """What to say about a sample whose bytes are not those that the manifest records."""
    return (
        f"A sample must be the file that the training wrote; the SHA-256 of {file} is not that in {MANIFEST}. It was "
        f"damaged or replaced, or the training was killed while it rewrote the sample. Copy it again, continue "
        f"the training with --c, or, if it was changed on purpose, choose by a pattern: 'checkpoint_c*.pth'."
    )


def remove_samples(folder: Path) -> None:
    """Removes the samples of an earlier training from a fold folder, the manifest first, and half-written ones."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if is_sample_file(path.name.removeprefix(PARTIAL_PREFIX)):
            path.unlink()


def select_all_modes(samples: Sequence[Sample], count: int | None = None, *, stride: int = 1) -> list[Sample]:
    """The latest `count` samples, spread evenly over the cycles; a remainder goes to the latest cycles.

    Args:
        samples: in any order.
        count: number of samples; None takes every `stride`-th of all.
        stride: epochs between two samples of a cycle, counted back from the cycle's end.

    Returns:
        The selection by epoch. Fewer than `count`, with a warning in the log, where a cycle has too few.

    Raises:
        ValueError: if `count` or `stride` is below 1.
    """
    cycles = sorted({sample.cycle for sample in samples})
    if count is None:
        shares: list[int | None] = [None] * len(cycles)
    else:
        _require_positive(count, "count")
        base, remainder = divmod(count, max(len(cycles), 1))
        shares = [base + (position >= len(cycles) - remainder) for position in range(len(cycles))]
    chosen: list[Sample] = []
    for cycle, share in zip(cycles, shares, strict=True):
        chosen += _latest([sample for sample in samples if sample.cycle == cycle], share, stride)
    return chosen


def select_last_cycle(samples: Sequence[Sample], count: int | None = None, *, stride: int = 1) -> list[Sample]:
    """The latest `count` samples of the last cycle: one mode of the posterior. Otherwise as `select_all_modes`."""
    if not samples:
        return []
    last = max(sample.cycle for sample in samples)
    return select_all_modes([sample for sample in samples if sample.cycle == last], count, stride=stride)


def _latest(samples: list[Sample], count: int | None, stride: int) -> list[Sample]:
    _require_positive(stride, "stride")
    backwards = sorted(samples, key=lambda sample: -sample.epoch)[::stride]
    if count is not None and len(backwards) < count:
        logger.warning(
            "Cycle %d has %d samples at stride %d, fewer than the %d asked for; taking all of them.",
            samples[0].cycle, len(backwards), stride, count,
        )  # fmt: skip
    return backwards[:count][::-1]


def _require_positive(value: int, name: str) -> None:
    if value < 1:
        raise ValueError(f"The {name} of samples must be at least 1; found {value}.")
