"""Which ensemble wrote a prediction folder: recorded, read and compared, so that a folder belongs to one ensemble."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import as_read_back
from nnunet_ext.options import EnsembleOptions

RECORD_NAME = "predict_args.json"
# Options that change what members predict or how they are put together. Device and precision change rounding only.
SETTINGS = (
    *("average", "model_weights", "tta_members", "tta", "use_gaussian", "tile_step_size"),
    *("early_exit", "fast_resampling", "adapt"),
)
CONTINUED = {"i": "-i", "previous_stage": "-prev_stage_predictions", "map_type": "--map-dtype"}
SHOWN_MEMBERS = 3  # in a message
SHA256_DIGITS = 64
SHOWN_DIGITS = 12  # of a SHA-256, in a message


class OtherEnsembleError(ValueError):
    """An output folder holds the results of another ensemble; the message names what differs."""


class OtherInputsError(ValueError):
    """A prediction that would continue with other images."""


@dataclass(frozen=True)
class Provenance:
    """What makes up an ensemble.

    Attributes:
        members: name and SHA-256 of each checkpoint, in their order; the hash is empty where none was recorded.
        settings: those of `SETTINGS`, with "stages", which a case goes through after its last member, and
            "calibration" and "postprocessing", the hashes of their content, if there are any. A record of an earlier
            version has only the settings of that version. "class_weights" is the hash of class-wise weights, None
            without.
        members_averaged: number of members that a case is averaged over, counting transforms where they are members;
            None if the record does not say.
    """

    members: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any]
    members_averaged: int | None = None

    def with_class_weights(self, sha256: str | None) -> Provenance:
        """The same with the hash of the content of class-wise weights, or None for an ensemble without them."""
        return replace(self, settings={**self.settings, "class_weights": sha256})

    def record(self) -> dict[str, Any]:
        """The entry `ensemble` of `predict_args.json`; the members are recorded beside it."""
        return {**self.settings, "members_averaged": self.members_averaged}


def provenance_of(
    options: EnsembleOptions,
    members: Iterable[Mapping[str, Any]],
    *,
    members_averaged: int,
    stages: Sequence[str],
    calibration: str | None,
    postprocessing: str | None = None,
) -> Provenance:
    """The provenance of an ensemble that is about to predict.

    Args:
        options: options of the ensemble.
        members: what is recorded of each: its name, SHA-256 and so on.
        members_averaged: number of members that a case is averaged over.
        stages: names of the stages that follow the last member.
        calibration: hash of the content of the calibration; None without one.
        postprocessing: hash of the steps of the post-processing; None without any.
    """
    settings = {name: getattr(options, name) for name in SETTINGS} | {"stages": list(stages)}
    if calibration is not None:
        settings["calibration"] = calibration
    if postprocessing is not None:
        settings["postprocessing"] = postprocessing
    return Provenance(named_files(members), as_read_back(settings), members_averaged)


def read_record(folder: Path) -> dict[str, Any]:
    """Content of `predict_args.json`; empty in a folder without it, such as one of stock nnU-Net."""
    file = folder / RECORD_NAME
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def read_provenance(folder: Path) -> Provenance | None:
    """The ensemble that a folder records; None in a folder without a record, such as one of stock nnU-Net.

    Raises:
        ValueError: if the record is damaged.
    """
    file = folder / RECORD_NAME
    if not file.is_file():
        return None
    try:
        return recorded_provenance(read_record(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{RECORD_NAME} describes the ensemble that wrote a folder; {file} cannot be read "
            f"({type(error).__name__}: {error}). Predict into another folder."
        ) from error


def recorded_provenance(description: Mapping[str, Any]) -> Provenance:
    """The ensemble of a `predict_args.json`, including one written by an earlier version of this package.

    Earlier versions recorded members and arguments only. Arguments that affect the ensemble are taken from there;
    they say that a calibration was applied, but not which.
    """
    members = named_files(description.get("members", ()))
    if "ensemble" in description:
        settings = with_transforms(description["ensemble"])
        return Provenance(members, settings, settings.pop("members_averaged", None))
    arguments = description.get("arguments", {})
    known = with_transforms(arguments)
    settings = {name: known[name] for name in SETTINGS if name in known}
    if "calibrated" in arguments:
        settings["stages"] = ["describe", "calibrate"] if arguments["calibrated"] else ["describe"]
    one_each = arguments.get("tta_members") is False
    return Provenance(members, settings, len(members) if one_each else None)


def with_transforms(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings, with the name of the test-time transforms in place of an earlier version's yes or no."""
    known = dict(settings)
    if "use_mirroring" in known:
        known["tta"] = "flips" if known.pop("use_mirroring") else "none"
    return known


