"""What papers report of a method, beside what a study found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .restructured_text import link
from .results_read import REFERENCE, MethodResults
from .settings import ImageSet, Study, read_toml

FIGURES: dict[str, tuple[Callable[[MethodResults, ImageSet], float], int]] = {
    "ECE": (lambda results, test: 100 * results.mean(test, "ece"), 2),
    "Dice": (lambda results, test: 100 * results.mean(test, "mean_dice"), 1),
    "HD95": (lambda results, test: results.mean(test, "hd95_mm"), 2),
    "end coefficient": (lambda results, test: 100 * results.of_set(test, "end_coefficient", "paper"), 0),
    "AURC": (lambda results, test: 100 * aurc(results, test), 1),
}  # how a study has it, and digits to show
ERRORS = ("ECE", "HD95", "AURC")  # their change is a share


@dataclass(frozen=True)
class Published:
    """A figure of a paper without and with a method.

    Attributes:
        method: of methods.toml.
        figure: of `FIGURES`.
        test: set of test images of a study that is nearest to the paper's.
        data: the paper's.
        before: without the method; Dice, ECE, end coefficient and AURC in percent, HD95 in mm.
        after: with it.
        arxiv: number of the paper.
        reference: method of methods.toml that `before` is nearest to.
        dataset: that a study must be of, to stand beside it.
    """

    method: str
    figure: str
    test: str
    data: str
    before: float
    after: float
    arxiv: str
    reference: str = REFERENCE
    dataset: str = "Dataset027_ACDC"


def aurc(results: MethodResults, test: ImageSet) -> float:
    """By the members' Dice; by the entropy of all voxels where a method has one member."""
    by_members = results.of_set(test, "failure_detection", "pairwise_dice", "aurc")
    alone = results.of_set(test, "failure_detection", "mean_entropy", "aurc")
    return alone if by_members != by_members else by_members


def read_published() -> list[Published]:
    """The figures of published.toml."""
    return [Published(**each) for each in read_toml("published.toml")["published"]]


def published_rows(study: Study, found: Mapping[str, MethodResults]) -> list[list[str]]:
    """A row for each published figure of which the study has both methods."""
    tests = {test.name: test for test in study.preset.tests}
    return [
        row_of(each, tests[each.test], found)
        for each in read_published()
        if each.dataset == study.preset.dataset
        and each.test in tests
        and each.method in found
        and each.reference in found
    ]


def row_of(published: Published, test: ImageSet, found: Mapping[str, MethodResults]) -> list[str]:
    """Method, figure, and its change in the paper and here."""
    value, digits = FIGURES[published.figure]
    method, reference = found[published.method], found[published.reference]
    before = value(reference.with_seeds_of(method), test)
    ours = change(published, before, value(method.with_seeds_of(reference), test), digits)
    paper = change(published, published.before, published.after, 2)
    source = link(published.data, f"https://arxiv.org/abs/{published.arxiv}")
    return [published.method, f"{published.figure}, {published.test}", f"{paper}, {source}", ours]


def change(published: Published, before: float, after: float, digits: int) -> str:
    """`2.56 → 2.18 (−15 %)` for an error, `91.3 → 92.3 (+1.0)` for the others."""
    share = published.figure in ERRORS
    by = f"{100 * (after / before - 1):+.0f} %" if share else f"{after - before:+.{digits}f}"
    return f"{before:.{digits}f} → {after:.{digits}f} ({by.replace('-', '−')})"
