"""One HTML page about a prediction folder: which cases to look at first, and why."""

from __future__ import annotations

from nnunet_ext.report.data import gather
from nnunet_ext.report.page import write_report

__all__ = ["gather", "write_report"]
