"""The targets of the fuzzer accept what is right, and refuse in words what was found to break a parser once."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from fuzz_targets import TARGETS

from nnunet_ext.input_checks import check_case
from nnunet_ext.serving.file_limits import require_small_file
from nnunet_ext.serving.refusal import Refusal

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
    seeds = target.seeds()
    for _ in range(MUTATIONS):
        target.run(target.mutate(random.choice(seeds), random), tmp_path)


META_HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 1
DimSize = 2 3 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
COMPRESSED = ("CompressedData = False", "CompressedData = True\nCompressedDataSize = 18446744073709551616")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("NDims = 3", "NDims = 65536", "NDims = 65536"),  # ITK: segmentation fault
        ("NDims = 3", "NDims = 1e308", "NDims = 1e308"),  # likewise
        ("NDims = 3", "NDims = -1", "NDims = -1"),  # likewise
        ("NDims = 3", "NDims: 65536", "NDims = 65536"),  # likewise: MetaIO takes a colon, too
        ("NDims = 3", "NDims = 3\nNDims = 65536", "NDims = 65536"),
        ("LOCAL", "%s", "ElementDataFile = %s"),  # ITK: segmentation fault, as a format of printf
        (*COMPRESSED, "CompressedDataSize = 18446744073709551616"),  # ITK: std::bad_alloc
        ("0 0 0 1\n", "0 0 1e308 1\n", "the number 1e308"),  # ITK: never ends
    ],
)
def test_headers_that_break_itk_are_refused_unseen(old: str, new: str, found: str, tmp_path: Path) -> None:
    assert META_HEADER.count(old) == 1
    path = tmp_path / "a_0000.mha"
    path.write_bytes(META_HEADER.replace(old, new).encode() + bytes(24))
    (finding,) = check_case([path], file_ending=".mha", channels=1)
    assert found in finding.found
    with pytest.raises(Refusal):
        require_small_file(path, ".mha", 1000)


def test_an_nrrd_header_that_breaks_itk_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a_0000.nrrd"
    content = TARGETS["nrrd"].seeds()[0]
    for old, new in ((b"dimension: 3", b"dimension: 65536"), (b"(0,0,1)", b"(0,1e308,1)")):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        (finding,) = check_case([path], file_ending=".nrrd", channels=1)
        assert "in the header" in finding.found
