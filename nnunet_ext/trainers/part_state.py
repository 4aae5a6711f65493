"""State of parts that checkpoints store for a resumed training, each part under its own key."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers.base import ExtTrainer


class PartWithState(ExtTrainer):
    """A part with state that must survive a resume, beyond nnU-Net's own checkpoint.

    A part sets `state_key` and defines `part_state` and `load_part_state` for itself only, without `super()`. They
    are called for every part of a trainer, so that parts cannot overwrite each other's state.
    """

    state_key: str

    def part_state(self) -> Any:
        """The state of this part."""
        raise NotImplementedError

    def load_part_state(self, state: Any) -> None:
        """Restores what `part_state` returned."""
        raise NotImplementedError

    @classmethod
    def parts_with_state(cls) -> dict[str, type[PartWithState]]:
        """The parts of this trainer that have state, by key.

        Raises:
            ValueError: if two parts have the same key.
        """
        found: dict[str, type[PartWithState]] = {}
        for part in cls.__mro__:
            if "state_key" not in vars(part) or not issubclass(part, PartWithState):
                continue
            if part.state_key in found:
                raise ValueError(
                    f"Every part needs its own state_key; found {part.state_key!r} in "
                    f"{found[part.state_key].__name__} and in {part.__name__}. Rename one of them."
                )
            found[part.state_key] = part
        return found

    def extra_state(self) -> dict[str, Any]:
        own = {key: part.part_state(self) for key, part in self.parts_with_state().items()}
        return {**super().extra_state(), **own}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        for key, part in self.parts_with_state().items():
            if key in state:  # checkpoints of stock nnU-Net do not have it
                part.load_part_state(self, state[key])
