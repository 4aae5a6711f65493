"""What a row of the table of parts holds, and the words for it. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module

PLANNED = "planned"  # stands for nnU-Net's planned network where the path of a network part can stand


class Kind(Enum):
    """What sort of thing a part is; the table is printed in this order."""

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
    """What only one part of a name may set; the value is what a refusal calls it."""

    EPOCHS = "the number of epochs"
    ITERATIONS = "the iterations per epoch"
    SEED = "the seed"
    LEARNING_RATE = "the learning-rate schedule"
    OPTIMIZER = "the optimizer"
    LOSS = "the loss"
    BOUNDARY_TERM = "the weight of the boundary loss"
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


class Requirement(Enum):
    """What a part cannot do without: what it needs, and what to do where that is missing.

    The plans, the dataset and the configuration are looked at in `requirements.py`, when a trainer is constructed.
    """

    UNET = (
        "a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, ResidualEncoderUNet)",
        "choose plans of such a network",
    )
    LABELS = ("labels rather than regions", "train on a dataset of labels")
    SEGMENTATION = ("a training that learns to segment", "start another training from its checkpoint")
    THREE_AXES = ("a 3D configuration", "train 3d_fullres or 3d_lowres")

    def __init__(self, words: str, remedy: str) -> None:
        self.words = words
        self.remedy = remedy


@dataclass(frozen=True, eq=False)
class Part:
    """One word of a trainer's name.

    Attributes:
        spelling: the word, with `<M>` where a number stands: "Cyclical", "Cyclical<M>", "<n>epochs".
        kind: what sort of thing it is.
        mixin: dotted path of the class that a trainer of this name derives from, imported when the name is used; ""
            if the part only sets values of another one.
        summary: what it does, for the table.
        paper: where it comes from, or "".
        example: a name that uses it.
        claims: what it sets; two parts with the same claim cannot be combined.
        requires: what it needs of the other parts, the plans and the dataset.
        lacks: what no trainer with this part has, for parts that require it.
        changes: the spellings of the parts that it changes; a name without any of them is refused.
        shares: claims of network parts beside which they may stand several times: the part mixes them.
        values: class attributes that it sets.
        attribute: class attribute that takes the number.
        smallest: the smallest number allowed.
        internal: not for users to train with.
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
    smallest: int = 1
    internal: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a word of this spelling looks like; the group `number` is there if the spelling has one."""
        return re.compile(re.sub(r"<\w>", lambda _: r"(?P<number>\d+)", self.spelling))


def load(path: str) -> type:
    """The class of a dotted path, imported now."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
