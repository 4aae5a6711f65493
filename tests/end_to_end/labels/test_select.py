"""`nnunet_ext select --simulate` on a phantom: three tiny trainings, then a second run that finds them."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import nnunet_in_this_process
from tiny_datasets import PLANS, Dataset

from nnunet_ext.commands.select_simulate import SPLIT_NAME, Replay, Step, run_logged, simulate
from nnunet_ext.options import ScoreOptions, SimulateOptions, StrategyOptions

TRAINER = "nnUNetTrainer_1epochs_2iters"  # so long in no other test


@pytest.fixture(scope="module")
def splits_file(plain_dataset: Dataset, variables) -> Iterator[Path]:
    """That of the dataset, which other tests find as it was."""
    file = Path(variables["nnUNet_preprocessed"]) / plain_dataset.raw.name / "splits_final.json"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)


@pytest.fixture(scope="module")
def options(plain_dataset, splits_file, tmp_path_factory) -> SimulateOptions:
    """Of five cases two are labelled, and one more; the sixth judges."""
    return SimulateOptions(
        dataset=plain_dataset.number,
        configuration="2d",
        output=tmp_path_factory.mktemp("simulation"),
        plans=PLANS,
        trainer=TRAINER,
        start=2,
        rounds=1,
        seeds=(0,),
        strategies=("k-centre", "random"),
        strategy=StrategyOptions(number=1),
        score=ScoreOptions(by="tta_variance"),
        device="cpu",
        allow_tqdm=False,
    )


@pytest.fixture(scope="module")
def replayed(options, plain_dataset, train_here, variables) -> tuple[list[Step], list[int]]:
    """The steps, and the folds that were trained for them."""
    trained: list[int] = []

    def train(_: Replay, fold: int) -> None:
        trained.append(fold)
        train_here(plain_dataset, "2d", fold, TRAINER, validate=True)

    with nnunet_in_this_process(variables):
        return simulate(options, train), trained


def test_each_set_of_labelled_cases_is_trained_once(replayed, splits_file):
    """Both strategies begin with the same cases, and may even add the same one."""
    steps, trained = replayed
    assert [(step.strategy, step.round, step.cases) for step in steps] == [
        ("k-centre", 0, 2),
        ("k-centre", 1, 3),
        ("random", 0, 2),
        ("random", 1, 3),
    ]
    assert sorted(trained) == sorted({step.fold for step in steps})
    splits = json.loads(splits_file.read_text())
    for step in steps:
        assert len(splits[step.fold]["train"]) == step.cases
        assert splits[step.fold]["val"] == splits[0]["val"]


def test_what_is_added_is_a_case_of_the_predicted_pool(replayed, options, splits_file):
    steps, _ = replayed
    start, after = steps[:2]
    splits = json.loads(splits_file.read_text())
    assert {*splits[start.fold]["train"], *after.added} == {*splits[after.fold]["train"]}
    assert len(after.added) == 1
    predicted = options.output / "predictions" / f"fold_{start.fold}" / "maps" / "tta_variance"
    assert len(list(predicted.iterdir())) == 3  # the pool alone


def test_table_and_curve_hold_every_training(replayed, options):
    steps, _ = replayed
    with (options.output / "simulation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_dice"]) for row in rows] == pytest.approx([step.mean_dice for step in steps], rel=1e-5)
    assert rows[1]["added"] == steps[1].added[0]
    assert (options.output / "simulation.png").read_bytes().startswith(b"\x89PNG")


def flags_of(options: SimulateOptions, *more: object) -> list[object]:
    return [
        *("select", "--simulate", options.dataset, "-c", "2d", "--plans", PLANS, "-tr", TRAINER),
        *("-o", options.output, "--start", 2, "--number", 1, "--rounds", 1, "--seeds", 0, "--by", "tta_variance"),
        *("--strategies", *options.strategies, "-device", "cpu", "--disable_progress_bar", *more),
    ]


def test_a_second_run_trains_and_predicts_nothing(replayed, options, run_here, capsys):
    """The command trains in a process of its own, which would leave a log."""
    before = (options.output / "simulation.csv").read_bytes()
    assert run_here(*flags_of(options)) == 0
    assert (options.output / "simulation.csv").read_bytes() == before
    assert not (options.output / "logs").exists()
    assert "k-centre - random, mean over the rounds: " in capsys.readouterr().out


def test_a_training_that_had_other_cases_is_refused(replayed, options, run_here, variables, capsys):
    """As after other splits: the folds' numbers are the same, the cases are not."""
    (note,) = Path(variables["nnUNet_results"]).glob(f"*/*/fold_{replayed[0][0].fold}/{SPLIT_NAME}")
    before = note.read_text()
    note.write_text(json.dumps({**json.loads(before), "train": ["other"]}))
    assert run_here(*flags_of(options)) == 1
    assert f"{note.parent} was trained with others" in capsys.readouterr().err
    note.write_text(before)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--number", 2), "one simulation, to which only seeds and strategies can be added"),
        (("--start", 5), "Start and first selection together need 6 training cases; fold 0 has 5"),
        (("-f", 2), "A simulation needs a fold with all cases of the dataset"),
        (("--unit", "slice"), "A simulation labels whole cases"),
        (("--rounds", 0), "--rounds must be 1 or more"),
        (("--patients", "Phantom"), "must have a group"),
    ],
)
def test_what_cannot_be_replayed_is_refused(replayed, options, run_here, capsys, more, message):
    assert run_here(*flags_of(options, *more)) == 1
    assert message in capsys.readouterr().err


def test_the_end_of_a_failed_training_is_shown(tmp_path):
    with pytest.raises(RuntimeError, match=r"ends with\s+no memory left"):
        run_logged([sys.executable, "-c", "raise SystemExit('no memory left')"], tmp_path / "logs" / "fold_3.log")
    assert re.search("no memory", (tmp_path / "logs" / "fold_3.log").read_text())
