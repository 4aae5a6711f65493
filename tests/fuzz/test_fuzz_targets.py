"""The targets of the fuzzer accept what is right, and refuse in words what was found to break a parser once."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from fuzz_targets import TARGETS

MUTATIONS = 300


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_accepts_its_seeds_and_refuses_halves_of_them_in_words(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for content in target.seeds():
        target.run(content, tmp_path)
        target.run(content[: len(content) // 2], tmp_path)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.mutate])
def test_values_of_other_kinds_are_refused_in_words(name: str, tmp_path: Path) -> None:
    target, random = TARGETS[name], Random(0)
    (content,) = target.seeds()
    for _ in range(MUTATIONS):
        target.run(target.mutate(content, random), tmp_path)
