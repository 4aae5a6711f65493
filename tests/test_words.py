"""Phrases that stay out of code and pages, each with what to write instead (the words of the project's design)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "nnunet_ext").rglob("*.py"))  # strings, docstrings and comments; help texts are among them
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

# A space also stands for a line break, with the quotes or the comment sign that it takes in a source file.
GAP = r"\s+(?:\#\s*|[\"']\s*f?[\"'])?"
UNIT = "(?:case|patient|channel|voxel|member|fold|frame|class|column|cycle|bin|model folder)"
NO_NOUN = "of|as|in|is|for|to|with|that|and|or|from|by|at|on|than|has|where|if|when"
PHRASES = {
    # a rate: "a case" after a count; "a case has two channels" passes
    rf"\b(?:one|two|three|four|five|\d+) (?!(?:{NO_NOUN})\b)[a-z]+ an? {UNIT}\b(?!')": "per case, per voxel",
    r"\bonce a (?:key|process|session)\b(?! (?:has|is|ends|was))": "once per key",
    r"\bseconds an? (?:case|volume|image)\b": "seconds per case",
    # ways of saying that are not English
    r"\bthe whole way\b": "end to end",
    r"\bway of a case\b": "path of a case",
    r"\bDice to expect\b": "predicted Dice",
    r"\b(?:surer|unsure|(?:too|how|less|more|so) sure)\b": "confident, over-confident, uncertain",
    r"\btoo shy\b": "under-confident",
    r"\bmisses little\b": "sensitivity",
    r"\bof strangers\b": "untrusted",
    r"\bby heart\b": "memorised",
    r"\b(?:came|comes|come) of\b": "the result of",
    r"\b(?:came|comes|come) out of (?:it|them|this)\b": "the results",
    r"\blooked at with\b": "evaluated with",
    r"\bas (?:nnU-Net|stock|shells|the paper) ha(?:s|ve) it\b": "as in nnU-Net",
    r"(?<![Tt]here) (?:is|are) no (?:folder|file|number|numbers|problem|class|checkpoint|picture|share|pair|rotation"
    r"|integers?|figures?|evaluation|JSON|regular expression|column)\b": "is not a",
    r"(?<![Tt]here) (?:is|are) none of (?:a|them)\b": "is not one of, are not counted",
    r"\bmade up\b(?! of)": "spurious",
    r"\b[Gg]ives? \w+(?: \w+)? free\b": "releases",
    r"\banew\b": "again; retrain",
    r"\btells? the same story\b": "agree",
    r"\bdealt out\b": "distributed",
    r"\bless (?:that|those) of\b|\bfirst less second\b|\bmethod less\b": "minus",
    r"\bby n - 1\b": "with n - 1 in the denominator",
    r"\bwith a minus\b(?! sign)": "negated",
    r"\bwhat (?:[\w']+ ){1,4}(?:is|are|was|were) worth\b": "how well it does",
    r"\ban own\b": "your own, its own",
    r"\bcalibration (?:saw|has seen)\b": "the range of the calibration cases",
    r"\bpromises? too much\b": "is over-confident",
    r"\btells? the Dice\b": "predicts the Dice",
    r"\bof the house\b": "of the package",
    r"\bunits for it\b": "hardware support",
    r"\bmade if (?:it is )?missing\b": "created if missing",
    r"\bmaps? of uncertainty\b": "uncertainty map",
    r"\bbox of the truth's foreground\b": "bounding box of the true foreground",
    r"\bhas company\b": "is combined with another",
    r"\bsaid (?:its name|once)\b": "recorded; defined once",
    r"\ba person reads\b": "for the terminal",
    r"\ba cut (?:file|`?\.nii)": "truncated",
    r"\b(?:split|fold|case|row|file|result|image)s that are there\b": "existing",
    r"\b[Cc]ase to what is missing of it\b": "what is missing",
}
RULES = {phrase: re.compile(phrase.replace(" ", GAP)) for phrase in PHRASES}


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Line, phrase and what to write instead, for each phrase that a text holds."""
    return [
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), PHRASES[phrase])
        for phrase, rule in RULES.items()
        for match in rule.finditer(text)
    ]


@pytest.mark.parametrize("file", [*SOURCES, *PAGES], ids=lambda file: file.relative_to(ROOT).as_posix())
def test_phrases_that_stay_out(file):
    name = file.relative_to(ROOT).as_posix()
    hits = [
        f"{name}:{line}: {phrase!r}; write instead: {instead}"
        for line, phrase, instead in found_in(file.read_text(encoding="utf-8"))
    ]
    assert not hits, "\n".join(["", *hits])


@pytest.mark.parametrize(
    "text",
    [
        "It writes one segmentation a case.",
        "found 5 runs a case",
        "two members\n    a fold",
        '"one number "\n        f"a voxel"',
        "# one map\n# a channel",
        "the Dice to expect",
        "where the ensemble is unsure",
        "what came of it",
        "the value is no number",
    ],
)
def test_a_phrase_is_found_over_lines_and_strings(text):
    assert found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "A case has two channels.",
        "one of a case's files",
        "once a process has ended",
        "if there is no checkpoint",
        "There is no file of this name.",
        "a name made up of parts",
        "make sure that it exists",
    ],
)
def test_words_that_only_look_alike_pass(text):
    assert not found_in(text)
