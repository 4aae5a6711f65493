"""Changes that random bytes hardly ever make: values of another kind, or beyond every limit."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

VALUES = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 10**400, float("nan"), float("inf"), float("-inf")),
    *("", "0", "nan", "../../x", "/etc/passwd", "\ud800", "a\0b", [], {}, [[]], [None], {"": None}),
)
NUMBERS = (
    *(b"0", b"-0", b"1", b"-1", b"3", b"4", b"0.5", b"-1e-30", b"1e30", b"1e308", b"1e999", b"nan", b"inf", b"-inf"),
    *(b"65536", b"2147483648", b"18446744073709551616", b"9" * 400, b"", b"1 1", b"x", b"%s", b"True", b"none"),
)
DEPTH = 100_000  # of brackets, beyond what a parser in Python takes


def mutate_json(data: bytes, random: Random) -> bytes:
    """The same JSON with one value or name replaced, removed or doubled; sometimes brackets without end."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if random.random() < 0.01:
        return b"[" * DEPTH
    whole = [content]
    holder, key = random.choice([*_places(whole)])
    if random.random() < 0.8:
        holder[key] = random.choice(VALUES)
    elif isinstance(holder, dict):
        value = holder.pop(key)
        if random.random() < 0.5:
            holder[str(random.choice(VALUES))] = value
    else:
        holder.insert(key, holder[key])
    return json.dumps(whole[0] if whole else None).encode()


def _places(node: Any) -> Any:
    """Every value as its holder and its key or position in it."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def mutate_text_header(data: bytes, random: Random) -> bytes:
    """The same header of text, with one number or word replaced, or a line removed or doubled."""
    end = data.find(b"\0") if b"\0" in data else len(data)
    lines = data[:end].split(b"\n")
    number = random.randrange(len(lines))
    kind = random.random()
    if kind < 0.1:
        del lines[number]
    elif kind < 0.2:
        lines.insert(random.randrange(len(lines)), lines[number])
    elif words := list(re.finditer(rb"[\w.+-]+", lines[number])):
        start, stop = random.choice(words).span()
        lines[number] = lines[number][:start] + random.choice(NUMBERS) + lines[number][stop:]
    return b"\n".join(lines) + data[end:]
