"""`nnunet_ext compare`, from flags to files and exit status, on tables as `evaluate` writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.cli import main
from nnunet_ext.cli.compare import methods_of
from nnunet_ext.commands.compare import COLUMNS
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.evaluation.summary import own_summary, write_case_metrics_csv, write_metrics_csv, write_summary

CASES = ("p1_ed", "p1_es", "p2_ed", "p2_es")
SETTINGS = {"nsd_tolerance_mm": 1.0, "absent": "leave-out", "end_stack": "volume", "end_threshold": 0.8}


def evaluated(folder: Path, dice: Sequence[float], cases: Sequence[str] = CASES, **settings: Any) -> Path:
    """The tables of an evaluation in which a case's mean Dice, that of LV and that of the end slices are the same."""
    evaluation = FolderEvaluation(
        {"LV": (1,)},
        [
            CaseEvaluation(
                case,
                {"LV": {"dice": value, "hd95_mm": 10 * (1 - value), "volume_ml": 5.0}},
                {"mean_dice": value, "end_slice_dice_paper": value},
                {"metrics": {1: {"Dice": value}}},
            )
            for case, value in zip(cases, dice, strict=True)
        ],
    )
    folder.mkdir(parents=True)
    write_metrics_csv(evaluation, folder / "metrics.csv")
    write_case_metrics_csv(evaluation, folder / "case_metrics.csv")
    own = own_summary(evaluation) | {"settings": {**SETTINGS, **settings}}
    write_summary(evaluation, folder / "summary.json", own)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of each of two methods; the new one is 0.1 better in every case."""
    for seed, shift in ((0, 0.0), (1, 0.02)):
        old = [value + shift for value in (0.6, 0.7, 0.8, 0.75)]
        evaluated(tmp_path / "eval" / f"old_{seed}", old)
        evaluated(tmp_path / "eval" / f"new_{seed}", [value + 0.1 for value in old])
    return tmp_path / "eval"


def compare(*arguments: str | Path) -> int:
    return main(["compare", *map(str, arguments)])


def groups(runs: Path) -> list[str | Path]:
    return ["--group", "old", runs / "old_0", runs / "old_1", "--group", "new", runs / "new_0", runs / "new_1"]


def test_seeds_are_grouped_and_compared_by_patient(runs, tmp_path, capsys):
    assert compare(*groups(runs), "--patients", "(p[0-9])_", "-o", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (content["cases"], content["patients"], content["not_common"]) == (4, 2, 0)
    assert {name: len(folders) for name, folders in content["methods"].items()} == {"old": 2, "new": 2}
    found = content["figures"]["mean_dice"]
    assert found["methods"]["old"]["mean"] == pytest.approx(0.7225)
    assert found["methods"]["old"]["std_runs"] == pytest.approx(0.02 / 2**0.5)
    assert found["methods"]["new"]["rank"] == {"mean": 1, "low": 1, "high": 1}
    difference = found["differences"]["new"]["old"]
    assert difference["mean_difference"] == pytest.approx(0.1)
    assert (difference["cases"], difference["groups"]) == (4, 2)
    assert set(content["figures"]) == {"mean_dice", "end_coefficient_paper", "LV dice", "LV hd95_mm"}
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["figure"], row["method"], row["less"]) for row in rows[:2]] == [
        ("mean_dice", "old", ""), ("mean_dice", "new", "old")
    ]  # fmt: skip
    assert list(rows[1]) == list(COLUMNS)
    assert float(rows[1]["difference"]) == pytest.approx(0.1)
    printed = capsys.readouterr().out
    assert printed.startswith("2 methods on 4 cases of 2 patients\n")
    assert printed.endswith(f"\nTables in {tmp_path / 'out'}\n")


def test_the_end_coefficient_is_a_share_of_cases_in_each_run(runs, tmp_path):
    """New, first seed: 0.7, 0.8, 0.9, 0.85, two above 0.8; second seed: 0.72, 0.82, 0.92, 0.87, three above it."""
    assert compare(*groups(runs), "-o", tmp_path / "out", "--figures", "end_coefficient_paper") == 0
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    new = content["figures"]["end_coefficient_paper"]["methods"]["new"]
    assert new["mean"] == pytest.approx(0.625)
    assert new["std_runs"] == pytest.approx(0.25 / 2**0.5)


def test_each_folder_is_a_method_by_its_name(runs, capsys):
    assert compare(runs / "old_0", runs / "new_0", "--figures", "LV hd95_mm") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("LV hd95_mm (lower is better)")
    assert [line.split()[0] for line in lines[3:5]] == ["old_0", "new_0"]
    assert not (runs / "old_0" / "compare.json").exists()


def test_folders_of_the_same_name_keep_their_paths():
    folders = [Path("a/tables"), Path("b/tables")]
    assert list(methods_of(folders, [])) == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["old_0"], "needs two methods or more; found old_0"),
        (["old_0", "--group", "new"], "found new alone"),
        (["old_0", "--group", "old_0", "new_0"], "found old_0 twice"),
        (["old_0", "no_such_folder"], "of nnunet_ext evaluate; "),
        (["old_0", "new_0", "--figures", "LV nsd"], "LV nsd is not in all of them"),
        (["old_0", "new_0", "--patients", "(q[0-9])_"], '"(q[0-9])_" finds no patient in'),
        (["old_0", "perfect"], "absent is leave-out in"),
        (["old_0", "elsewhere"], "all of them have; found none"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, runs, capsys, monkeypatch):
    evaluated(runs / "perfect", (0.5,) * 4, absent="perfect")
    evaluated(runs / "elsewhere", (0.5,), cases=("z",))
    monkeypatch.chdir(runs)
    assert compare(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet_ext compare: ")
    assert message in error
