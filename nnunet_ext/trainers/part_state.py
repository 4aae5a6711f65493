"""What parts of a trainer keep for a resume, each under a key of its own."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers.base import ExtTrainer


class PartWithState(ExtTrainer):
    """A part that must find something again after a resume, beyond nnU-Net's own checkpoint.

    A part sets `state_key` and defines `part_state` and `load_part_state` for itself alone, without `super()`: all
    parts of a trainer are asked, and what one keeps cannot overwrite what another does.
    """

    state_key: str

    def part_state(self) -> Any:
        """What this part keeps."""
        raise NotImplementedError

    def load_part_state(self, state: Any) -> None:
        """Takes back what `part_state` gave."""
        raise NotImplementedError

    @classmethod
    def parts_with_state(cls) -> dict[str, type[PartWithState]]:
        """The parts of this trainer that keep something, by their keys.

        Raises:
            ValueError: if two of them have the same key.
        """
        found: dict[str, type[PartWithState]] = {}
        for part in cls.__mro__:
            if "state_key" not in vars(part) or not issubclass(part, PartWithState):
                continue
            if part.state_key in found:
                raise ValueError(
                    f"Every part keeps its state under a key of its own; found {part.state_key!r} in "
                    f"{found[part.state_key].__name__} and in {part.__name__}. Give one another state_key."
                )
            found[part.state_key] = part
        return found

    def extra_state(self) -> dict[str, Any]:
        own = {key: part.part_state(self) for key, part in self.parts_with_state().items()}
        return {**super().extra_state(), **own}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        for key, part in self.parts_with_state().items():
            if key in state:  # not in stock's checkpoints
                part.load_part_state(self, state[key])
