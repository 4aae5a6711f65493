"""Finds the members of an ensemble, the checkpoints of its folds, and checks that they belong together."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.files.checkpoints import (
    CANNOT_SEGMENT_KEY,
    EXTRA_STATE_KEY,
    CheckpointError,
    cast_weights,
    file_sha256,
    load_checkpoint,
)
from nnunet_ext.files.listing import visible_files
from nnunet_ext.models.training_facts import differing, facts_of_checkpoint
from nnunet_ext.samples import (
    MANIFEST,
    changed_message,
    read_manifest,
    select_all_modes,
    select_last_cycle,
)

FIXED_RULES = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}
SAMPLE_RULES = {"samples": select_all_modes, "last-cycle": select_last_cycle}
DROPOUT_RULE = "mc-dropout"
DEFAULT_DROPOUT_DRAWS = 10  # as in arXiv 2212.06278
POSTERIOR_FILE = "checkpoint_posterior.pth"  # a whole ensemble in one file: a member only if named without wildcards

logger = logging.getLogger(__name__)


class MemberError(ValueError):
    """Members are missing or do not belong together; the message names them."""


@dataclass(frozen=True)
class MemberRule:
    """Which checkpoints of a fold are members: `--members NAME[:COUNT[:STRIDE]]`.

    Attributes:
        name: "final", "best", "samples", "last-cycle", "mc-dropout", or a file name with or without wildcards.
        count: the largest number of members per fold; None takes all.
        stride: take every `stride`-th checkpoint, counted back from the last.
    """

    name: str
    count: int | None = None
    stride: int = 1

    @classmethod
    def parse(cls, text: str) -> MemberRule:
        """Reads "samples", "samples:30", "last-cycle:30:2", "mc-dropout:10" or "checkpoint_*.pth:5".

        Raises:
            MemberError: if the text is none of these forms.
        """
        match = re.fullmatch(r"([^:]+)(?::([1-9]\d*))?(?::([1-9]\d*))?", text)
        words = (*FIXED_RULES, *SAMPLE_RULES, DROPOUT_RULE)
        known = match and (match[1] in words or match[1].endswith(".pth"))
        if not match or not known or (match[1] == DROPOUT_RULE and match[3]):
            raise MemberError(
                f"Members must be final, best, samples, last-cycle or a file pattern such as 'checkpoint_*.pth', "
                f"each with an optional :COUNT and :STRIDE, or mc-dropout with an optional :COUNT; found {text!r}."
            )
        return cls(match[1], int(match[2]) if match[2] else None, int(match[3] or 1))

    def files_in(self, fold_folder: Path) -> list[Path]:
        """The checkpoint files of a fold that are members, in order of training; empty if there are none."""
        if self.name in SAMPLE_RULES:
            samples = SAMPLE_RULES[self.name](read_manifest(fold_folder), self.count, stride=self.stride)
            return [fold_folder / sample.file for sample in samples]
        pattern = self.wanted
        files = visible_files(fold_folder, pattern)
        if pattern != POSTERIOR_FILE:
            files = [path for path in files if path.name != POSTERIOR_FILE]
        return files if self.dropout_draws else files[:: -self.stride][: self.count][::-1]

    @property
    def dropout_draws(self) -> int:
        """Number of dropout draws per file that are members; 0 if the files themselves are the members."""
        return (self.count or DEFAULT_DROPOUT_DRAWS) if self.name == DROPOUT_RULE else 0

    @property
    def wanted(self) -> str:
        """The file or pattern that the rule looks for."""
        if self.name in SAMPLE_RULES:
            return MANIFEST
        return FIXED_RULES["final"] if self.dropout_draws else FIXED_RULES.get(self.name, self.name)


@dataclass(frozen=True)
class Member:
    """One checkpoint of one fold.

    Attributes:
        name: unique name within the model folder, for example "fold_0/checkpoint_final".
        path: path of the checkpoint.
        sha256: SHA-256 of the file.
        trainer_name: name of the trainer class that built the network.
        configuration: name of the configuration in the plans.
        mirror_axes: spatial axes that were mirrored in training, or None.
        trust: whether the file may hold any Python object.
        dropout_seed: seed of a dropout draw; None runs the network without dropout.
        facts: what the checkpoint was trained with, see `training_facts`.
    """

    name: str
    path: Path
    sha256: str
    trainer_name: str
    configuration: str
    mirror_axes: tuple[int, ...] | None
    trust: bool = False
    dropout_seed: int | None = None
    facts: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def fold(self) -> str:
        """Name of the fold's folder, for example "fold_0"."""
        return self.path.parent.name

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights in fp32; memory-mapped, so that weights stored in fp32 take no memory of their own."""
        checkpoint = load_checkpoint(self.path, trust=self.trust, mmap=True)
        return cast_weights(checkpoint["network_weights"], torch.float32)

    def record(self) -> dict[str, str]:
        """What `predict_args.json` records about the member."""
        return {
            "name": self.name,
            "file": str(self.path),
            "sha256": self.sha256,
            "trainer": self.trainer_name,
            "configuration": self.configuration,
        }


def find_members(
    model_folder: Path, folds: Sequence[int | str] | str | None, rule: MemberRule, *, trust: bool = False
) -> list[Member]:
    """The members of a model folder, ordered by fold and then by training.

    Args:
        model_folder: a `TRAINER__PLANS__CONFIGURATION` folder with its `fold_X` folders.
        folds: the folds to use; None uses every fold that has members (`fold_all` only if it is the only one).
        rule: which checkpoints of each fold are members.
        trust: allow checkpoints that hold more than data.

    Raises:
        MemberError: if a chosen fold has no members, no fold has any, or the members do not belong together.
        CheckpointError: if a file is damaged or is not an nnU-Net checkpoint, its weights are not finite, or a sample
            is not the file that the training wrote.
    """
    if folds is None:
        fold_folders = folders_with_members(model_folder, rule)
    else:
        fold_folders = [model_folder / f"fold_{fold}" for fold in ([folds] if isinstance(folds, str) else folds)]
    if not fold_folders:
        raise MemberError("An ensemble needs at least one fold; found an empty list. Leave folds out to take all.")
    files: list[Path] = []
    for folder in fold_folders:
        found = rule.files_in(folder)
        if not found:
            raise MemberError(
                f"Every chosen fold must have members; {folder} has no {rule.wanted}. Train that fold, leave it "
                f"out of -f, or choose others with --members."
            )
        files += found
    if any(path.name == POSTERIOR_FILE for path in files):
        logger.warning(
            "%s is a whole ensemble in one network, made for stock nnUNetv2_predict; here it counts as one member, "
            "so the disagreement of its samples is lost. Use --members samples to make each sample a member.",
            POSTERIOR_FILE,
        )
    members = [read_member(path, trust=trust) for path in files]
    if rule.name in SAMPLE_RULES:
        require_recorded_files(members)
    require_same_model(members)
    return [draw for member in members for draw in dropout_members(member, rule.dropout_draws)] or members


def dropout_members(member: Member, draws: int) -> list[Member]:
    """One member per dropout draw of a checkpoint, each with its own seed; empty without draws."""
    name = member.name.rpartition("/")[0] + f"/{DROPOUT_RULE}"
    return [replace(member, name=f"{name}_{seed:02d}", dropout_seed=seed) for seed in range(draws)]


def folders_with_members(model_folder: Path, rule: MemberRule) -> list[Path]:
    """The `fold_X` folders that have members; `fold_all` only if it is the only one.

    Raises:
        MemberError: if no fold has members.
    """
    folders = [path for path in model_folder.glob("fold_*") if path.is_dir() and rule.files_in(path)]
    folders.sort(key=lambda path: (len(path.name), path.name))  # fold_10 after fold_2
    numbered = [path for path in folders if path.name != "fold_all"]
    if not folders:
        there = sorted(path.name for path in model_folder.glob("fold_*") if path.is_dir())
        present = ", ".join(there) or "no folds"
        raise MemberError(
            f"A model folder must hold fold_X folders with {rule.wanted}; {model_folder} has {present}, none with "
            f"such a file. Is the training finished, and does its trainer write them? Choose others with --members."
        )
    return numbered or folders


def read_member(path: Path, *, trust: bool = False) -> Member:
    """Reads a checkpoint once, checks it, and returns what identifies it, without its weights.

    Raises:
        CheckpointError: if it is damaged, is not an nnU-Net checkpoint, was trained without labels, or has weights
            that are NaN or infinite.
    """
    checkpoint = load_checkpoint(path, trust=trust)  # not memory-mapped: only a full read verifies the checksums
    missing = [key for key in ("network_weights", "init_args", "trainer_name") if key not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{path} is not an nnU-Net checkpoint: it lacks {', '.join(missing)}. "
            "Choose a file that a training wrote."
        )
    require_form(checkpoint, path)
    require_segmentation(checkpoint, path)
    require_finite(checkpoint["network_weights"], path)
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    return Member(
        name=f"{path.parent.name}/{path.stem}",
        path=path,
        sha256=file_sha256(path),
        trainer_name=checkpoint["trainer_name"],
        configuration=checkpoint["init_args"]["configuration"],
        mirror_axes=None if axes is None else tuple(axes),
        trust=trust,
        facts=facts_of_checkpoint(checkpoint),
    )


def require_form(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint whose entries do not have the types that nnU-Net stores: it was not written by nnU-Net."""
    weights, init_args = checkpoint["network_weights"], checkpoint["init_args"]
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    expected = {
        "network_weights must map names to tensors": isinstance(weights, Mapping)
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items()),
        "init_args must name the configuration": isinstance(init_args, Mapping)
        and isinstance(init_args.get("configuration"), str),
        "trainer_name must be a name": isinstance(checkpoint["trainer_name"], str),
        "inference_allowed_mirroring_axes must be a list of axes or None": axes is None
        or (isinstance(axes, (list, tuple)) and all(isinstance(axis, Integral) for axis in axes)),
    }
    for rule, holds in expected.items():
        if not holds:
            raise CheckpointError(
                f"{path} is not an nnU-Net checkpoint: its {rule}. Choose a file that a training wrote."
            )


