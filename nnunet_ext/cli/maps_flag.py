"""The flag that chooses the uncertainty maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_ext.options import MAP_NAMES


def add_maps_flag(parser: argparse._ActionsContainer, what: str = "uncertainty maps") -> None:
    """Adds `--maps` to a parser or a group of its flags; `what` they are, for the help text."""
    parser.add_argument(
        "--maps",
        nargs="+",
        default=["entropy"],
        choices=(*MAP_NAMES, "none"),
        metavar="MAP",
        help=f"{what}: {', '.join(MAP_NAMES)}, or none; memory shows each classifier of a Streaming model (default: "
        "entropy)",
    )


def requested_maps(names: Sequence[str]) -> list[str]:
    """`--maps` without "none", which stands alone.

    Raises:
        ValueError: if "none" is combined with a map.
    """
    if "none" in names and len(names) > 1:
        raise ValueError(
            f"--maps none cannot be combined with maps; found {' '.join(names)}. Leave out none or the maps."
        )
    return [name for name in dict.fromkeys(names) if name != "none"]
