"""The rows of the table of parts, and their vocabulary. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module

PREFIX = "nnUNetTrainer"  # begins every trainer's name
PLANNED = "planned"  # nnU-Net's planned network, used in place of the path of a network part


class Kind(Enum):
    """What a part changes about a training; the table is printed in this order."""

    LENGTH = "length"
    SEED = "seed"
    SCHEDULE = "schedule"
    FINE_TUNING = "fine-tuning"
    AVERAGING = "averaging"
    NETWORK = "network"
    SUPERVISION = "supervision"
    LOSS = "loss"
    LOSS_TERM = "loss term"
    AUGMENTATION = "augmentation"
    DATA = "data"
    FEWER_LABELS = "fewer labels"
    PRE_TRAINING = "pre-training"


class Claim(Enum):
    """What only one part of a name may set; the value is its name in error messages."""

    EPOCHS = "the number of epochs"
    ITERATIONS = "the iterations per epoch"
    SEED = "the seed"
    LEARNING_RATE = "the learning-rate schedule"
    OPTIMIZER = "the optimizer"
    LOSS = "the loss"
    LOSS_SHARE = "a share of the loss"
    NETWORK = "the network"
    PLANNED_NETWORK = "the planned network"
    TRAINING_OUTPUT = "what the network returns in training"
    TEACHER = "the teacher"
    DROPOUT = "dropout"
    TRAINING_CASES = "the training cases"
    AUGMENTATION = "the augmentation"
    MIRRORING = "mirroring and rotation"
    SWA_CHECKPOINT = "checkpoint_swa.pth"
    EMA_CHECKPOINT = "checkpoint_ema.pth"
    TRAINED_ENCODER = "which weights of the encoder train"


class Requirement(Enum):
    """What a part requires, and what to do if it is missing.

    Plans, dataset and configuration are checked in `requirements.py` when a trainer is constructed.
    """

    UNET = (
        "a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, ResidualEncoderUNet)",
        "choose plans with such a network",
    )
    LEVELS = (
        "a U-Net whose levels it can read (PlainConvUNet, ResidualEncoderUNet, SegResNet, VNet, UNETR, SwinUNETR, "
        "LCOVNet)",
        "choose plans or a part with such a network",
    )
    LABELS = ("labels rather than regions", "train on a dataset of labels")
    SEGMENTATION = ("a training on labels", "start another training from its checkpoint with -pretrained_weights")
    ONE_NETWORK = ("a single network", "train the networks one by one")
    THREE_AXES = ("a 3D configuration", "train 3d_fullres or 3d_lowres")

    def __init__(self, words: str, remedy: str) -> None:
        self.words = words
        self.remedy = remedy


@dataclass(frozen=True, eq=False)
class Part:
    """One part: a word of a trainer's name.

    Attributes:
        spelling: the word, with a placeholder for a number: "Cyclical", "Cyclical<M>", "<n>epochs".
        kind: what the part changes about a training.
        mixin: dotted path of the class that a trainer with this part derives from, imported when the name is used;
            "" if the part only sets attributes of another part. A part that changes others may derive from theirs.
        summary: what the part does, in one line for the table.
        paper: the source, or "".
        example: a trainer's name with this part.
        claims: what the part sets; two parts with the same claim cannot be combined.
        requires: what the part requires of the other parts, the plans and the dataset.
        lacks: requirements of other parts that no trainer with this part can meet.
        changes: spellings of the parts that it modifies; a name without any of them is refused.
        shares: claims that several network parts may make in the same name if this part, which mixes them, is there.
        values: class attributes that the part sets.
        attribute: the class attribute that takes the number in the word.
        several: whether the word holds several numbers, separated by x; the attribute takes them as a tuple.
        smallest: the smallest number that is allowed.
        internal: whether the part is hidden from users, because it cannot be trained.
    """

    spelling: str
    kind: Kind
    mixin: str
    summary: str
    paper: str
    example: str
    claims: frozenset[Claim] = frozenset()
    requires: frozenset[Requirement] = frozenset()
    lacks: frozenset[Requirement] = frozenset()
    changes: tuple[str, ...] = ()
    shares: frozenset[Claim] = frozenset()
    values: Mapping[str, object] = field(default_factory=dict)
    attribute: str = ""
    several: bool = False
    smallest: int = 1
    internal: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches a word of this spelling; has the group `number` if the spelling has a placeholder."""
        number = r"(?P<number>\d+(?:x\d+)*)" if self.several else r"(?P<number>\d+)"
        return re.compile(re.sub(r"<\w>", lambda _: number, self.spelling))


def load(path: str) -> type:
    """Imports the class with this dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
