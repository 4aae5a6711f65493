"""The study of benchmarks/study: settings, trainings, tables with numbers worked out by hand."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from study import cells, curves, figures, pages, picture, running, settings
from study.published import FIGURES, Published, aurc, change, read_published, row_of
from study.results_read import MethodResults, compared, read_results
from study.settings import ImageSet, Method, Preset, Study, read_methods, read_study
from study.trainings import Training, trainings_of

from nnunet_ext.trainers.names import trainer_class

TEST = ImageSet("held out", patients="(p[0-9])_")
PRESET = Preset("Dataset001_A", "2d", "(p[0-9])_", 4, 5, "2epochs_1iters", (0, 1), {}, (TEST,))
STOCK, OTHER = Method("stock", "One"), Method("other", "Two", trainers=("DSD",))
STUDY = Study("small", PRESET, (STOCK, OTHER))
CASES = ("p1_ed", "p1_es", "p2_ed", "p2_es")


def results_of(method: Method, *dice_by_seed: tuple[float | None, ...]) -> MethodResults:
    """Results with a Dice per case, and nothing else."""
    return MethodResults(
        method,
        tuple(
            {
                "seed": seed - 1,
                "training_cpu_s": 10,
                "tests": {
                    "held out": {
                        "columns": ["mean_dice"],
                        "cases": {case: [value] for case, value in zip(CASES, dice, strict=True)},
                        "end_coefficient": {"paper": 0.25 * seed},
                        "pooled_dice": {"heart": 0.5},
                    }
                },
            }
            for seed, dice in enumerate(dice_by_seed, 1)
        ),
    )


@pytest.mark.parametrize("preset", [path.stem for path in sorted((settings.HERE / "presets").glob("*.toml"))])
def test_every_preset_names_methods_that_are_there(preset):
    assert cells.cells_of(read_study(preset))


@pytest.mark.parametrize("parts", sorted({parts for method in read_methods() for parts in method.trainers}))
def test_every_trainer_of_a_method_is_there(parts):
    name = Training(parts, 3, 0).trainer(PRESET)
    assert name.endswith("_2epochs_1iters_member3")
    assert trainer_class(name).__name__ == name


def test_methods_refer_to_methods_that_are_there():
    methods = read_methods()
    referred = {name for method in methods for name in (method.teacher, method.changes, method.starts_from) if name}
    assert referred <= {method.name for method in methods}


@pytest.mark.parametrize("preset", [path.stem for path in sorted((settings.HERE / "presets").glob("*.toml"))])
def test_a_preset_has_what_its_methods_train_from(preset):
    study = read_study(preset)
    for name in {name for method in study.methods for name in (method.teacher, method.starts_from) if name}:
        assert study.method(name).name == name


@pytest.mark.parametrize("preset", [path.stem for path in sorted((settings.HERE / "presets").glob("*.toml"))])
def test_a_preset_has_one_teacher_at_most_and_the_data_of_its_rows(preset):
    """A folder has the probabilities of one teacher; regions and another planner change the data of all rows."""
    study = read_study(preset)
    assert len({method.teacher for method in study.methods if method.teacher}) <= 1
    names = {method.name for method in study.methods}
    assert ("regions" in names) == bool(study.preset.regions)
    assert ("residual encoder" in names) == bool(study.preset.planner)


@pytest.mark.parametrize("preset", [path.stem for path in sorted((settings.HERE / "presets").glob("*.toml"))])
def test_curves_are_of_methods_that_are_there(preset):
    assert set(read_study(preset).preset.curves) <= {method.name for method in read_methods()}


def test_methods_and_files_of_results_have_different_names():
    names = [cells.Cell(method, 0).name for method in read_methods()]
    assert len(set(names)) == len(names)


def test_seeds_of_an_ensemble_share_no_training():
    five = Method("five", "One", members=5)
    first, second = set(trainings_of(five, 0)), set(trainings_of(five, 1))
    assert {training.seed for training in first} == {0, 1, 2, 3, 4}
    assert {training.seed for training in second} == {5, 6, 7, 8, 9}


def test_folds_share_a_seed():
    folds = Method("folds", "One", folds=(0, 1))
    assert set(trainings_of(folds, 1)) == {Training("", 1, 0), Training("", 1, 1)}


def test_a_preset_without_a_length_trains_as_long_as_nnunet():
    assert Training("DSD", 1, 0).trainer(read_study("paper").preset) == "nnUNetTrainerDSD_member1"


def test_means_are_over_cases_and_seeds():
    results = results_of(STOCK, (0.6, 0.7, 0.8, 0.9), (0.8, 0.7, 0.8, 0.7))
    assert results.of_cases(TEST, "mean_dice") == pytest.approx(dict(zip(CASES, (0.7, 0.7, 0.8, 0.8), strict=True)))
    assert results.mean(TEST, "mean_dice") == pytest.approx(0.75)
    assert results.of_set(TEST, "end_coefficient", "paper") == pytest.approx(0.375)
    assert results.of_set(TEST, "verdicts", "sensitivity") != results.of_set(TEST, "verdicts", "sensitivity")  # NaN


def test_failures_that_were_not_accepted_count_as_caught():
    results = results_of(STOCK, (0.6, 0.6, 0.6, 0.6))
    caught, accepted = (cell for title, cell in pages.FAILURES if title.endswith("accepted"))
    assert caught(STUDY, TEST, results, results) == accepted(STUDY, TEST, results, results) == ""
    results.results[0]["tests"]["held out"]["verdicts"] = {
        "failures": {"accept": 1, "review": 2, "reject": 1},
        "good": {"accept": 5, "review": 1, "reject": 0},
    }
    assert caught(STUDY, TEST, results, results) == "3 of 4"
    assert accepted(STUDY, TEST, results, results) == "5 of 6"


def test_a_case_without_a_figure_does_not_count():
    assert results_of(STOCK, (0.6, None, 0.8, 1.0)).mean(TEST, "mean_dice") == pytest.approx(0.8)


def test_a_figure_that_earlier_results_lack_is_left_empty():
    results = results_of(STOCK, (0.6,) * 4)
    assert pages.number(figures.mean("foreground_entropy"))(STUDY, TEST, results, results) == ""


def test_differences_are_paired_by_case_with_intervals_over_patients():
    stock = results_of(STOCK, (0.6, 0.6, 0.6, 0.6))
    other = results_of(OTHER, (0.7, 0.7, 0.9, 0.9))
    pair = compared(STUDY, TEST, "mean_dice", other, stock)
    assert pair.mean_difference == pytest.approx(0.2)
    assert (pair.low, pair.high) == pytest.approx((0.1, 0.3))  # both patients the first, both the second
    assert pair.groups == 2


def test_a_method_with_fewer_seeds_is_compared_with_the_same_ones():
    stock, other = results_of(STOCK, (0.6,) * 4, (0.1,) * 4), results_of(OTHER, (0.7,) * 4)
    assert compared(STUDY, TEST, "mean_dice", other, stock).mean_difference == pytest.approx(0.1)


def test_a_table_has_a_row_per_method_and_one_per_group():
    found = {"stock": results_of(STOCK, (0.6, 0.6, 0.6, 0.6)), "other": results_of(OTHER, (0.7, 0.7, 0.9, 0.9))}
    columns = [("Dice", pages.number(figures.mean("mean_dice"))), ("difference", pages.difference("mean_dice"))]
    assert pages.methods_table(STUDY, TEST, found, columns).splitlines() == [
        ".. csv-table::",
        "   :header-rows: 1",
        "",
        "   ,Dice,difference",
        "   **One**",
        "   stock,0.600,",
        "   **Two**",
        "   other,0.800,+0.200 (+0.100 to +0.300)",
    ]


def test_a_file_holds_every_figure_of_every_method_and_test_set(tmp_path):
    """Empty where a method has none, and the differences of the method that the others are compared with."""
    found = {"stock": results_of(STOCK, (0.6, 0.6, 0.6, 0.6)), "other": results_of(OTHER, (0.7, 0.7, 0.9, 0.9))}
    figures.write_figures(STUDY, found, "stock", tmp_path / "study.csv")
    with (tmp_path / "study.csv").open(encoding="utf-8", newline="") as file:
        stock, other = csv.DictReader(file)
    assert (stock["group"], stock["method"], stock["seeds"], stock["test"]) == ("One", "stock", "1", "held out")
    assert (stock["mean_dice"], stock["mean_dice_difference"], stock["nll"]) == ("0.6", "", "")
    differences = [other[f"mean_dice_difference{end}"] for end in ("", "_low", "_high")]
    assert (other["mean_dice"], *differences) == ("0.8", "0.2", "0.1", "0.3")


def test_a_method_that_changes_another_is_compared_with_it():
    """Not with stock; only where both have results."""
    stock, changed = (
        results_of(STOCK, (0.6,) * 4),
        results_of(dataclasses.replace(OTHER, changes="stock"), (0.7,) * 4),
    )
    assert pages.changes_of({"stock": stock, "other": changed}) == [(changed, stock)]
    assert pages.changes_of({"other": changed}) == []


def test_what_mirrors_is_compared_with_a_plain_network_that_mirrors():
    """As nnU-Net does by default; other transforms and none are left out."""
    flips = results_of(Method("flips", "One", ensemble=("--tta", "flips")), (0.6,) * 4)
    ensemble = Method("seeds, flips", "One", members=5, ensemble=("--tta", "flips", "--members", "last-cycle"))
    seeds = results_of(ensemble, (0.7,) * 4)
    turned = results_of(Method("turned", "One", ensemble=("--tta", "rot90")), (0.7,) * 4)
    found = {"stock": results_of(STOCK, (0.5,) * 4), "flips": flips, "seeds, flips": seeds, "turned": turned}
    assert pages.mirrored(found) == [(seeds, flips)]
    del found["flips"]
    assert pages.mirrored(found) == []


def test_pairs_are_shown_with_intervals_of_their_differences():
    columns = ["mean_dice", "ece"]
    base, other = (
        MethodResults(method, ({"seed": 0, "tests": {"held out": {"columns": columns, "cases": cases}}},))
        for method, cases in (
            (STOCK, {case: [0.6, 0.3] for case in CASES}),
            (OTHER, {case: [0.7 if case < "p2" else 0.9, 0.1] for case in CASES}),
        )
    )
    assert pages.pairs_table(STUDY, [(other, base)]).splitlines()[3:] == [
        '   ,against,"Dice, held out","ECE, held out"',
        "   other,stock,+0.200 (+0.100 to +0.300),−0.2000 (−0.2000 to −0.2000)",
    ]


def test_each_seed_has_its_own_difference():
    """Of the seeds that both methods have; nothing of one seed, or of the reference."""
    stock, other = results_of(STOCK, (0.5,) * 4, (0.6,) * 4), results_of(OTHER, (0.7,) * 4, (0.5,) * 4)
    cell = pages.by_seed("mean_dice")
    assert cell(STUDY, TEST, other, stock) == "+0.200, −0.100"
    assert cell(STUDY, TEST, stock, stock) == ""
    assert cell(STUDY, TEST, results_of(OTHER, (0.7,) * 4), stock) == ""


def test_every_method_changes_one_that_is_there():
    names = {method.name for method in read_methods()}
    assert {method.changes for method in read_methods() if method.changes} <= names


def test_a_method_is_unbeaten_if_no_other_is_better_in_both_figures():
    points = {
        "a": (0.05, 0.83),
        "b": (0.04, 0.82),
        "c": (0.06, 0.84),
        "beaten by a": (0.06, 0.82),
        "as a": (0.05, 0.83),
    }
    assert picture.unbeaten(points) == {"a", "b", "c", "as a"}


def test_the_picture_of_the_same_results_has_the_same_bytes(tmp_path):
    study = read_study("cpu_networks")
    found = read_results(study)
    for name in ("one", "other"):
        picture.write_picture(study, found, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert "held-out patients" in (tmp_path / "one.svg").read_text(encoding="utf-8")


def with_curves(method: Method, *, voxels: list[float], accuracy: list[float | None]) -> MethodResults:
    """Results with two bins, of confidences 0.6 and 0.9, and uncertainties of the cases."""
    results = results_of(method, (0.5, 0.7, 0.8, 0.9))
    found = results.results[0]["tests"]["held out"]
    found["columns"] += ["ece", "foreground_entropy"]
    for values, entropy in zip(found["cases"].values(), (0.4, 0.3, 0.2, 0.1), strict=True):
        values += [0.1, entropy]
    found["reliability"] = {"voxels": voxels, "confidence": [0.6, 0.9], "accuracy": accuracy}
    return results


def test_reliability_is_of_the_bins_that_have_a_thousandth_of_the_voxels():
    one = with_curves(STOCK, voxels=[400.0, 600.0], accuracy=[0.5, 0.8])
    confidence, accuracy = curves.reliability_of(one, TEST)
    np.testing.assert_allclose((confidence, accuracy), [(0.6, 0.9), (0.5, 0.8)])
    rare = with_curves(STOCK, voxels=[1.0, 9999.0], accuracy=[None, 0.8])
    np.testing.assert_allclose(curves.reliability_of(rare, TEST), [(0.9,), (0.8,)])


def test_curves_are_drawn_of_results_that_have_them(tmp_path):
    found = {each.name: with_curves(each, voxels=[4.0, 6.0], accuracy=[0.5, 0.8]) for each in (STOCK, OTHER)}
    assert curves.write_curves(STUDY, found, tmp_path / "curves.svg")
    assert "accuracy − confidence" in (tmp_path / "curves.svg").read_text(encoding="utf-8")
    old = {"stock": found["stock"], "other": results_of(OTHER, (0.6, 0.6, 0.6, 0.6))}
    assert not curves.write_curves(STUDY, old, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_published_figures_stand_beside_those_of_the_study():
    """Dice 60 to 90 % here; the paper's error fell by a quarter, from 2.00 to 1.50."""
    dice = Published("other", "Dice", "held out", "ACDC", 91.27, 92.29, "2502.09269")
    found = {"stock": results_of(STOCK, (0.6,) * 4), "other": results_of(OTHER, (0.9,) * 4)}
    assert row_of(dice, TEST, found) == [
        "other",
        "Dice, held out",
        "91.27 → 92.29 (+1.02), `ACDC <https://arxiv.org/abs/2502.09269>`__",
        "60.0 → 90.0 (+30.0)",
    ]
    assert change(dataclasses.replace(dice, figure="ECE"), 2.0, 1.5, 2) == "2.00 → 1.50 (−25 %)"


