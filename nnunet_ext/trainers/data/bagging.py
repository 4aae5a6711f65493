"""Bagging: every member of an ensemble trains on a bootstrap sample of the training cases (Breiman 1996)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import write_json
from nnunet_ext.trainers.base import ExtTrainer

RECORD = "bootstrap.json"


class Bagging(ExtTrainer):
    """Trains on as many cases as the fold has, drawn with replacement; validation cases stay as they are.

    The draw depends on the fold, the member of the name (`member<k>`, 0 without it) and the cases, on nothing else:
    a resumed training, every rank and every machine draw the same. A case drawn twice is loaded twice as often.
    """

    member: int = 0

    @property
    def bootstrap_seed(self) -> str:
        """What the draw is seeded with."""
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
            f"Bootstrap ({self.bootstrap_seed}): {len(set(training.identifiers))} different cases of "
            f"{len(training.identifiers)}."
        )
        return training, validation


def bootstrap(keys: Iterable[str], seed: int | str) -> list[str]:
    """As many keys as are given, drawn with replacement, sorted; the order of the given keys does not matter.

    About 63 % of the keys are in it, 1 - 1/e for many of them. No keys give an empty list.

    Args:
        keys: names of cases.
        seed: the same one gives the same sample with any version of Python and NumPy.
    """
    ordered = sorted(map(str, keys))
    generator = random.Random(seed)  # Python promises the sequence of random() for a seed, not that of choices()
    return sorted(ordered[int(generator.random() * len(ordered))] for _ in ordered)
