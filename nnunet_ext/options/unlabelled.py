"""Options of `preprocess-unlabelled`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnlabelledOptions:
    """What `nnunet_ext preprocess-unlabelled` preprocesses.

    Attributes:
        dataset: name or id of the dataset, whose `imagesUn/` is read.
        configuration: of the plans.
        plans: name of the plans.
        processes: images at a time.
        overwrite: whether images that were preprocessed before are preprocessed again.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if there is no process.
    """

    dataset: str
    configuration: str
    plans: str = "nnUNetPlans"
    processes: int = 2
    overwrite: bool = False
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"-npp must be at least 1; found {self.processes}.")
