"""nnU-Net's own `postprocessing.pkl`, read without running code from it.

nnU-Net pickles two lists: functions, of which there is one, and their arguments. A pickle can import and call
anything, so this reader knows three names and imports none of them: that function, which becomes its name, and the
two by which NumPy pickles an integer, since nnU-Net's labels are NumPy's. Instructions that are not needed for lists,
tuples, dictionaries, numbers and text are refused before anything is read.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import reprlib
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.files.strict_json import strict_json
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.step import PostProcessingError

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"
LARGEST_FILE = 1 << 20  # bytes; nnU-Net's have a few hundred
LARGEST_LABEL = 65_535  # of the integers that nnU-Net writes
INTEGER_TYPES = ("i1", "i2", "i4", "i8")
# Neither INST, OBJ, NEWOBJ nor EXT, which construct objects, nor LONG_BINPUT, whose number has no limit. REDUCE and
# BUILD act on what `InertUnpickler` returns, which has nothing that could be misused.
ALLOWED = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("SHORT_BINBYTES", "REDUCE", "BUILD"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "MEMOIZE", "BINPUT", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "STACK_GLOBAL"),
    }
)


def is_stock_file(file: Path) -> bool:
    """Whether a file is one of nnU-Net's by its name: any `.pkl`, or `postprocessing.json`."""
    return file.suffix == ".pkl" or file.name == "postprocessing.json"


def read_stock_steps(file: Path) -> tuple[LargestComponent, ...]:
    """The steps of nnU-Net's `postprocessing.pkl`, or of the `postprocessing.json` beside it.

    Raises:
        PostProcessingError: if the file cannot be read, or holds anything else than nnU-Net writes.
    """
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise PostProcessingError(f"it has more than {LARGEST_FILE} bytes")
        content = file.read_bytes()
        functions, arguments = json_lists(content) if file.suffix == ".json" else pickled_lists(content)
        return steps_of(functions, arguments)
    except (PostProcessingError, OSError) as error:
        raise PostProcessingError(
            f"nnU-Net's postprocessing.pkl holds {FUNCTION} and its arguments; {file} was refused: {error}. No code "
            f"of it was run."
        ) from error


def pickled_lists(content: bytes) -> tuple[Any, Any]:
    """The two lists of a `postprocessing.pkl`, functions as their names.

    Raises:
        PostProcessingError: if it is damaged, or needs another instruction or name.
    """
    try:
        for instruction, _, _ in pickletools.genops(content):
            if instruction.name not in ALLOWED:
                raise PostProcessingError(f"it contains the instruction {instruction.name}")
        functions, arguments = InertUnpickler(io.BytesIO(content)).load()
    # a damaged pickle fails in any of these ways
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
        if isinstance(error, PostProcessingError):
            raise
        raise PostProcessingError(f"it is damaged or something else ({type(error).__name__}: {error})") from error
    return functions, arguments


class IntegerType:
    """Stands for `numpy.dtype`: an integer type such as `i8`, and its byte order."""

    __slots__ = ("order",)

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in INTEGER_TYPES:
            raise PostProcessingError(f"it contains numbers of the type {reprlib.repr(code)}")
        self.order: Literal["little", "big"] = "little"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "big" if state[1] == ">" else "little"


class Integer:
    """Stands for what NumPy calls to make a number; gives a plain integer."""

    __slots__ = ()

    def __new__(cls, kind: IntegerType, content: bytes) -> int:  # type: ignore[misc]
        """The integer of a type and its bytes."""
        return int.from_bytes(content, kind.order, signed=True)

    def __setstate__(self, state: object) -> None:
        raise PostProcessingError("it changes a number")


INERT = {
    (MODULE, FUNCTION): FUNCTION,
    ("numpy", "dtype"): IntegerType,
    ("numpy._core.multiarray", "scalar"): Integer,  # NumPy 2
    ("numpy.core.multiarray", "scalar"): Integer,  # NumPy 1
}


class InertUnpickler(pickle.Unpickler):
    """Imports nothing: the known names become text, or classes that only make integers."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; an unknown one is refused."""
        if (module, name) not in INERT:
            raise PostProcessingError(f"it names {module}.{name}")
        return INERT[module, name]


def json_lists(content: bytes) -> tuple[Any, Any]:
    """The two lists of nnU-Net's `postprocessing.json`.

    Raises:
        PostProcessingError: if it has no such lists.
    """
    try:
        found = strict_json(content)
        return found["postprocessing_fns"], found["postprocessing_kwargs"]
    except (ValueError, KeyError, TypeError) as error:
        raise PostProcessingError(f"it is not nnU-Net's ({type(error).__name__}: {error})") from error


def steps_of(functions: Any, arguments: Any) -> tuple[LargestComponent, ...]:
    """The steps of the two lists.

    Raises:
        PostProcessingError: if they are not the function and the arguments that nnU-Net writes.
    """
    if not isinstance(functions, list) or not isinstance(arguments, list) or len(functions) != len(arguments):
        raise PostProcessingError("it does not hold two lists of the same length")
    return tuple(_step(function, kwargs) for function, kwargs in zip(functions, arguments, strict=True))


def _step(function: Any, arguments: Any) -> LargestComponent:
    known = {"labels_or_regions", "background_label"}
    is_known = isinstance(arguments, dict) and {"labels_or_regions"} <= set(arguments) <= known
    if function != FUNCTION or not is_known:
        raise PostProcessingError(f"it calls {reprlib.repr(function)} with {reprlib.repr(arguments)}")
    chosen = arguments["labels_or_regions"]
    entries = chosen if isinstance(chosen, list) else [chosen]
    labels = [_label(one) for entry in entries for one in (entry if isinstance(entry, (list, tuple)) else [entry])]
    if not labels:
        raise PostProcessingError("it names no label")
    unique = tuple(dict.fromkeys(labels))
    name = f"label{'s' if len(unique) > 1 else ''} {', '.join(map(str, unique))}"
    return LargestComponent(name, unique, _label(arguments.get("background_label", 0)))


def _label(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_LABEL:
        return value
    found = reprlib.repr(value)
    raise PostProcessingError(f"a label must be a whole number from 0 to {LARGEST_LABEL}; found {found}")
