"""What `pip install nnunet-ext` brings, and what the source distribution holds."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the dev extra is not installed")
pytest.importorskip("hatchling", reason="the dev extra is not installed")
pytest.importorskip("twine", reason="the dev extra is not installed")

ROOT = Path(__file__).parent.parent
OF_NO_USE = {".pyc", ".so", ".pth", ".gz"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both files."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    (file,) = built.glob("*.whl")
    assert file.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def source(built: Path) -> set[str]:
    """Names without the folder that all have in common."""
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def files_of(folder: Path) -> set[str]:
    found = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    ours = {name for name in wheel if ".dist-info/" not in name}
    assert ours == files_of(ROOT / "nnunet_ext")
    assert "nnunet_ext/py.typed" in ours  # type checkers of other projects use the annotations
    assert not [name for name in wheel if Path(name).suffix in OF_NO_USE]


def test_the_wheel_has_its_licence_and_its_command(wheel):
    described = {name.partition(".dist-info/")[2] for name in wheel if ".dist-info/" in name}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} == described


def test_the_source_distribution_can_be_built_tested_and_read(source):
    for folder in ("nnunet_ext", "tests", "benchmarks"):
        assert files_of(ROOT / folder) <= source
    for file in (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "SECURITY.md",
        "Makefile",
        "docs/index.md",
    ):
        assert file in source


def test_the_source_distribution_holds_nothing_that_was_built(source):
    assert not [name for name in source if Path(name).suffix in OF_NO_USE]
    assert not [name for name in source if name.startswith((".venv/", "docs/_build/", "demo/", "dist/", ".git/"))]


def test_the_package_index_accepts_both(built):
    files = [str(file) for file in built.iterdir()]
    finished = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