def test_the_risk_is_by_the_members_where_there_are_several():
    one, several = ({"mean_entropy": {"aurc": 0.2}}, {"mean_entropy": {"aurc": 0.2}, "pairwise_dice": {"aurc": 0.1}})
    for confidences, expected in ((one, 0.2), (several, 0.1)):
        result = {"seed": 0, "tests": {"held out": {"failure_detection": confidences}}}
        assert aurc(MethodResults(STOCK, (result,)), TEST) == expected


def test_published_figures_are_of_methods_and_test_sets_that_are_there():
    names = {method.name for method in read_methods()}
    assert {each.method for each in read_published()} | {each.reference for each in read_published()} <= names
    assert {each.test for each in read_published()} <= {test.name for test in read_study("cpu").preset.tests}
    assert {each.figure for each in read_published()} <= set(FIGURES)


def results_in_the_repository() -> list[Path]:
    return sorted((settings.HERE / "results").glob("*/*.json"))


@pytest.mark.parametrize("file", results_in_the_repository(), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_results_in_the_repository_are_of_the_settings_in_the_repository(file):
    study, result = read_study(file.parent.name), json.loads(file.read_text(encoding="utf-8"))
    (method,) = (method for method in study.methods if method.name == result["method"])
    assert result["settings"] == study.settings_hash(method)


def test_other_methods_have_no_part_in_the_hash_of_a_result():
    alone = Study("small", dataclasses.replace(PRESET, methods=("stock",), seeds=(5,)), (STOCK,))
    assert alone.settings_hash(STOCK) == STUDY.settings_hash(STOCK)
    assert STUDY.settings_hash(STOCK) != STUDY.settings_hash(OTHER)
    longer = Study("small", dataclasses.replace(PRESET, length="3epochs_1iters"), (STOCK,))
    assert longer.settings_hash(STOCK) != STUDY.settings_hash(STOCK)


def test_a_cell_starts_from_the_training_of_its_seed():
    later = Method("later", "Two", trainers=("DSD",), starts_from="stock")
    study = Study("small", PRESET, (STOCK, later))
    assert running.training_to_start_from(study, cells.Cell(later, 1)) == Training("", 1, 0)
    assert running.training_to_start_from(study, cells.Cell(STOCK, 1)) is None
    assert study.settings_hash(later) != study.settings_hash(dataclasses.replace(later, starts_from=""))


def test_a_default_has_no_part_in_the_hash_of_a_result():
    """So that a setting that comes later keeps the hash of what was done without it."""
    assert settings.said(TEST) == {"name": "held out", "patients": "(p[0-9])_"}
    assert "starts_from" not in settings.said(STOCK)
    assert settings.said(PRESET)["tests"] == [settings.said(TEST)]


def test_a_cell_takes_over_the_result_of_the_same_cell_of_another_preset(tmp_path):
    """Presets `networks` and `small` have the same settings, `longer` has others."""
    cell = cells.Cell(STOCK, 0)
    longer = Study("longer", dataclasses.replace(PRESET, length="3epochs_1iters"), (STOCK,))
    for study, name in ((longer, "longer"), (STUDY, "networks")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stock_0.json").write_text(
            json.dumps({"settings": study.settings_hash(STOCK), "of": name})
        )
    assert cells.take_over(STUDY, cell, tmp_path)
    assert json.loads(cells.result_file(STUDY, cell, tmp_path).read_text())["of"] == "networks"
    assert not cells.take_over(STUDY, cells.Cell(STOCK, 1), tmp_path)


def test_what_a_preset_is_compared_with_has_no_part_in_the_hash_of_a_result():
    regions = dataclasses.replace(PRESET, regions={"all": [1, 2]})
    hashes = {
        Study("small", preset, (STOCK,)).settings_hash(STOCK)
        for preset in (regions, dataclasses.replace(regions, reference="cpu"))
    }
    assert len(hashes) == 1
    assert hashes != {STUDY.settings_hash(STOCK)}


def test_a_preset_has_the_settings_of_its_base_where_it_says_nothing():
    networks, base = read_study("cpu_networks").preset, read_study("cpu").preset
    assert networks.seeds == (0,)
    assert dataclasses.replace(networks, seeds=base.seeds, methods=base.methods, curves=base.curves) == base
