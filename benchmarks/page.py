"""Writes what benchmarks measured into their sections of a page."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def write_section(file: Path, source: str, title: str, text: str) -> None:
    """Replaces the section that a benchmark wrote into a Markdown page before, or adds it at the end.

    Args:
        file: the page.
        source: what writes the section, in comments around it.
        title: its heading; kept as it is where the section is replaced.
        text: its text.
    """
    page = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {source} -->", f"<!-- end, {source} -->"
    written = f"{begin}\n\n{text}\n\n{end}"
    if begin in page:
        page = page[: page.index(begin)] + written + page[page.index(end) + len(end) :]
    else:
        page = f"{page.rstrip()}\n\n## {title}\n\n{written}\n"
    file.write_text(page, encoding="utf-8")


def machine_text(device: str) -> str:
    """The processor, the GPU if it is used, and the version of torch, as a page names them."""
    where = f"{os.cpu_count()} CPU cores ({processor()})"
    if device == "cuda":
        where = f"one {torch.cuda.get_device_name()}, {where}"
    return f"{where}, torch {torch.__version__.partition('+')[0]}"


def processor() -> str:
    """The name of the processor; of its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
