"""2,000 damaged NIfTI files: the checks find something, or nnU-Net's reader gives the right answer.

What the right answer is differs, for a .nii file has no checksum:

- `.nii.gz`: every byte may be damaged. The CRC-32 of the stream covers header and voxels, so without a finding both
  readers must give the voxels, the spacing and the geometry of the intact file.
- `.nii`: everything may be damaged but the values of voxels in place: the header, the extension, the length of the
  file. A changed voxel is another image, and nobody can tell; so is a spacing of 1.5 mm in place of 1 mm if all of
  the header agrees with it. Therefore the standard is the judge: without a finding both readers must give what
  `decode_by_the_standard`, written from nifti1.h with struct and NumPy alone, makes of the damaged bytes:
  - the voxels, scaled;
  - the spacing: pixdim; in mm under SimpleITK, in the file's own unit under nibabel;
  - position and directions: the sform or the qform. NibabelIO takes the sform if there are both. SimpleITKIO may take
    either, as the standard leaves it open. A file with neither code has no position, and nothing is promised of it.

An error of the reader without a finding fails the test, too: the checks are there to say it first.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.input_checks import check_case

READERS = (SimpleITKIO, NibabelIO)
MUTATIONS = settings(
    max_examples=1000, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


# ---- intact files -------------------------------------------------------------------------------------------------


def oblique_affine() -> np.ndarray:
    """Voxels of 1 x 2 x 3 mm, turned by 30 degrees about z."""
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    affine = np.array([[cos, -sin, 0, 5], [sin, cos, 0, -6], [0, 0, 1, 7], [0, 0, 0, 1]])
    return affine @ np.diag([1, 2, 3, 1.0])


def scaled_integers_with_an_extension() -> bytes:
    """int16 with slope and intercept, sform and qform, and 16 bytes of extension before the voxels."""
    voxels = np.random.default_rng(0).integers(-300, 300, (6, 7, 8), dtype=np.int16)
    image = nibabel.Nifti1Image(voxels, oblique_affine())
    image.set_sform(oblique_affine(), 1)
    image.set_qform(oblique_affine(), 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"8 bytes."))
    data = bytearray(image.to_bytes())
    struct.pack_into("<2f", data, 112, 0.5, 20)  # scl_slope, scl_inter
    return bytes(data)


def floats_with_a_qform() -> bytes:
    """float32 with a qform alone."""
    voxels = np.random.default_rng(1).normal(100, 10, (6, 7, 8)).astype(np.float32)
    image = nibabel.Nifti1Image(voxels, oblique_affine())
    image.set_qform(oblique_affine(), 1)
    image.header.set_xyzt_units("mm", "sec")
    data = bytearray(image.to_bytes())
    struct.pack_into("<2h", data, 252, 1, 0)  # qform_code, sform_code
    return bytes(data)


INTACT = (scaled_integers_with_an_extension(), floats_with_a_qform())
COMPRESSED = tuple(gzip.compress(data, mtime=0) for data in INTACT)


# ---- mutations ----------------------------------------------------------------------------------------------------

Mutation = Callable[[bytearray], None]
places = st.floats(0, 1, exclude_max=True, width=32)  # a share of the part that may be damaged
lengths = st.integers(1, 64)


@dataclass(frozen=True)
class FlipBit:
    place: float
    bit: int

    def apply(self, data: bytearray, end: int) -> None:
        data[int(self.place * end)] ^= 1 << self.bit


@dataclass(frozen=True)
class OverwriteByte:
    place: float
    value: int

    def apply(self, data: bytearray, end: int) -> None:
        data[int(self.place * end)] = self.value


@dataclass(frozen=True)
class SwapBlocks:
    first: float
    second: float
    length: int

    def apply(self, data: bytearray, end: int) -> None:
        one, other = sorted((int(self.first * end), int(self.second * end)))
        length = min(self.length, other - one, end - other)
        data[one : one + length], data[other : other + length] = (
            data[other : other + length],
            data[one : one + length],
        )


@dataclass(frozen=True)
class DeleteRange:
    place: float
    length: int

    def apply(self, data: bytearray, end: int) -> None:
        start = int(self.place * len(data))
        del data[start : start + self.length]


@dataclass(frozen=True)
class InsertBytes:
    place: float
    content: bytes

    def apply(self, data: bytearray, end: int) -> None:
        start = int(self.place * (len(data) + 1))
        data[start:start] = self.content


@dataclass(frozen=True)
class Truncate:
    keep: float

    def apply(self, data: bytearray, end: int) -> None:
        del data[int(self.keep * len(data)) :]


in_place = st.one_of(
    st.builds(FlipBit, places, st.integers(0, 7)),
    st.builds(OverwriteByte, places, st.integers(0, 255)),
    st.builds(SwapBlocks, places, places, lengths),
)
any_mutation = st.one_of(
    in_place,
    st.builds(DeleteRange, places, lengths),
    st.builds(InsertBytes, places, st.binary(min_size=1, max_size=64)),
    st.builds(Truncate, places),
)
# Half of the files keep their length, for most changes of it are found by it alone.
mutations = st.lists(in_place, min_size=1, max_size=3) | st.lists(any_mutation, min_size=1, max_size=3)


def mutate(intact: bytes, chosen: list, first_voxel: int | None = None) -> bytes:
    """The damaged bytes. What changes bytes in place stays before the first voxel, if that is given."""
    data = bytearray(intact)
    for mutation in chosen:
        end = len(data) if first_voxel is None else min(first_voxel, len(data))
        if end:
            mutation.apply(data, end)
    return bytes(data)


# ---- what a file says, and what a reader makes of it --------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What nnU-Net would go on with.

    Attributes:
        voxels: (z, y, x), float32.
        spacing: (z, y, x).
        position: Origin (3,) and directions (3, 3), one column an axis x, y, z, in RAS; several if the file gives a
            choice; none if it gives no position.
    """

    voxels: np.ndarray
    spacing: tuple[float, ...]
    positions: tuple[tuple[np.ndarray, np.ndarray], ...]
    rounding: float = 0.0


