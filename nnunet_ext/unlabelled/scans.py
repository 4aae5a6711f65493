"""Which files of a folder are scans, and which scans are left out before they are read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.files.listing import visible_files
from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.itk_header import read_itk_header
from nnunet_ext.input_checks.reading import DEFAULT_READERS
from nnunet_ext.options.pretraining import ScanFilter
from nnunet_ext.prediction_folder.cases import Case

SPATIAL_AXES = 3
FIELD_OF_VIEW, SPACING, FILE_SIZE, MASK = "field of view", "spacing", "file size", "mask"


@dataclass(frozen=True)
class Geometry:
    """Voxels and spacing of a scan along (x, y[, z])."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    @property
    def field_of_view_mm(self) -> tuple[float, ...]:
        """Voxels times spacing along each axis."""
        return tuple(size * spacing for size, spacing in zip(self.size, self.spacing_mm, strict=True))


@dataclass(frozen=True)
class Dropped:
    """Why a scan is left out: the kind of reason, which is counted, and the sentence for the table."""

    kind: str
    reason: str


def common_ending(folder: Path) -> str:
    """The most frequent file ending in a folder that one of nnU-Net's readers supports.

    Raises:
        FileNotFoundError: if the folder does not exist, or has no such file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Scans are read from a folder; {folder} does not exist. Correct the path.")
    endings = Counter(
        ending for file in visible_files(folder) for ending in DEFAULT_READERS if file.name.lower().endswith(ending)
    )
    if not endings:
        raise FileNotFoundError(f"Scans must be {', '.join(DEFAULT_READERS)} files; {folder} holds none.")
    return endings.most_common(1)[0][0]


def find_scans(folder: Path, file_ending: str) -> list[Case]:
    """The scans of a folder, sorted by name: the channels CASE_0000<ending>, CASE_0001<ending>, or one file each.

    Raises:
        FileNotFoundError: if there is none.
    """
    numbered = re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")
    files: dict[str, list[Path]] = {}
    for path in visible_files(folder):
        if path.name.endswith(file_ending):
            match = numbered.fullmatch(path.name)
            files.setdefault(match[1] if match else path.name.removesuffix(file_ending), []).append(path)
    if not files:
        raise FileNotFoundError(f"{folder} holds no {file_ending} file. Give the right --file-ending.")
    return [Case(name, tuple(paths)) for name, paths in sorted(files.items())]


def masks_of(scans: Iterable[Case], folder: Path, file_ending: str) -> dict[str, Path]:
    """The masks CASE<ending> of a folder by scan; scans without one are left out.

    Raises:
        FileNotFoundError: if no scan has one.
    """
    files = {scan.name: folder / f"{scan.name}{file_ending}" for scan in scans}
    found = {name: file for name, file in files.items() if file.is_file()}
    if not found:
        example = next(iter(files.values())).name
        raise FileNotFoundError(f"Masks are named after their scans, such as {example}; {folder} holds none.")
    return found


def mismatched(mask: Path, scan: Geometry) -> Dropped | None:
    """That a scan's mask cannot be read or has another size or spacing, or None."""
    found = geometry_of(Case(mask.name, (mask,)))
    if isinstance(found, Dropped):
        return Dropped(MASK, found.reason)
    if found.size != scan.size or not all(map(isclose_mm, found.spacing_mm, scan.spacing_mm)):
        return Dropped(
            MASK,
            f"the mask has {list(found.size)} voxels of {list(found.spacing_mm)} mm, the scan {list(scan.size)} of "
            f"{list(scan.spacing_mm)} mm",
        )
    return None


def isclose_mm(first: float, second: float) -> bool:
    """Whether two spacings differ by rounding only."""
    return math.isclose(first, second, rel_tol=1e-3)


def common_channels(scans: Iterable[Case]) -> int:
    """The number of files that most scans have."""
    return Counter(len(scan.files) for scan in scans).most_common(1)[0][0]


def geometry_of(scan: Case) -> Geometry | Dropped:
    """Size and spacing from the header of a scan's first file, or that it is damaged."""
    try:
        header = read_itk_header(scan.files[0])
    except UnreadableFile as error:
        return Dropped("damaged", f"{scan.files[0].name}: {error.found}; expected {error.expected}")
    return Geometry(header.size[:SPATIAL_AXES], header.spacing_mm[:SPATIAL_AXES])


def filtered(scan: Case, geometry: Geometry, limits: ScanFilter) -> Dropped | None:
    """Why a filter leaves a scan out, or None."""
    shortest, largest = min(geometry.field_of_view_mm), max(geometry.spacing_mm)
    if limits.min_fov_mm is not None and shortest < limits.min_fov_mm:
        return Dropped(FIELD_OF_VIEW, f"a field of view of {shortest:.4g} mm, below {limits.min_fov_mm:g} mm")
    if limits.max_spacing_mm is not None and largest > limits.max_spacing_mm:
        return Dropped(SPACING, f"a spacing of {largest:.4g} mm, above {limits.max_spacing_mm:g} mm")
    for file in scan.files:
        size = file.stat().st_size
        if limits.min_file_kb is not None and size < 1e3 * limits.min_file_kb:
            return Dropped(FILE_SIZE, f"{file.name} has {size / 1e3:.4g} kB, below {limits.min_file_kb:g} kB")
        if limits.max_file_mb is not None and size > 1e6 * limits.max_file_mb:
            return Dropped(FILE_SIZE, f"{file.name} has {size / 1e6:.4g} MB, above {limits.max_file_mb:g} MB")
    return None
