"""Where things are kept between runs that would take long to make again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "NNUNET_EXT_CACHE"


def cache_folder(name: str) -> Path:
    """A folder of this name in `NNUNET_EXT_CACHE`, or else in the user's cache folder; safe to delete."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen) / name
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nnunet_ext" / name
