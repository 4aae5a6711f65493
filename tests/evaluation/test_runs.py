"""Reading what `nnunet_ext evaluate` wrote, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.evaluation.runs import Run, common_figures, read_run, require_same_settings

SETTINGS = {"nsd_tolerance_mm": 1.0, "absent": "leave-out", "end_stack": "volume", "end_threshold": 0.8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "run")


def written(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    (folder / "case_metrics.csv").write_text(
        "case,fold,mean_dice,end_slice_dice_paper\na,f0,0.9,0.8\nb,f1,0.7,0.81\nc,f1,,\n"
    )
    (folder / "metrics.csv").write_text("case,fold,structure,dice\na,f0,left atrium,0.9\nb,f1,left atrium,\n")
    (folder / "summary.json").write_text(json.dumps({"nnunet_ext": {"settings": {**SETTINGS, **settings}}}))
    return folder


def test_figures_of_cases_and_of_structures(folder):
    run = read_run(folder)
    assert list(run.figures) == ["mean_dice", "end_slice_dice_paper", "left atrium dice", "end_coefficient_paper"]
    assert run.figures["mean_dice"] == pytest.approx({"a": 0.9, "b": 0.7, "c": math.nan}, nan_ok=True)
    assert run.figures["left atrium dice"] == pytest.approx({"a": 0.9, "b": math.nan}, nan_ok=True)
    assert run.cases == {"a", "b", "c"}


def test_the_end_coefficient_counts_cases_above_the_threshold(folder, tmp_path):
    expected = {"a": 0, "b": 1, "c": math.nan}  # above 0.8, not at it
    assert read_run(folder).figures["end_coefficient_paper"] == pytest.approx(expected, nan_ok=True)
    lower = read_run(written(tmp_path / "lower", end_threshold=0.5))
    assert lower.figures["end_coefficient_paper"] == pytest.approx({**expected, "a": 1}, nan_ok=True)


def test_figures_that_all_runs_have():
    first, second = (Run(Path(), {name: {} for name in names}, {}) for names in (("b", "a", "c"), ("a", "b")))
    assert common_figures([first, second]) == ["b", "a"]


@pytest.mark.parametrize("missing", ["case_metrics.csv", "metrics.csv", "summary.json"])
def test_a_folder_that_is_no_evaluation_is_refused(missing, folder):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        read_run(folder)


def test_the_summary_of_stock_nnunet_is_no_evaluation(folder):
    (folder / "summary.json").write_text('{"mean": {}}')
    with pytest.raises(ValueError, match="is stock nnU-Net's"):
        read_run(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,mean_dice\na,1\n", "a column case"),
        ("case,mean_dice\na\n", "one cell per column in each row"),
        ("case,mean_dice\na,0.9,0.8\n", "one cell per column in each row"),
        ("case,mean_dice\na,good\n", 'has "good"'),
    ],
)
def test_a_damaged_table_is_refused(content, message, folder):
    (folder / "case_metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.parametrize(("key", "value"), [("absent", "perfect"), ("nsd_tolerance_mm", 2.0), ("end_threshold", 0.7)])
def test_runs_that_were_judged_differently_are_refused(key, value, folder, tmp_path):
    other = written(tmp_path / "other", **{key: value})
    with pytest.raises(ValueError, match=f"{key} is .* in .*run and {value} in .*other"):
        require_same_settings([read_run(folder), read_run(other)])
    require_same_settings([read_run(folder), read_run(folder)])
