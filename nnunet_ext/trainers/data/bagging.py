"""Bagging: each member of an ensemble trains on its own bootstrap sample of the training cases (Breiman 1996)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import write_json
from nnunet_ext.trainers.base import ExtTrainer

RECORD = "bootstrap.json"


class Bagging(ExtTrainer):
    """Trains on as many cases as the fold has, drawn with replacement; validation cases are unchanged.

    The draw depends only on the fold, the member in the name (`member<k>`, 0 without it) and the cases, so that a
    resumed training, every rank and every machine draw the same sample. A case drawn twice is loaded twice as often.
    """

    member: int = 0

    @property
    def bootstrap_seed(self) -> str:
        """The seed of the draw."""
        return f"fold {self.fold}, member {self.member}"

    def do_split(self) -> tuple[list[str], list[str]]:
        training, validation = super().do_split()
        return bootstrap(training, self.bootstrap_seed), validation

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        training, validation = super().get_tr_and_val_datasets()
        if self.writes_files:  # not in do_split, which nnU-Net's validation calls again
            write_json(
                {"seed": self.bootstrap_seed, "training_cases": list(training.identifiers)},
                Path(self.output_folder) / RECORD,
            )
        self.print_to_log_file(
            f"Bootstrap sample ({self.bootstrap_seed}): {len(training.identifiers)} cases, "
            f"{len(set(training.identifiers))} of them distinct."
        )
        return training, validation


def bootstrap(keys: Iterable[str], seed: int | str) -> list[str]:
    """A bootstrap sample: as many keys as given, drawn with replacement.

    For many keys it contains about 63 % (1 - 1/e) of them.

    Args:
        keys: names of cases, in any order.
        seed: the same seed gives the same sample with any version of Python and NumPy.

    Returns:
        The sample, sorted; an empty list without keys.
    """
    ordered = sorted(map(str, keys))
    generator = random.Random(seed)  # Python guarantees the sequence of random() for a seed, not that of choices()
    return sorted(ordered[int(generator.random() * len(ordered))] for _ in ordered)