def answer_of(reader: type, path: Path) -> Answer:
    voxels, properties = reader().read_images([str(path)])
    assert len(voxels) == 1  # one channel
    if reader is NibabelIO:
        position = split(properties["nibabel_stuff"]["original_affine"])
    else:
        stuff = properties["sitk_stuff"]
        to_ras = np.diag([-1, -1, 1])  # from ITK's LPS
        position = to_ras @ stuff["origin"], to_ras @ np.reshape(stuff["direction"], (3, 3))
    return Answer(voxels[0], tuple(properties["spacing"]), (position,))


def split(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origin and directions of an affine."""
    return affine[:3, 3], affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


NUMBERS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
UNIT_MM = {1: 1000.0, 3: 0.001}  # metre, micrometre; 2 is mm


def decode_by_the_standard(data: bytes, in_mm: bool) -> Answer:
    """Reads a 3D NIfTI-1 file of one number a voxel, after nifti1.h."""
    order = "<" if struct.unpack_from("<i", data)[0] == 348 else ">"

    def field(code: str, offset: int) -> tuple:
        return struct.unpack_from(order + code, data, offset)

    axes, *dim = field("8h", 40)
    assert axes == 3 or set(dim[3:axes]) == {1}
    x, y, z = dim[:3]
    ((datatype,), (vox_offset,), (slope, intercept)) = field("h", 70), field("f", 108), field("2f", 112)
    stored = np.frombuffer(data, order + NUMBERS[datatype], x * y * z, int(vox_offset)).reshape(z, y, x)
    voxels = stored.astype(np.float64) * slope + intercept if slope != 0 else stored
    pixdim, (qform_code, sform_code) = field("8f", 76), field("2h", 252)
    unit = UNIT_MM.get(data[123] & 7, 1.0) if in_mm else 1.0
    positions = []
    if sform_code > 0:
        positions.append(split(np.reshape(field("12f", 280), (3, 4))))
    if qform_code > 0:
        directions = rotation(*field("3f", 256)) @ np.diag([1, 1, -1 if pixdim[0] < 0 else 1])
        positions.append((np.array(field("3f", 268)), directions))
    return Answer(
        voxels.astype(np.float32),
        tuple(unit * spacing for spacing in pixdim[3:0:-1]),
        tuple((unit * origin, directions) for origin, directions in positions),
        rounding=1e-6 * (np.abs(stored.astype(np.float64) * slope).max() + abs(intercept)) if slope != 0 else 0.0,
    )


def rotation(b: float, c: float, d: float) -> np.ndarray:
    """The matrix of the unit quaternion (a, b, c, d) with a >= 0, as nifti1.h writes it out."""
    a = math.sqrt(max(0, 1 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def require_same(answer: Answer, expected: Answer) -> None:
    np.testing.assert_allclose(answer.voxels, expected.voxels, rtol=1e-6, atol=expected.rounding)
    np.testing.assert_allclose(answer.spacing, expected.spacing, rtol=1e-6)
    ((origin, directions),) = answer.positions
    tolerance = 1e-5 * np.abs(origin).max() + 1e-4
    assert not expected.positions or any(
        np.allclose(origin, other_origin, rtol=0, atol=tolerance) and np.allclose(directions, other, atol=1e-3)
        for other_origin, other in expected.positions
    ), (answer.positions, expected.positions)


def findings_about(path: Path, reader: type) -> list[str]:
    ending = ".nii.gz" if path.suffix == ".gz" else ".nii"
    return list(map(str, check_case([path], file_ending=ending, channels=1, reader=reader.__name__)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


# ---- tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("which", range(len(INTACT)))
def test_of_the_intact_files_checks_readers_and_standard_say_the_same(which: int, reader: type, folder: Path) -> None:
    expected = decode_by_the_standard(INTACT[which], in_mm=True)
    image = nibabel.Nifti1Image.from_stream(io.BytesIO(INTACT[which]))
    np.testing.assert_allclose(expected.voxels, image.get_fdata().T, rtol=1e-6)
    for name, data in (("intact_0000.nii", INTACT[which]), ("intact_0000.nii.gz", COMPRESSED[which])):
        (folder / name).write_bytes(data)
        if name.endswith(".gz") or reader is NibabelIO:
            assert findings_about(folder / name, reader) == []
        require_same(answer_of(reader, folder / name), expected)
        assert answer_of(reader, folder / name).spacing == (3, 2, 1)


@given(which=st.sampled_from(range(len(INTACT))), chosen=mutations)
@MUTATIONS
def test_a_damaged_nii_gz_is_found_or_read_as_the_intact_file(which: int, chosen: list, folder: Path) -> None:
    path = folder / "a_0000.nii.gz"
    path.write_bytes(mutate(COMPRESSED[which], chosen))
    for reader in READERS:
        if not findings_about(path, reader):
            require_same(answer_of(reader, path), decode_by_the_standard(INTACT[which], in_mm=True))


@given(which=st.sampled_from(range(len(INTACT))), chosen=mutations)
@MUTATIONS
def test_a_damaged_nii_is_found_or_read_as_the_standard_says(which: int, chosen: list, folder: Path) -> None:
    (first_voxel,) = struct.unpack_from("<f", INTACT[which], 108)
    data = mutate(INTACT[which], chosen, int(first_voxel))
    path = folder / "plain_0000.nii"  # not beside a .nii.gz of the same name
    path.write_bytes(data)
    for reader in READERS:
        if not findings_about(path, reader):
            require_same(answer_of(reader, path), decode_by_the_standard(data, in_mm=reader is SimpleITKIO))


def test_bytes_that_nothing_depends_on_may_be_anything(folder: Path) -> None:
    # 80 bytes of descrip and 24 of aux_file: no finding, or the checks would refuse good images
    data = bytearray(INTACT[0])
    data[148:252] = bytes(range(1, 105))
    (folder / "b_0000.nii").write_bytes(data)
    assert findings_about(folder / "b_0000.nii", NibabelIO) == []
