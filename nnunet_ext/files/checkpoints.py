"""Checkpoint files: read without running code from them, written completely or not at all, and their hash."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.files.listing import visible_files

EXTRA_STATE_KEY = "nnunet_ext"  # of a checkpoint: what this package adds to nnU-Net's
CANNOT_SEGMENT_KEY = "cannot_segment"  # in there, if a training without labels wrote it

_NUMBER_TYPES = (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64),
)
_DTYPE_CLASSES = {type(np.dtype(number_type)) for number_type in _NUMBER_TYPES}
_SCALAR_CONSTRUCTOR = np.float64(0).__reduce__()[0]  # what a pickled NumPy scalar calls

# nnU-Net logs NumPy scalars; the rest of its checkpoints is what weights_only=True allows anyway.
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_SCALAR_CONSTRUCTOR, "numpy._core.multiarray.scalar"),  # NumPy 2
    (_SCALAR_CONSTRUCTOR, "numpy.core.multiarray.scalar"),  # NumPy 1
    (np.dtype, "numpy.dtype"),
    *((dtype_class, f"numpy.dtypes.{dtype_class.__name__}") for dtype_class in _DTYPE_CLASSES),
]
_allow_list_lock = threading.Lock()  # torch keeps one allow-list for all threads

_ZIP_MAGIC = b"PK\x03\x04"
_READ_CHUNK_BYTES = 1 << 20
_REFUSED_OBJECT = re.compile(
    r"GLOBAL (\S+)|(?:Can only create|Can only build).* but got (.+)|unrecognized function (.+)"
)
_READ_ERRORS = (  # reading a damaged pickle can fail in any of these ways
    *(RuntimeError, EOFError, pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, ArithmeticError, ImportError, OSError, struct.error, zipfile.BadZipFile, zlib.error),
)


class CheckpointError(RuntimeError):
    """A checkpoint file that cannot be read, or that contains more than plain data."""


@contextmanager
def numpy_scalars_allowed() -> Iterator[None]:
    """While it lasts, `torch.load` with weights_only=True reads what nnU-Net itself writes. Must not be nested."""
    with _allow_list_lock, torch.serialization.safe_globals(_ALLOWED):
        yield


def load_checkpoint(path: str | os.PathLike[str], *, trust: bool = False, mmap: bool = False) -> dict[str, Any]:
    """Reads a checkpoint into CPU memory without running any code that the file may contain.

    Only tensors, plain Python data and NumPy scalars are accepted, which is all that nnU-Net itself writes.

    Args:
        path: a file written by `torch.save`, in its zip format or the older pickle format.
        trust: accept any Python object. This can run code from the file.
        mmap: map the tensors from the file instead of reading them all. The file is then not checked for
            damage, and Windows keeps it locked as long as a tensor lives. Files in the older format are read.

    Raises:
        FileNotFoundError: if there is no such file; names the checkpoints beside it.
        CheckpointError: if the file is damaged, is not a checkpoint, or contains an object that is not on the list.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(_missing_message(file))
    is_zip = _is_zip(file)
    if is_zip and not mmap:
        _refuse_damaged_zip(file)
    try:
        with numpy_scalars_allowed():
            checkpoint = torch.load(file, map_location="cpu", weights_only=not trust, mmap=mmap and is_zip)
    except _READ_ERRORS as error:
        refused = _REFUSED_OBJECT.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        raise CheckpointError(
            _refused_message(file, refused[refused.lastindex or 0])
            if refused
            else _damaged_message(file, _reason(error))
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{file} is not a checkpoint: a checkpoint is a dictionary, found {type(checkpoint).__name__}. "
            "Use a file that a trainer wrote, for example checkpoint_final.pth."
        )
    return checkpoint


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a checkpoint with `torch.save`; the new file is complete, or the old one stays."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_READ_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def plain_network(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile` and DistributedDataParallel, in whatever order."""
    while True:
        if isinstance(network, DistributedDataParallel):
            network = network.module
        elif is_compiled(network):
            network = network._orig_mod  # type: ignore[assignment]
        else:
            return network


def is_compiled(network: nn.Module) -> bool:
    """Whether `torch.compile` wrapped it. Impossible if `torch._dynamo`, a 2-second import, is not imported."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and isinstance(network, dynamo.OptimizedModule)


def cast_weights(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Converts the floating-point tensors of a state dict; tensors that share memory still do so afterwards.

    nnU-Net lists most tensors under several keys (`conv` and `all_modules.0`, `encoder` and
    `decoder.encoder`). Converted one by one they would be stored once per key.

    Args:
        weights: tensors of any shape. They are not changed.
        dtype: a floating-point type.

    Returns:
        The same keys in the same order; an empty dictionary for an empty one. Tensors that need no conversion
        share memory with the given ones.

    Raises:
        ValueError: if a finite weight is too large for `dtype`.
    """
    converted_storages: dict[tuple[torch.device, int, torch.dtype], Tensor] = {}
    converted = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            converted[name] = tensor
            continue
        key = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.dtype)
        if key not in converted_storages:
            converted_storages[key] = _whole_storage(tensor).to(dtype)
        view = converted_storages[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        if not torch.equal(view.isfinite(), tensor.isfinite()):
            raise ValueError(
                f"Weights of {dtype} must not exceed {torch.finfo(dtype).max:g}; found "
                f"{tensor[tensor.isfinite()].abs().max().item():g} in {name}. Keep them as {tensor.dtype}."
            )
        converted[name] = view
    return converted


def _whole_storage(tensor: Tensor) -> Tensor:
    """All elements of the memory that `tensor` is a view of, as a vector."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((elements,), (1,), 0)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def _refuse_damaged_zip(file: Path) -> None:
    """Compares the checksums that torch.save stores and torch.load ignores."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except _READ_ERRORS as error:
        raise CheckpointError(_damaged_message(file, _reason(error))) from error
    if damaged:
        raise CheckpointError(_damaged_message(file, f"{damaged} in it fails its checksum"))


def _missing_message(file: Path) -> str:
    beside = [other.name for other in visible_files(file.parent, "*.pth")] if file.parent.is_dir() else []
    return (
        f"There is no checkpoint {file}. Checkpoints in that folder: {', '.join(beside) or 'none'}. "
        "If samples were deleted, choose the remaining ones by a pattern: 'checkpoint_c*_e*.pth'."
    )


def _damaged_message(file: Path, reason: str) -> str:
    return (
        f"{file} is not a readable checkpoint ({reason}). It may be cut short, damaged, or not written by "
        "torch.save; copy it again or use another checkpoint."
    )


def _refused_message(file: Path, refused_object: str) -> str:
    return (
        f"{file} was not loaded: a checkpoint may contain only tensors, plain Python data and NumPy scalars, "
        f"found {refused_object}. Loading that can run code from the file. If you trust whoever made the "
        "file, use --trust-checkpoints (in Python: trust=True, or trust_checkpoints=True of the predictor)."
    )


def _reason(error: BaseException) -> str:
    """The cause in one sentence; torch puts paragraphs of advice around it."""
    cause = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = cause.strip().splitlines()
    return lines[0].partition(". ")[0] if lines else type(error).__name__
