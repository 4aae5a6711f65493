"""Searches parts and nnU-Net's own variants for a word, without importing torch or a variant: files are parsed."""

from __future__ import annotations

import ast
import difflib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nnunet_ext.trainers.part import PREFIX, Part
from nnunet_ext.trainers.parts import PARTS


def matching_parts(word: str) -> list[Part]:
    """The parts with a word in their spelling, kind, summary, paper or example, ignoring case."""
    wanted = _searched(word)
    return [
        part
        for part in PARTS
        if not part.internal
        and any(
            wanted in text.lower()
            for text in (part.spelling, part.kind.value, part.summary, part.paper, part.example)
        )
    ]


def matching_variants(word: str) -> list[str]:
    """The names of nnU-Net's own trainers that contain a word, ignoring case."""
    wanted = _searched(word)
    return [name for name in stock_variant_names() if wanted in name.removeprefix(PREFIX).lower()]


def close_to(word: str) -> list[str]:
    """Names that are similar to a word that finds nothing, the closest first."""
    spellings = {part.spelling.lower(): part.spelling for part in PARTS if not part.internal}
    variants = {name.removeprefix(PREFIX).strip("_").lower(): name for name in stock_variant_names()}
    known = variants | spellings
    return [known[match] for match in difflib.get_close_matches(_searched(word), known, n=3, cutoff=0.6)]


@cache
def stock_variant_names() -> tuple[str, ...]:
    """The sorted names of nnU-Net's own trainers except `nnUNetTrainer` itself, parsed from its source."""
    package = find_spec("nnunetv2")
    places = (package.submodule_search_locations if package else None) or ()
    files = [file for place in places for file in (Path(place) / "training" / PREFIX).rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    classes = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    return tuple(sorted(name for name in classes if name.startswith("nnUNet") and name != PREFIX))


def _searched(word: str) -> str:
    return word.removeprefix(PREFIX).strip("_").lower()
