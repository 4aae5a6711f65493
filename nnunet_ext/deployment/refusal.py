"""The reason why a model is not exported."""

from __future__ import annotations


class DeploymentError(ValueError):
    """A model cannot be exported, or the exported one would predict something else; the message says why."""
