"""The parts of trainers' names, from the table that names are resolved by."""

from __future__ import annotations

import re

from nnunet_ext.trainers.part import Claim, Kind, Part, Requirement
from nnunet_ext.trainers.parts import PARTS
from nnunet_ext.trainers.search import stock_variant_names
from nnunet_ext.trainers.stock_variants import PREFIX, claims_of, stock_class
from reference.markdown import as_markdown, code, table

TRAINABLE = [part for part in PARTS if not part.internal]


def parts() -> str:
    """A row per part, by kind as `nnunet_ext trainers` prints them."""
    rows = [
        [code(part.spelling), part.kind.value, f"{as_markdown(part.summary)}{source_of(part)}. {code(part.example)}"]
        for kind in Kind
        for part in TRAINABLE
        if part.kind is kind
    ]
    return table(["part", "kind", "what it does, and an example"], rows)


def source_of(part: Part) -> str:
    """Where a part comes from, in parentheses, papers of arXiv with a link; "" if nowhere."""
    linked = re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", part.paper)
    return f" ({linked})" if linked else ""


def claims() -> str:
    """A row for each thing that only one part of a name may set, with the parts that set it."""
    variants = variant_words()
    rows = []
    for claim in Claim:
        own = [code(part.spelling) for part in TRAINABLE if claim in part.claims]
        stock = [code(word) for word, found in variants.items() if claim in found]
        if own or stock:
            rows.append([as_markdown(claim.value), ", ".join(own), ", ".join(stock)])
    return table(["sets", "parts of this package", "nnU-Net's variants"], rows)


def variant_words() -> dict[str, frozenset[Claim]]:
    """Every variant of nnU-Net's that can be a part of a name, and what it sets."""
    names = [name for name in stock_variant_names() if name.startswith(PREFIX)]
    classes = {name: stock_class(name) for name in names}
    return {
        name.removeprefix(PREFIX).removeprefix("_"): claims_of(variant)
        for name, variant in classes.items()
        if variant is not None
    }


def conditions() -> str:
    """A row for each part that needs something, with what to do where that is missing."""
    rows = [
        [as_markdown(requirement.words), ", ".join(needing), as_markdown(requirement.remedy)]
        for requirement in Requirement
        if (needing := [code(part.spelling) for part in TRAINABLE if requirement in part.requires])
    ]
    changing = [[code(part.spelling), ", ".join(map(code, part.changes))] for part in TRAINABLE if part.changes]
    return "\n\n".join([table(["needs", "parts", "otherwise"], rows), table(["part", "changes one of"], changing)])
