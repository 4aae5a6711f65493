"""Everything that was fitted to a model's cross-validation, as one JSON file in the model folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunet_ext.calibration.file_form import require_form
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.risk_control import MaskThreshold
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Measure, Threshold, verdict
from nnunet_ext.evaluation.confidences import DIRECTIONS, confidence_of
from nnunet_ext.files.atomic import without_nan, write_json
from nnunet_ext.files.strict_json import read_strict_json
from nnunet_ext.options.recorded_settings import differences

FILE_NAME = "calibration.json"
FORMAT = 1


class CalibrationError(ValueError):
    """A calibration that is missing, damaged, or from another ensemble."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and on what.

    Attributes:
        temperature: of the ensemble's mean probabilities: `values`, one per output, and whether these are `regions`.
        confidence: the column of `cases.csv` that quality and verdict are based on.
        quality: knots of the map from confidence to predicted Dice, of which the first and the last are the range in
            which there is an estimate, its interval, and numbers of cases and patients (`groups`).
        threshold: of the verdict: `confidence_threshold` (negated for an uncertainty; None if no case failed),
            `failure_dice`, what it catches and what it costs in calibration.
        mask: of the covering masks: `threshold`, `alpha`, the calibration patients' mean `risk`; None if there were
            too few patients.
        settings: how the ensemble is put together, see `EnsembleEngine.settings`; another one is refused.
        fitted_on: `folds`, `members` (name and SHA-256), numbers of `cases` and `patients`, `flagged_cases`, and both
            kinds of `temperatures`.
        figures: how well the fit does on cases that were left out of it: `temperature`, `quality`, and `confidences`,
            how well each column finds the failures.
        cases: rows of `cases.csv` of the cases it was fitted on, with their `dice` and `patient`.
    """

    temperature: Temperature
    confidence: str
    quality: QualityMap
    threshold: Threshold
    mask: MaskThreshold | None
    settings: Mapping[str, Any]
    fitted_on: Mapping[str, Any]
    figures: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]

    def columns(self, row: Mapping[str, Any], fold_rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, object]:
        """Columns for a row of `cases.csv`: the confidence that is judged, predicted Dice, interval and verdict.

        Every case of the fit was predicted by one fold. Members of several folds differ more than those of one, so
        their ensemble is less confident than any case of the fit, although its Dice is higher. Of several folds it
        is therefore the mean of their own confidences that is judged. The interval's upper end is that of the most
        confident fold, see `QualityMap.interval`.

        Args:
            row: the case's row without these columns.
            fold_rows: the row of each fold's own members; empty if the ensemble has one fold.

        Returns:
            The columns by name. The predicted Dice is None where there is no estimate. So are the ends of its
            interval, also if there were too few patients for one; see `QualityMap`.
        """
        confidences = [confidence_of(one, self.confidence) for one in fold_rows or [row]]
        confidence, most_confident = fmean(confidences), max(confidences)
        predicted = self.quality.predicted_dice(confidence)
        low, high = self.quality.interval(confidence, most_confident) or (None, None)
        judged = verdict(
            confidence,
            list(row["flags"]),
            self.quality,
            self.threshold,
            measure=Measure(self.confidence, DIRECTIONS[self.confidence]),
            most_confident=most_confident,
        )
        return {
            "judged_confidence": DIRECTIONS[self.confidence] * confidence,
            "predicted_dice": predicted,
            "predicted_dice_low": low,
            "predicted_dice_high": high,
            "verdict": judged.word,
            "verdict_reason": judged.reason,
        }

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuses an ensemble that is put together differently from the one that was fitted.

        A setting that only one of the two has counts as None in the other.

        Raises:
            CalibrationError: if a setting differs.
        """
        for name, fitted, asked in differences(self.settings, settings):
            raise CalibrationError(
                f"A calibration belongs to the ensemble that it was fitted for; its {name} is {fitted!r}, this "
                f"ensemble's is {asked!r}. Predict with the same value, or run nnunet_ext calibrate with these flags."
            )

    def require_members(self, members: Iterable[tuple[str, str]]) -> None:
        """Refuses members that were retrained since the fit.

        Args:
            members: name and SHA-256 of each. Members of folds that were not fitted are accepted.

        Raises:
            CalibrationError: if a member has the name of one that was fitted, but is another file.
        """
        files = member_files(self.fitted_on)
        names = {name for name, _ in files}
        for name, sha256 in members:
            if name in names and (name, sha256) not in files:
                raise CalibrationError(
                    f"A calibration belongs to the checkpoints that it was fitted for; {name} is another file now, "
                    f"for instance after retraining. Run nnunet_ext calibrate again."
                )

    def require_every_pass(self, folds: int, early_exit: str | None) -> None:
        """Refuses early exit with several folds: what was fitted needs every fold's own members everywhere.

        Args:
            folds: number of folds of the ensemble.
            early_exit: see `EnsembleOptions`; None runs every member.

        Raises:
            CalibrationError: if both are given.
        """
        if early_exit and folds > 1:
            raise CalibrationError(
                f"A calibration judges every fold by its own members, some of which --early-exit does not run; found "
                f"both, and {folds} folds. Leave out --early-exit, or predict with one fold: -f 0."
            )

    @property
    def temperature_kind(self) -> str | None:
        """The kind of temperature: "global", "per-class" or "fixed"; None if the file does not tell."""
        kinds = self.fitted_on.get("temperatures", {})
        applied = list(self.temperature.values)
        return next((kind for kind, fitted in kinds.items() if list(fitted["values"]) == applied), None)

    @property
    def sha256(self) -> str:
        """Hash of the content, the same for a calibration in memory and for every copy of its file."""
        text = json.dumps(without_nan(self.as_json()), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The content that `save` writes."""
        return {
            "format": FORMAT,
            "settings": self.settings,
            "fitted_on": self.fitted_on,
            "figures": self.figures,
            "temperature": self.temperature.as_json(),
            "confidence": self.confidence,
            "quality": self.quality.as_json(),
            "threshold": self.threshold.as_json(),
            "mask": None if self.mask is None else self.mask.as_json(),
            "cases": list(self.cases),
        }

    def save(self, file: Path) -> None:
        """Writes the file, atomically."""
        write_json(without_nan(self.as_json()), file)

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Reads what `save` wrote.

        Raises:
            CalibrationError: if there is no such file, or it contains something else.
        """
        if not file.is_file():
            raise CalibrationError(
                f"--calibrated needs a calibration; {file} does not exist. Run nnunet_ext "
                f"calibrate with the same model and members first."
            )
        try:
            content = read_strict_json(file)
            found = content["format"]
            if found != FORMAT:
                raise ValueError(f"the format must be {FORMAT}, found {found}")
            if content["confidence"] not in DIRECTIONS:
                raise ValueError(f"the confidence is not a column of cases.csv: {content['confidence']!r}")
            require_form(content)
            return cls(
                temperature=Temperature.from_json(content["temperature"]),
                confidence=content["confidence"],
                quality=QualityMap.from_json(content["quality"]),
                threshold=Threshold.from_json(content["threshold"]),
                mask=None if content["mask"] is None else MaskThreshold.from_json(content["mask"]),
                settings=content["settings"],
                fitted_on=content["fitted_on"],
                figures=content["figures"],
                cases=content["cases"],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(
                f"{file} is not a calibration, or is damaged ({type(error).__name__}: {error}). Run nnunet_ext "
                f"calibrate again."
            ) from error


def member_files(fitted_on: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Name and SHA-256 of each member that was fitted."""
    return {(member["name"], member["sha256"]) for member in fitted_on["members"]}
