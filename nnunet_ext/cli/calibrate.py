"""`nnunet_ext calibrate`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import add_ensemble_flags, ensemble_options, log_progress, say_where
from nnunet_ext.cli.model_flags import model_choice
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.postprocess_flag import add_postprocess_flag, chosen_postprocessing
from nnunet_ext.cli.splits_flag import add_splits_flag
from nnunet_ext.options import TEMPERATURES, CalibrateOptions, FitOptions, TemperatureKind


def calibrate_flags(parser: argparse.ArgumentParser) -> None:
    add_ensemble_flags(parser)
    add_postprocess_flag(parser)
    data = parser.add_argument_group("cases")
    add_splits_flag(data)
    add_patients_flag(data)
    fit, default = parser.add_argument_group("what to fit"), FitOptions()
    fit.add_argument(
        "--temperature",
        type=temperature_kind,
        metavar="{" + ",".join([*TEMPERATURES, "T"]) + "}",
        default=default.temperature,
        help="one temperature for all classes, or one per class; both are fitted and evaluated, and regions have one "
        f"each; or a number that is not fitted (default: {default.temperature})",
    )
    fit.add_argument(
        "--confidence",
        default=default.confidence,
        metavar="COLUMN",
        help="column of cases.csv that predicted Dice and verdict are based on (default: auto, the lowest AURC)",
    )
    fit.add_argument(
        "--failure-dice",
        type=float,
        default=default.failure_dice,
        metavar="DICE",
        help=f"a case with a lower Dice is a failure (default: {default.failure_dice})",
    )
    fit.add_argument(
        "--recall",
        type=float,
        default=default.recall,
        metavar="SHARE",
        help=f"share of the failures that the verdict must catch (default: {default.recall})",
    )
    fit.add_argument(
        "--level",
        type=float,
        default=default.level,
        help=f"coverage of the interval around the predicted Dice (default: {default.level})",
    )
    fit.add_argument(
        "--miss-rate",
        type=float,
        metavar="ALPHA",
        help="share of a patient's foreground that covering masks may miss on average (default: 0.1; none with "
        "fewer than 9 patients that have foreground)",
    )
    parser.add_argument(
        "-o",
        metavar="FILE",
        help="file for the calibration; required with several -m (default: calibration.json in the model folder)",
    )


def calibrate(arguments: argparse.Namespace) -> int:
    from nnunet_ext.calibration.text import calibration_lines
    from nnunet_ext.commands.calibrate import calibrate_model

    log_progress()
    options = calibrate_options(arguments)
    say_where(options.ensemble)
    calibration, file = calibrate_model(options)
    print(*calibration_lines(calibration), "", f"Saved to {file}", sep="\n")
    return 0


def temperature_kind(word: str) -> TemperatureKind | float:
    """A kind of temperature, or a number."""
    for kind in TEMPERATURES:
        if word == kind:
            return kind
    try:
        return float(word)
    except ValueError:
        known = ", ".join(TEMPERATURES)
        raise argparse.ArgumentTypeError(f"must be one of {known}, or a number; found {word!r}") from None


def calibrate_options(arguments: argparse.Namespace) -> CalibrateOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other, or a value is out of range.
    """
    return CalibrateOptions(
        model=model_choice(arguments),
        ensemble=replace(ensemble_options(arguments), postprocess=chosen_postprocessing(arguments)),
        fit=FitOptions(
            temperature=arguments.temperature,
            confidence=arguments.confidence,
            failure_dice=arguments.failure_dice,
            recall=arguments.recall,
            level=arguments.level,
            miss_rate=arguments.miss_rate,
        ),
        file=Path(arguments.o) if arguments.o else None,
        splits=Path(arguments.splits) if arguments.splits else None,
        patients=arguments.patients,
        previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
    )


COMMAND = Command(
    "calibrate",
    "calibrate probabilities, and fit predicted Dice and verdicts, on the cross-validation",
    calibrate_flags,
    calibrate,
    """example:
  $ nnunet_ext calibrate -d 123 -c 2d
  ...
  Saved to nnUNet_results/Dataset123_Heart/nnUNetTrainer__nnUNetPlans__2d/calibration.json
  $ nnunet_ext predict -i images -o results -d 123 -c 2d --calibrated""",
)