def require_segmentation(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint of a training without labels, which is marked as unable to segment."""
    added = checkpoint.get(EXTRA_STATE_KEY)
    if isinstance(added, Mapping) and added.get(CANNOT_SEGMENT_KEY):
        raise CheckpointError(
            f"Members must be networks that segment; {path} was written by {checkpoint['trainer_name']}, a training "
            f"without labels. Train on labels starting from it with -pretrained_weights, and predict with the result."
        )


def require_recorded_files(samples: Iterable[Member]) -> None:
    """Refuses samples whose SHA-256 is not the one recorded in samples.json."""
    recorded = {}
    for member in samples:
        folder = member.path.parent
        if folder not in recorded:
            recorded[folder] = {sample.file: sample.sha256 for sample in read_manifest(folder)}
        expected = recorded[folder][member.path.name]
        if expected and member.sha256 != expected:
            raise CheckpointError(changed_message(member.path))


def require_finite(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Refuses weights that are NaN or infinite: the training diverged or the file is damaged."""
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"All weights must be finite; {path} has NaN or infinite values in {len(broken)} tensors, the first of "
            f"them {broken[0]}. Train again, or leave this member out with -f or --members."
        )


def require_same_model(members: Iterable[Member]) -> None:
    """Refuses members of different trainers, configurations, mirror axes or plans; warns if two files are identical.

    Stock nnU-Net takes these settings from the first fold without checking the others.
    """
    members = list(members)
    first = members[0]
    for attribute, word in (
        ("trainer_name", "trainer"),
        ("configuration", "configuration"),
        ("mirror_axes", "mirror axes"),
    ):
        for member in members:
            expected, found = getattr(first, attribute), getattr(member, attribute)
            if found != expected:
                raise MemberError(
                    f"All members of a model folder must have the same {word}; {first.path} has {expected}, "
                    f"{member.path} has {found}. Choose members of one training with --members and -f, or give "
                    f"several model folders with -m."
                )
    for member in members:
        unlike = differing(first.facts, member.facts)
        if unlike:
            raise MemberError(
                f"All members of a model folder must be trained with the same plans and labels; {first.path} and "
                f"{member.path} differ in {', '.join(unlike)}. Choose folds with -f that were trained with the same "
                f"plans, or retrain the others."
            )
    seen: dict[str, Member] = {}
    for member in members:
        if member.sha256 in seen:
            logger.warning(
                "%s and %s are identical and count twice in the ensemble. Leave one out with -f or --members.",
                *(seen[member.sha256].path, member.path),
            )
        seen[member.sha256] = member
