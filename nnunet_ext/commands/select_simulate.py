"""What `nnunet_ext select --simulate` does: replays a labelled dataset, selection by selection.

All that is trained, predicted or selected is found again by a second run: trainings in `nnUNet_results`, by the fold
that has their cases; predictions and selections in the output folder.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from nnunet_ext.commands.held_out_folds import warn_of_unknown_patients
from nnunet_ext.commands.planned_dataset import PlannedDataset
from nnunet_ext.commands.select import select_units
from nnunet_ext.commands.train import Training
from nnunet_ext.commands.training_cases import raw_folder, splits_file, training_files
from nnunet_ext.descriptions import OF_DATASET, read_description
from nnunet_ext.evaluation.summary import write_table
from nnunet_ext.files.atomic import as_read_back, says, write_json
from nnunet_ext.files.fold_folder import latest_checkpoint
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.options import (
    EnsembleOptions,
    OutputOptions,
    SelectOptions,
    SimulateOptions,
    StrategyName,
    TrainOptions,
)
from nnunet_ext.patients import patient_of
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.prediction_folder.output_lock import OutputLock
from nnunet_ext.report.learning_curve import draw_learning_curve
from nnunet_ext.selection.replay import Step
from nnunet_ext.selection.table import TABLE_NAME, boxes_in
from nnunet_ext.splits import Split, complete_folds, read_splits, shared_patients, with_fewer_cases

RESULTS_NAME = "simulation.csv"
CURVE_NAME = "simulation.png"
RECORD_NAME = "simulation.json"
SPLIT_NAME = "simulated_split.json"  # beside a training: the cases that it has
FREE = ("output", "seeds", "strategies", "device", "allow_tqdm")  # may differ from run to run
UNUSED: dict[str, Any] = {"name": "power", "seed": 0, "beta": 1.0}  # of the strategy: the replay gives its own
LOG_LINES_SHOWN = 15

Train = Callable[["Replay", int], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """A labelled dataset whose labels are revealed bit by bit.

    Attributes:
        options: of the command.
        name: of the dataset.
        files: case to its "images" and "label".
        split: the complete fold.
    """

    options: SimulateOptions
    name: str
    files: Mapping[str, Mapping[str, Any]]
    split: Split

    @classmethod
    def open(cls, options: SimulateOptions) -> Replay:
        """Finds the dataset and the fold, and checks that an earlier run in the folder had the same settings.

        Raises:
            FileNotFoundError: if the dataset is not there, not planned, or has no splits.
            ValueError: if the fold is not a complete one or has too few cases, a patient is on both sides of it, or
                the folder has the results of other settings.
        """
        name = PlannedDataset.open(options.dataset, options.plans).name
        dataset_json = read_description(raw_folder(name) / "dataset.json", OF_DATASET)
        splits = read_splits(splits_file(name))
        complete = complete_folds(splits)
        if options.fold not in complete:
            raise ValueError(
                f"A simulation needs a fold with all cases of the dataset; {splits_file(name)} has these: "
                f"{', '.join(map(str, complete)) or 'none'}. Found -f {options.fold}."
            )
        replay = cls(options, name, training_files(name, dataset_json), splits[options.fold])
        unknown = sorted({*replay.split["train"], *replay.split["val"]} - replay.files.keys())
        if unknown:
            raise ValueError(
                f"The splits must name cases of the dataset; {raw_folder(name)} has no {unknown[0]}. Split again."
            )
        replay.require_patients_apart()
        needed = options.start + options.strategy.number
        if needed > len(replay.split["train"]):
            raise ValueError(
                f"Start and first selection together need {needed} training cases; fold {options.fold} has "
                f"{len(replay.split['train'])}. Lower --start or --number."
            )
        replay.require_same_settings()
        return replay

    def require_patients_apart(self) -> None:
        """Refuses a fold that judges by a patient whose other cases it trains on; without a pattern it warns.

        Raises:
            ValueError: if there is such a patient.
        """
        if self.options.patients is None:
            warn_of_unknown_patients([self.split])
            return
        shared = shared_patients(self.split["train"], self.split["val"], self.options.patients)
        if shared:
            raise ValueError(
                f"Cases that judge must be of other patients than those that are labelled; {shared[0].patient} is on "
                f"both sides of fold {self.options.fold}. Split by patient with nnunet_ext splits."
            )

    def require_same_settings(self) -> None:
        """Records the settings, or compares them with the recorded ones.

        Raises:
            ValueError: if they differ.
        """
        self.options.output.mkdir(parents=True, exist_ok=True)
        file = self.options.output / RECORD_NAME
        content = asdict(replace(self.options, strategy=replace(self.options.strategy, **UNUSED)))
        settings = {name: value for name, value in as_read_back(content).items() if name not in FREE}
        if not file.is_file():
            write_json(settings, file)
            return
        found = json.loads(file.read_text(encoding="utf-8"))
        differing = sorted(name for name in settings if found.get(name) != settings[name])
        if differing:
            raise ValueError(
                f"A folder holds one simulation, to which only seeds and strategies can be added; in "
                f"{self.options.output} these differ: {', '.join(differing)}. Give another -o."
            )

    def start(self, seed: int) -> list[str]:
        """The cases that are labelled at the start, in whole patients."""
        pattern = self.options.patients
        patients = {case: patient_of(case, pattern) for case in self.split["train"]}
        return with_fewer_cases(self.split, patients, self.options.start, seed=seed)["train"]

    def fold_of(self, labelled: Sequence[str]) -> int:
        """The fold that trains on some cases and holds out those that judge; it is appended if there is none."""
        file = splits_file(self.name)
        splits = [*read_splits(file)]
        wanted = {"train": sorted(labelled), "val": sorted(self.split["val"])}
        for number, split in enumerate(splits):
            if {side: sorted(split[side]) for side in wanted} == wanted:
                return number
        write_json([*splits, wanted], file)
        return len(splits)

    def training(self, fold: int) -> Training:
        """The training of a fold."""
        options = self.options
        device = ("-device", options.device) if options.device else ()
        train_options = TrainOptions(
            self.name, options.configuration, (str(fold),), options.trainer, options.plans, flags=device
        )
        return Training(train_options, options.trainer, str(fold))

    def summary_of(self, fold: int) -> Path:
        """What nnU-Net writes when a training and its validation are complete."""
        return self.training(fold).folder / "validation" / "summary.json"

    def mean_dice(self, fold: int) -> float:
        """The mean foreground Dice of the validation cases."""
        summary = json.loads(self.summary_of(fold).read_text(encoding="utf-8"))
        return float(summary["foreground_mean"]["Dice"])

    def select(self, labelled: Sequence[str], fold: int, step: Step) -> list[str]:
        """The cases that a strategy adds after a step, unless an earlier run selected them."""
        folder = self.options.output / f"seed_{step.seed}" / step.strategy / f"selection_{step.round + 1}"
        if not (folder / TABLE_NAME).is_file():
            select_units(
                SelectOptions(
                    predictions=self.predictions(labelled, fold),
                    output=folder,
                    score=self.options.score,
                    strategy=replace(
                        self.options.strategy,
                        name=step.strategy,
                        seed=step.seed,
                        beta=self.options.beta_of(step.round),
                    ),
                    device=self.options.device,
                    shown=0,
                    allow_tqdm=self.options.allow_tqdm,
                ),
                {case: Case(case, self.images_of(case)) for case in self.split["train"]},
            )
        return sorted(boxes_in(folder / TABLE_NAME))

    def images_of(self, case: str) -> tuple[Path, ...]:
        """The files of a case, one per channel."""
        return tuple(Path(file) for file in self.files[case]["images"])

    def predictions(self, labelled: Sequence[str], fold: int) -> Path:
        """Predicts all cases without labels with the members of a fold; complete ones are kept.

        Raises:
            RuntimeError: if a case could not be predicted.
        """
        options = self.options
        folder = options.output / "predictions" / f"fold_{fold}"
        ensemble = EnsembleOptions(
            folds=[fold],
            members=options.members,
            tta=options.tta,
            device=options.device,
            allow_tqdm=options.allow_tqdm,
        )
        prepare_process_for(device_of(ensemble))
        pool = sorted(set(self.split["train"]) - set(labelled))
        outcome = EnsembleEngine.from_model_folders(self.training(fold).folder.parent, ensemble).predict_from_files(
            [list(map(str, self.images_of(case))) for case in pool],
            folder,
            OutputOptions(maps=(options.score.by,), continue_prediction=True),
            arguments={"members": options.members},
        )
        if outcome.failed:
            case, message = next(iter(outcome.failed.items()))
            raise RuntimeError(
                f"All unlabelled cases must be predicted; {len(outcome.failed)} failed: {case}: {message}"
            )
        return folder

    def require_own_training(self, fold: int, labelled: Sequence[str]) -> None:
        """Notes beside a training which cases it has.

        Raises:
            ValueError: if a training was begun there with other cases, or by somebody else.
        """
        folder = self.training(fold).folder
        file = folder / SPLIT_NAME
        wanted = {"train": sorted(labelled), "val": sorted(self.split["val"])}
        begun = latest_checkpoint(folder) is not None or self.summary_of(fold).is_file()
        if begun and not says(file, wanted):
            raise ValueError(
                f"A training must have the cases that the simulation gives it; {folder} was trained with others. "
                f"Remove it, or restore splits_final.json."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(wanted, file)


def simulate(options: SimulateOptions, train: Train | None = None) -> list[Step]:
    """Replays every seed with every strategy, and writes table and curve after each training.

    Args:
        options: of the command.
        train: trains a fold of the replay and validates it; None runs `nnUNetv2_train` in a process of its own.

    Returns:
        All trainings, in the order of the table.

    Raises:
        RuntimeError: if a training fails, or a case cannot be predicted.
        OutputInUseError: if another simulation is writing to the folder.
        FileNotFoundError, ValueError: see `Replay.open` and `select_units`.
    """
    replay = Replay.open(options)
    steps: list[Step] = []
    lock = OutputLock(options.output)
    try:
        for seed, strategy in product(options.seeds, options.strategies):
            for step in replayed(replay, seed, strategy, train or train_fold):
                steps.append(step)
                write_table([one.row() for one in steps], options.output / RESULTS_NAME)
                draw_learning_curve(steps, options.output / CURVE_NAME)
    finally:
        lock.release()
    return steps


def replayed(replay: Replay, seed: int, strategy: StrategyName, train: Train) -> Iterator[Step]:
    """The steps of one seed and strategy, one after the other."""
    labelled = replay.start(seed)
    added: list[str] = []
    for number in range(replay.options.rounds + 1):
        fold = replay.fold_of(labelled)
        replay.require_own_training(fold, labelled)
        if not replay.summary_of(fold).is_file():
            train(replay, fold)
        step = Step(seed, strategy, number, len(labelled), fold, replay.mean_dice(fold), tuple(added))
        logger.info("seed %d, %s, round %d: %d cases, Dice %.3f", seed, strategy, number, step.cases, step.mean_dice)
        yield step
        if number == replay.options.rounds or len(labelled) == len(replay.split["train"]):
            return
        added = replay.select(labelled, fold, step)
        labelled = sorted({*labelled, *added})


def train_fold(replay: Replay, fold: int) -> None:
    """Trains and validates a fold with `nnUNetv2_train`; one that was begun is continued.

    Raises:
        RuntimeError: if it fails.
    """
    training = replay.training(fold)
    words = training.words if latest_checkpoint(training.folder) is None else training.continuing
    log = replay.options.output / "logs" / f"fold_{fold}.log"
    run_logged([sys.executable, "-m", "nnunet_ext", *words], log)


def run_logged(command: Sequence[str], log: Path) -> None:
    """Runs a command with its output in a file.

    Raises:
        RuntimeError: if it fails; the message has the end of the output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ).returncode
    if status:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        raise RuntimeError(f"{' '.join(command[1:])} failed; its output is in {log} and ends with\n{end}")
