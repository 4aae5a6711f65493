"""The table of operations, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nnunet_ext.postprocessing import (
    fill_holes,
    hierarchy,
    hysteresis,
    largest_component,
    minimum_size,
    relabel_small,
)
from nnunet_ext.postprocessing.step import PostProcessingError, Step
from nnunet_ext.postprocessing.structures import Anatomy


@dataclass(frozen=True)
class Operation:
    """One row of `OPERATIONS`.

    Attributes:
        name: in the file and on the command line.
        does: what it does, for the reference.
        step: the operation with its parameters.
        candidates: the families that are tried on a dataset; each holds one operation with all its parameters, the
            one that changes least first.
        needs_probabilities: whether label maps alone are not enough.
    """

    name: str
    does: str
    step: type[Any]
    candidates: Callable[[Anatomy], Sequence[tuple[Step, ...]]]
    needs_probabilities: bool = False


# fmt: off
OPERATIONS = (
    Operation("hierarchy", "nested regions, made to agree upward or downward",
              hierarchy.Hierarchy, hierarchy.candidates, needs_probabilities=True),
    Operation("hysteresis", "components that are confident nowhere are removed, others may grow",
              hysteresis.Hysteresis, hysteresis.candidates, needs_probabilities=True),
    Operation("minimum_size", "components below a volume are removed",
              minimum_size.MinimumSize, minimum_size.candidates),
    Operation("largest_component", "only the largest component stays",
              largest_component.LargestComponent, largest_component.candidates),
    Operation("fill_holes", "enclosed background is filled",
              fill_holes.FillHoles, fill_holes.candidates),
    Operation("relabel_small", "a structure that is small as a whole becomes another one",
              relabel_small.RelabelSmall, relabel_small.candidates),
)
# fmt: on


def operation_of(step: Step) -> Operation:
    """The row of a step."""
    return next(operation for operation in OPERATIONS if isinstance(step, operation.step))


def as_json(step: Step) -> dict[str, Any]:
    """A step as the file holds it."""
    return {"operation": operation_of(step).name, **asdict(step)}  # type: ignore[call-overload]


def from_json(content: dict[str, Any]) -> Step:
    """The step of an entry of the file.

    Raises:
        PostProcessingError: if there is no such operation, or its parameters are wrong.
    """
    fields = {name: _tuples(value) for name, value in content.items() if name != "operation"}
    for operation in OPERATIONS:
        if operation.name == content.get("operation"):
            try:
                return operation.step(**fields)
            except TypeError as error:
                raise PostProcessingError(f"The step {operation.name} has other parameters: {error}.") from error
    known = ", ".join(operation.name for operation in OPERATIONS)
    raise PostProcessingError(f"An operation must be one of {known}; found {content.get('operation')!r}.")


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, which can be hashed."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
