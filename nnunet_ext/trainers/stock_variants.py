"""nnU-Net's own trainer variants as parts of a name. nnU-Net is imported only when it is searched."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.trainers.part import PREFIX, Claim

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

# What a stock variant sets, by the hook that it overrides. Two parts may not set the same thing.
CLAIMS_BY_HOOK = {
    "build_network_architecture": Claim.PLANNED_NETWORK,
    "_build_loss": Claim.LOSS,
    "configure_optimizers": Claim.OPTIMIZER,
    "on_train_epoch_start": Claim.LEARNING_RATE,
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": Claim.MIRRORING,
    "get_training_transforms": Claim.AUGMENTATION,
}
# Variants whose configure_optimizers also sets its own schedule.
SCHEDULING_VARIANTS = ("CosAnneal", "warmup", "Primus")


def stock_variant(word: str) -> type[nnUNetTrainer] | None:
    """nnU-Net's variant with this name after `nnUNetTrainer` (`DA5`, `onlyMirror01_DA5`), or None."""
    return stock_class(f"{PREFIX}{word}") or stock_class(f"{PREFIX}_{word}")


@cache
def stock_class(name: str) -> type[nnUNetTrainer] | None:
    """nnU-Net's own trainer of this name, or None; external folders are not searched."""
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    package = Path(nnunetv2.__path__[0])
    return recursive_find_python_class(
        str(package / "training" / "nnUNetTrainer"), name, "nnunetv2.training.nnUNetTrainer", str(package)
    )


def claims_of(variant: type[nnUNetTrainer]) -> frozenset[Claim]:
    """What a stock variant sets, derived from the hooks that it overrides."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    own_classes = variant.__mro__[: variant.__mro__.index(nnUNetTrainer)]
    claims = {claim for hook, claim in CLAIMS_BY_HOOK.items() if any(hook in vars(cls) for cls in own_classes)}
    if any(word in cls.__name__ for cls in own_classes for word in SCHEDULING_VARIANTS):
        claims.add(Claim.LEARNING_RATE)
    if any(re.search(r"\d+ep(ochs?)?(_|$)", cls.__name__) for cls in own_classes):
        claims.add(Claim.EPOCHS)
    return frozenset(claims)


def loaded_stock_words() -> list[str]:
    """The names of nnU-Net's own variants whose modules are imported; searching with `stock_class` imports all."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    words, classes = [], [nnUNetTrainer]
    while classes:
        subclasses = [cls for cls in classes.pop().__subclasses__() if cls.__module__.startswith("nnunetv2.")]
        words += [cls.__name__.removeprefix(PREFIX).lstrip("_") for cls in subclasses]
        classes += subclasses
    return words