def named_files(members: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Name and SHA-256 of each member."""
    return tuple((member["name"], member.get("sha256", "")) for member in members)


def differences(found: Provenance, wanted: Provenance) -> list[str]:
    """How two ensembles differ, one phrase each; empty if they are the same as far as both records say."""
    members = _differing_members(found.members, wanted.members)
    settings = [
        f"{name}: found {_shown(found.settings[name])}, asked for {_shown(value)}"
        for name, value in wanted.settings.items()
        if name in found.settings and found.settings[name] != value
    ]
    return members + settings


def require_same_ensemble(folder: Path, found: Provenance | None, wanted: Provenance) -> None:
    """Refuses a folder whose results are not those of the ensemble that is about to predict.

    Raises:
        OtherEnsembleError: if anything differs, or the folder does not record its ensemble.
    """
    differing = ["it has no record of its ensemble"] if found is None else differences(found, wanted)
    if differing:
        raise OtherEnsembleError(
            f"An output folder holds the results of one ensemble; {folder} holds those of another one: "
            f"{'; '.join(differing)}. Choose another folder with -o, or delete this one if its results are no longer "
            f"needed."
        )


def require_same_inputs(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to continue with other images: cases of the same names would count as done.

    Args:
        folder: of the results.
        before: arguments in its record.
        now: arguments of the run that is about to continue.

    Raises:
        OtherInputsError: if images, previous stage or the type of the maps differ, where both name them.
    """
    now = as_read_back(now)
    differing = [
        f"{flag}: found {before[name]}, asked for {now[name]}"
        for name, flag in CONTINUED.items()
        if name in before and name in now and before[name] != now[name]
    ]
    if differing:
        raise OtherInputsError(
            f"A prediction continues with what it began with; {folder} differs in {'; '.join(differing)}. Use the "
            f"same, or predict into another folder with -o."
        )


def _differing_members(found: Sequence[tuple[str, str]], wanted: Sequence[tuple[str, str]]) -> list[str]:
    if [name for name, _ in found] != [name for name, _ in wanted]:
        return [f"members: found {_listed(found)}, asked for {_listed(wanted)}"]
    changed = [
        f"{name}: found the checkpoint {before[:SHOWN_DIGITS]}, asked for {now[:SHOWN_DIGITS]}"
        for (name, before), (_, now) in zip(found, wanted, strict=True)
        if before and now and before != now
    ]
    more = len(changed) - SHOWN_MEMBERS
    return changed[:SHOWN_MEMBERS] + ([f"{more} more checkpoints differ"] if more > 0 else [])


def _listed(members: Sequence[tuple[str, str]]) -> str:
    names = [name for name, _ in members]
    more = len(names) - SHOWN_MEMBERS
    return f"{len(names)} ({', '.join(names[:SHOWN_MEMBERS] + ([f'{more} more'] if more > 0 else []))})"


def _shown(value: object) -> str:
    """A setting in a message: lists and groups of options as words, hashes by their beginning."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, str) and len(value) == SHA256_DIGITS:
        return value[:SHOWN_DIGITS]
    return "none" if value is None else str(value)
