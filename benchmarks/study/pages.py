"""The pages of a study: docs/results/PRESET.rst and its pictures, written from its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_ext.patients import patient_of

from .curves import write_curves
from .data import PLANS, patients_pattern
from .figures import CONFIDENCES, FIGURES, Figure, write_figures
from .picture import write_picture
from .published import published_rows
from .restructured_text import command, heading, picture, table
from .results_read import REFERENCE, MethodResults, compared, read_results
from .settings import ImageSet, Study

DOCS = Path(__file__).parents[2] / "docs" / "results"
CURVES = "Below 0: too confident. Cases are accepted in the order of their foreground entropy."
FINDING = (
    "AURC by each confidence, of methods that have several or give verdicts; a case's risk is 1 - Dice. Verdicts are "
    "those of ``predict --calibrated``; the Dice of a failure is below 0.75. Counts are sums over seeds."
)
COSTS = (
    "CPU seconds of single runs beside others, relative to ``stock``: differences within a sixth mean nothing. "
    "Training is without that of a teacher and without fitting; prediction is with the start of the program."
)
MIRRORED = "flips"  # of methods.toml
TITLES = {"mean_dice": "Dice", "ece": "ECE"}
DIGITS = {"mean_dice": 3, "ece": 4}
Column = tuple[str, Callable[[Study, ImageSet, MethodResults, MethodResults], str]]
Pair = tuple[MethodResults, MethodResults]  # a method, and what it is compared with


def write_pages(study: Study) -> None:
    """Writes the page of the results that are there."""
    found = read_results(study)
    if REFERENCE not in found:
        return
    DOCS.mkdir(exist_ok=True)
    write_figures(study, found, REFERENCE, DOCS / f"{study.name}.csv")
    write_picture(study, found, DOCS / f"{study.name}.svg")
    curves = f"{study.name}_curves.svg"
    has_curves = write_curves(study, found, DOCS / curves)
    page = page_of(study, found, curves if has_curves else "")
    (DOCS / f"{study.name}.rst").write_text(page, encoding="utf-8")


def page_of(study: Study, found: dict[str, MethodResults], curves: str = "") -> str:
    """The whole page, in reStructuredText, with the file of the curves if there are any."""
    parts = [heading(f"Results of the {study.name} study", 0), settings_text(study, found)]
    parts.append(picture(f"{study.name}.svg", "Dice over calibration error of every method, a panel per test set."))
    parts.append("Blue: no other method has both a higher Dice and a lower ECE.")
    for test in study.preset.tests:
        parts += [heading(test.name, 1), methods_table(study, test, found, MAIN)]
    for title, pairs in (
        ("Against the method that it changes", changes_of(found)),
        (f"Against nnU-Net's own mirroring, ``{MIRRORED}``", mirrored(found)),
    ):
        if pairs:
            parts += [heading(title, 1), pairs_table(study, pairs)]
    if curves:
        parts.append(heading("Reliability, and risk over coverage", 1))
        parts.append(picture(curves, "Accuracy less confidence, and risk of accepted cases, for each test set."))
        parts.append(CURVES)
    detecting = {name: results for name, results in found.items() if detects_failures(study, results)}
    if detecting:
        parts += [heading("Finding failures", 1), FINDING]
    for test in study.preset.tests if detecting else ():
        parts += [heading(test.name, 2), methods_table(study, test, detecting, FAILURES, found[REFERENCE])]
    if published := published_rows(study, found):
        parts.append(heading("Beside what papers report", 1))
        parts.append("Other data, other networks, longer trainings: compare the changes.")
        parts.append(table(["", "", "as published", "here"], published))
    if study.preset.device == "cpu":  # elsewhere CPU seconds say nothing of the time that a training takes
        parts += [heading("Cost", 1), COSTS, methods_table(study, study.preset.tests[0], found, COST)]
    return "\n\n".join(parts) + "\n"


def settings_text(study: Study, found: dict[str, MethodResults]) -> str:
    """What was run, and how to repeat it."""
    preset = study.preset
    done = [len(results.results) for results in found.values()]
    own = sum(method.name in found for method in study.methods)
    counts = " to ".join(str(count) for count in sorted({min(done), max(done)}))
    seeds = f"{counts} seed{'s' * (max(done) > 1)}"
    cut = f", the middle {' x '.join(map(str, preset.crop))} voxels of each image" if preset.crop else ""
    network = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in preset.network.items())
    trainers = "_".join(["...", *filter(None, [preset.length]), "member<seed>"])
    plans = f"plans ``{PLANS}``" + (f" by ``{preset.planner}``" if preset.planner else "")
    regions = f", regions {', '.join(preset.regions)}" if preset.regions else ""
    compared_with = f" of the {preset.reference} study" if preset.reference else ""
    sets = "; ".join(set_text(study, test, found) for test in preset.tests)
    lines = [
        f"Written by ``benchmarks/run_study.py`` from ``benchmarks/study/results/{study.name}``; not edited by hand.",
        command(f"python benchmarks/run_study.py {study.name} DATA WORK"),
        f"{preset.dataset}{cut}, {preset.configuration}, trainers ``{trainers}``, {plans} "
        f"({network or 'the same as nnU-Net planned'}){regions}, on {preset.device.upper()}. One patient in "
        f"{preset.held_out_every} is held out; the others are in {preset.folds} folds, of which fold 0 is trained "
        f"unless a row says otherwise. {own} of {len(study.methods)} methods, {seeds} each. Prediction is without "
        f"test-time transforms unless a row says otherwise.",
        f"Test sets: {sets}. {preset.about}",
        f"Figures are means over cases and seeds. HD95 and the tolerance of NSD, 1, are in the unit of the images' "
        f"spacing. AURC is by foreground entropy. Differences are to ``{REFERENCE}``{compared_with} at the same "
        f"seeds, paired by case, with 95 % intervals over patients, seeds averaged first. Another seed can move a "
        f"difference out of its interval: see those of each seed.",
        f"All figures, also pooled Dice, end coefficients, ACE, Brier score, likelihood and entropy: "
        f"``docs/results/{study.name}.csv``; ``docs/reference/metrics.md`` explains each. Report pages of the worst "
        f"cases, with their images, are written by ``--examples``; the licences keep them out of this repository.",
    ]
    return "\n\n".join(lines)


def set_text(study: Study, test: ImageSet, found: dict[str, MethodResults]) -> str:
    """What a test set has: `other scanner, 30 cases of 30 patients of Dataset028_MnMsA`."""
    cases = found[REFERENCE].results[0]["tests"][test.name]["cases"]
    patients = {patient_of(case, patients_pattern(study.preset, test)) for case in cases}
    dataset = f" of {test.dataset}" if test.dataset else ""
    return f"{test.name}, {len(cases)} cases of {len(patients)} patients{dataset}"


def detects_failures(study: Study, results: MethodResults) -> bool:
    """Whether a method has several confidences, those of an ensemble, or gives verdicts."""
    figures = (FIGURES["aurc_pairwise_dice"], FIGURES["failures"])
    return any(figure(study.preset.tests[0], results) >= 0 for figure in figures)


def methods_table(
    study: Study,
    test: ImageSet,
    found: dict[str, MethodResults],
    columns: Sequence[Column],
    reference: MethodResults | None = None,
) -> str:
    """A row per method; a row with the group's name where a new one begins.

    Args:
        study: whose results they are.
        test: the test set.
        found: results by method.
        columns: titles and cells.
        reference: what the methods are compared with; None takes it from `found`.
    """
    reference = reference or found[REFERENCE]
    rows: list[list[str]] = []
    group = ""
    for name, results in found.items():
        if results.method.group != group:
            group = results.method.group
            rows.append([f"**{group}**"])
        rows.append([name, *(cell(study, test, results, reference) for _, cell in columns)])
    return table(["", *(title for title, _ in columns)], rows)


def number(figure: Figure, digits: int = 3) -> Callable[[Study, ImageSet, MethodResults, MethodResults], str]:
    """A column with a figure; empty where a method has none."""
    return lambda study, test, results, reference: shown(figure(test, results), digits)


def difference(column: str, digits: int = 3) -> Callable[[Study, ImageSet, MethodResults, MethodResults], str]:
    """A column with the difference to the reference."""

    def cell(study: Study, test: ImageSet, results: MethodResults, reference: MethodResults) -> str:
        return "" if results is reference else with_interval(study, test, column, results, reference, digits)

    return cell


def by_seed(column: str) -> Callable[[Study, ImageSet, MethodResults, MethodResults], str]:
    """A column with the difference of each seed, `+0.011, +0.015`; empty where one seed is all."""

    def cell(study: Study, test: ImageSet, results: MethodResults, reference: MethodResults) -> str:
        seeds = [result["seed"] for result in results.with_seeds_of(reference).results]
        if results is reference or len(seeds) < 2:
            return ""
        pairs = [(results.of_seeds([seed]), reference.of_seeds([seed])) for seed in seeds]
        found = [one.mean(test, column) - other.mean(test, column) for one, other in pairs]
        return ", ".join(signed(value) for value in found)

    return cell


def with_interval(
    study: Study, test: ImageSet, column: str, results: MethodResults, reference: MethodResults, digits: int = 3
) -> str:
    """`+0.012 (+0.004 to +0.020)`: a difference of means with its 95 % interval; empty if no case has the figure."""
    pair = compared(study, test, column, results, reference)
    if pair.mean_difference != pair.mean_difference:
        return ""  # such as the calibration of regions
    return "{} ({} to {})".format(*(signed(value, digits) for value in (pair.mean_difference, pair.low, pair.high)))


def changes_of(found: dict[str, MethodResults]) -> list[Pair]:
    """Each method that changes one thing of another, with that one, where both have results."""
    return [(results, found[results.method.changes]) for results in found.values() if results.method.changes in found]


def mirrored(found: dict[str, MethodResults]) -> list[Pair]:
    """Each other method that mirrors, with a plain network that mirrors, as `nnUNetv2_predict` does by default."""
    if MIRRORED not in found:
        return []
    flags = found[MIRRORED].method.ensemble
    mirroring = [each for each in found.values() if each.method.ensemble[: len(flags)] == flags]
    return [(each, found[MIRRORED]) for each in mirroring if each.method.name != MIRRORED]


def pairs_table(study: Study, pairs: Sequence[Pair]) -> str:
    """A row per pair: the differences in Dice and ECE of each test set."""
    columns = [(test, name) for name in TITLES for test in study.preset.tests]
    rows = []
    for results, base in pairs:
        cells = [with_interval(study, test, name, results, base, DIGITS[name]) for test, name in columns]
        rows.append([results.method.name, base.method.name, *cells])
    return table(["", "against", *(f"{TITLES[name]}, {test.name}" for test, name in columns)], rows)


def share(part: str, whole: str) -> Callable[[Study, ImageSet, MethodResults, MethodResults], str]:
    """A column such as `37 of 38`, of two figures that count; empty without them."""

    def cell(study: Study, test: ImageSet, results: MethodResults, reference: MethodResults) -> str:
        counts = [FIGURES[name](test, results) for name in (part, whole)]
        return "" if counts[1] != counts[1] else "{:.0f} of {:.0f}".format(*counts)

    return cell


def times(seconds: Figure) -> Callable[[Study, ImageSet, MethodResults, MethodResults], str]:
    """A column with CPU seconds relative to the reference."""
    return lambda study, test, results, reference: shown(seconds(test, results) / seconds(test, reference), 2) + "×"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, a minus as it is printed."""
    return f"{value:+.{digits}f}".replace("-", "−")


def shown(value: float, digits: int = 3) -> str:
    """A number; empty if there is none."""
    return "" if value != value else f"{value:.{digits}f}"


MAIN: list[Column] = [
    ("Dice", number(FIGURES["mean_dice"])),
    ("difference", difference("mean_dice")),
    ("of each seed", by_seed("mean_dice")),
    ("HD95", number(FIGURES["hd95_mm"], 1)),
    ("NSD", number(FIGURES["nsd"])),
    ("ECE", number(FIGURES["ece"], 4)),
    ("difference", difference("ece", 4)),
    ("AURC", number(FIGURES["aurc_foreground_entropy"])),
    ("seeds", lambda study, test, results, reference: str(len(results.results))),
]
FAILURES: list[Column] = [
    *((title, number(FIGURES[f"aurc_{name}"])) for name, title in CONFIDENCES.items()),
    ("failures not accepted", share("failures_not_accepted", "failures")),
    ("good cases accepted", share("good_cases_accepted", "good_cases")),
]
COST: list[Column] = [
    ("training", times(FIGURES["training_cpu_s"])),
    ("prediction", times(FIGURES["prediction_cpu_s_per_case"])),
]
