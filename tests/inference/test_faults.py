"""Faults around a prediction: disks, permissions, threads. Each is named, and spoils only what it must.

docs/reference/faults.md is the list of them.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from nnunet_ext.cli import main
from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.input_checks import BadInputError
from nnunet_ext.prediction_folder import case_files as export
from nnunet_ext.prediction_folder import writer as case_writer
from nnunet_ext.prediction_folder.case_table import CaseTable, read_cases
from nnunet_ext.prediction_folder.cases import find_cases
from nnunet_ext.prediction_folder.output_lock import OutputInUseError, OutputLock

CASES = ["c0", "c1", "c2"]
NOBODY = 65534
as_root = sys.platform.startswith("linux") and os.geteuid() == 0


def full_disk(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    for seed, case in enumerate(CASES):
        make_image(tmp_path / "images", case, shape_zyx=(2, 20, 20), seed=seed)
    return tmp_path / "images"


@pytest.fixture
def predictor(make_model_folder: Callable[..., Path]) -> EnsemblePredictor:
    return EnsemblePredictor.from_model_folders(make_model_folder(folds=(0, 1)), device="cpu", allow_tqdm=False)


@pytest.fixture
def command(make_model_folder: Callable[..., Path], images: Path, monkeypatch: pytest.MonkeyPatch):
    """`command(output)`: the exit status of `nnunet_ext predict` of the images."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    folder = make_model_folder()

    def run(output: Path, *flags: str) -> int:
        return main(
            ["predict", "-i", str(images), "-o", str(output), "-m", str(folder), "-device", "cpu",
             "--disable_progress_bar", *flags]
        )  # fmt: skip

    return run


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the description of the run, by its name within."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if name != "predict_args.json"}


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_only_c1_is_missing_until_continued(predictor: EnsemblePredictor, images: Path, output: Path) -> None:
    """No file of `c1` under a final name that marks it complete; continuing gives what a run without faults gives."""
    assert not (output / "c1.nii.gz").exists()
    assert not list(output.rglob(".partial-*"))
    assert not list(output.glob(".nnunet_ext-*"))
    assert [row["case"] for row in read_cases(output / "cases.csv")] == ["c0", "c2"]
    for case in ("c0", "c2"):
        assert (output / f"{case}.nii.gz").is_file()
    report = predictor.predict_from_files(images, output, True, False, save_members=True)
    assert (report.predicted, report.skipped, report.failed) == (["c1"], ["c0", "c2"], {})
    unharmed = output.with_name("unharmed")
    predictor.predict_from_files(images, unharmed, True, save_members=True)
    assert list(content(output)) == list(content(unharmed))
    assert read_cases(output / "cases.csv") == read_cases(unharmed / "cases.csv")
    for case in CASES:
        np.testing.assert_array_equal(voxels(output / f"{case}.nii.gz"), voxels(unharmed / f"{case}.nii.gz"))


# --- a full disk ---


def full_at_the_segmentation(patch: pytest.MonkeyPatch) -> None:
    write = SimpleITKIO.write_seg

    def write_seg(self: SimpleITKIO, seg: np.ndarray, name: str, properties: dict) -> None:
        if Path(name).name == "c1.nii" and "members" not in Path(name).parts:
            Path(name).write_bytes(b"the first bytes")
            full_disk()
        write(self, seg, name, properties)

    patch.setattr(SimpleITKIO, "write_seg", write_seg)


def full_at_a_member(patch: pytest.MonkeyPatch) -> None:
    write = SimpleITKIO.write_seg

    def write_seg(self: SimpleITKIO, seg: np.ndarray, name: str, properties: dict) -> None:
        if Path(name).name == "c1.nii" and "fold_1__checkpoint_final" in Path(name).parts:
            full_disk()
        write(self, seg, name, properties)

    patch.setattr(SimpleITKIO, "write_seg", write_seg)


def full_at_a_map(patch: pytest.MonkeyPatch) -> None:
    write = export.write_map
    patch.setattr(
        export,
        "write_map",
        lambda values, path, *rest: (full_disk if "c1" in path.name else write)(values, path, *rest),
    )


def full_at_the_probabilities(patch: pytest.MonkeyPatch) -> None:
    save = np.savez_compressed

    def savez(path: Path, **arrays: np.ndarray) -> None:
        if "c1" in Path(path).name:
            Path(path).write_bytes(b"PK\x03\x04")
            full_disk()
        save(path, **arrays)

    patch.setattr(np, "savez_compressed", savez)


def full_at_the_row(patch: pytest.MonkeyPatch) -> None:
    add = CaseTable.add
    patch.setattr(CaseTable, "add", lambda self, row: (full_disk if row["case"] == "c1" else add)(self, row))


def full_at_the_renaming(patch: pytest.MonkeyPatch) -> None:
    """Of the last file of the case, when its maps have their names already."""
    replace = Path.replace

    def rename(self: Path, target: Path) -> Path:
        if Path(target).name == "c1.nii.gz" and "maps" not in target.parts and "members" not in target.parts:
            full_disk()
        return replace(self, target)

    patch.setattr(Path, "replace", rename)


@pytest.mark.parametrize(
    "full",
    [
        *(full_at_the_segmentation, full_at_a_member, full_at_a_map, full_at_the_probabilities),
        *(full_at_the_row, full_at_the_renaming),
    ],
)
@pytest.mark.parametrize("write_behind", [0, 1], ids=["in line", "in a thread"])
def test_a_disk_that_is_full_fails_the_case_by_name_and_no_other(
    predictor, images, tmp_path, monkeypatch, full, write_behind
):
    with monkeypatch.context() as patch:
        full(patch)
        report = predictor.predict_from_files(
            images, tmp_path / "out", True, save_members=True, num_processes_segmentation_export=write_behind
        )
    assert report.failed == {"c1": "OSError: [Errno 28] No space left on device"}
    assert report.predicted == ["c0", "c2"]
    assert_only_c1_is_missing_until_continued(predictor, images, tmp_path / "out")


@pytest.mark.parametrize("written", ["write_run_description", "CaseTable"])
def test_a_disk_that_is_full_at_the_start_ends_the_run_and_frees_the_folder(
    command, tmp_path, monkeypatch, capsys, written
):
    with monkeypatch.context() as patch:
        patch.setattr(case_writer, written, full_disk)
        assert command(tmp_path / "out") == 1
    assert "nnunet_ext predict: [Errno 28] No space left on device" in capsys.readouterr().err
    OutputLock(tmp_path / "out").release()


def test_a_disk_that_is_full_at_the_last_table_keeps_the_cases(predictor, images, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CaseTable, "finish", full_disk)
        with pytest.raises(OSError, match="No space left on device"):
            predictor.predict_from_files(images, tmp_path / "out")
    assert [row["case"] for row in read_cases(tmp_path / "out" / "cases.csv")] == CASES
    OutputLock(tmp_path / "out").release()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 112 KiB, for the writers that are not in Python."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = as_root and shutil.which("mount")
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=112k", "tmpfs", str(disk)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small file system can be mounted only by root on Linux")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_leaves_whole_cases_only(predictor, small_disk, make_image, tmp_path):
    noise = np.random.default_rng(0)
    for number in range(4):
        folder = make_image(tmp_path / "many", f"c{number}", shape_zyx=(4, 40, 40))
        path = folder / f"c{number}_0000.nii.gz"
        image = sitk.ReadImage(str(path))
        filled = sitk.GetImageFromArray(noise.normal(100, 20, (4, 40, 40)).astype(np.float32))
        filled.CopyInformation(image)
        sitk.WriteImage(filled, str(path))
    # A map of 6400 floats takes 26 KB, and packed some 20 KB beside it: room for the files of two cases, not of four.
    report = predictor.predict_from_files(folder, small_disk / "out")
    assert report.predicted
    assert report.failed
    for case, message in report.failed.items():
        assert "OSError" in message or "RuntimeError" in message  # RuntimeError: SimpleITK's own
        assert not (small_disk / "out" / f"{case}.nii.gz").exists()
    for case in report.predicted:
        assert voxels(small_disk / "out" / f"{case}.nii.gz").shape == (4, 40, 40)
        assert np.isfinite(voxels(small_disk / "out" / "maps" / "entropy" / f"{case}.nii.gz")).all()
    assert not list((small_disk / "out").rglob(".partial-*"))


# --- permissions and places ---


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A folder that this process may look into but not change: root becomes the user nobody for the test."""
    if os.name == "nt":
        pytest.skip("permissions of POSIX")
    folder = Path(tempfile.mkdtemp())  # the folders above tmp_path are closed to others
    folder.chmod(0o555)
    if as_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("inside", ["", "new"])
def test_a_read_only_output_folder_is_named(foreign_folder, inside):
    with pytest.raises(PermissionError, match="The output folder must be writable") as refusal:
        OutputLock(foreign_folder / inside)
    assert f"{foreign_folder / inside} is not (Permission denied)" in str(refusal.value)


def test_an_image_that_may_not_be_read_fails_its_case_by_name(predictor, images, foreign_folder):
    if as_root:
        os.seteuid(0)
    shutil.copytree(images, foreign_folder / "images")
    for path in (foreign_folder / "images").iterdir():
        path.chmod(0o000 if path.name.startswith("c1") else 0o444)
    if as_root:
        os.seteuid(NOBODY)
    readable, closed, _ = find_cases(foreign_folder / "images", ".nii.gz")
    predictor.engine.prepare(readable)
    with pytest.raises((BadInputError, PermissionError), match="ermission denied") as refusal:
        predictor.engine.prepare(closed)
    assert str(foreign_folder / "images" / "c1_0000.nii.gz") in str(refusal.value)


def test_an_output_that_is_a_file_is_refused_and_kept(command, tmp_path, capsys):
    (tmp_path / "out").write_text("results of last year", encoding="utf-8")
    assert command(tmp_path / "out") == 1
    assert f"The output must be a folder; {tmp_path / 'out'} is a file." in capsys.readouterr().err
    assert (tmp_path / "out").read_text(encoding="utf-8") == "results of last year"


def test_a_folder_in_use_is_refused_and_not_touched(command, tmp_path, capsys):
    output = tmp_path / "out"
    assert command(output) == 0
    capsys.readouterr()
    before = content(output) | {"predict_args.json": (output / "predict_args.json").read_bytes()}
    other = OutputLock(output)
    try:
        assert command(output, "--maps", "none") == 1
        assert command(output, "--continue_prediction") == 1
        assert command(output, "-num_parts", "2", "-part_id", "1") == 1
    finally:
        other.release()
    for line in capsys.readouterr().err.splitlines():
        assert f"{output} is in use by process {os.getpid()} on" in line
    assert content(output) | {"predict_args.json": (output / "predict_args.json").read_bytes()} == before


def test_a_run_that_is_interrupted_frees_the_folder(predictor, images, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        with pytest.raises(OutputInUseError):
            OutputLock(tmp_path / "out")
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor.engine, "predict_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_from_files(images, tmp_path / "out")
    assert set(content(tmp_path / "out")) == {"dataset.json", "plans.json"}


@pytest.mark.parametrize(("parts", "left"), [(1, set()), (2, {".partial-x7k2"})])
def test_what_killed_runs_left_is_removed_by_a_run_that_has_the_folder_alone(
    predictor, images, tmp_path, parts, left
):
    # .partial-x7k2 is what a run leaves that is killed while it writes a table; another part may be writing just now
    output = tmp_path / "out"
    for name in (".partial-x7k2", ".partial-c0", ".partial-a case of another run"):
        (output / name).mkdir(parents=True)
        (output / name / "cases.csv").touch()
    (output / ".partial-metrics.csv").touch()  # of nnunet_ext evaluate, which may be running
    predictor.predict_from_files(images, output, num_parts=parts)
    found = {path.name for path in output.glob(".*")}
    assert found == {".partial-metrics.csv"} | left | ({".partial-a case of another run"} if left else set())


# --- threads ---


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a voxel of no colour"), "ValueError: a voxel of no colour"),
        (MemoryError("9 GiB"), "MemoryError: 9 GiB"),
        (
            SystemExit("the reader gave up"),
            "RuntimeError: Preparing the case ended with SystemExit: the reader gave up.",
        ),
    ],
)
@pytest.mark.parametrize("ahead", [0, 1], ids=["in line", "in a thread"])
def test_what_preprocessing_raises_fails_its_case_by_name(
    predictor, images, tmp_path, monkeypatch, error, message, ahead
):
    run_case = DefaultPreprocessor.run_case

    def broken(self: DefaultPreprocessor, files: list[str], *rest: Any) -> Any:
        if "c1" in Path(files[0]).name:
            raise error
        return run_case(self, files, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DefaultPreprocessor, "run_case", broken)
        report = predictor.predict_from_files(
            images, tmp_path / "out", True, save_members=True, num_processes_preprocessing=ahead
        )
    assert (report.predicted, report.failed) == (["c0", "c2"], {"c1": message})
    assert_only_c1_is_missing_until_continued(predictor, images, tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("ITK ERROR: no such codec"), "RuntimeError: ITK ERROR: no such codec"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_what_the_writing_thread_raises_fails_its_case_by_name(
    predictor, images, tmp_path, monkeypatch, error, message
):
    write_case = case_writer.write_case

    def broken(prediction: Any, *rest: Any, **settings: Any) -> None:
        if prediction.case == "c1":
            raise error
        write_case(prediction, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(case_writer, "write_case", broken)
        report = predictor.predict_from_files(images, tmp_path / "out", True, save_members=True)
    assert (report.predicted, report.failed) == (["c0", "c2"], {"c1": message})
    assert_only_c1_is_missing_until_continued(predictor, images, tmp_path / "out")


def test_memory_that_runs_out_even_for_a_single_patch_fails_the_case_by_name(
    predictor, images, tmp_path, monkeypatch
):
    network = predictor.engine.models[0].network
    forward, calls = network.forward, []

    def out_of_memory_at_c1(patches: torch.Tensor) -> torch.Tensor:
        calls.append(len(patches))
        if progress[-1] == "c1":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(patches)

    progress: list[str] = []
    predict_case = predictor.engine.predict_case

    def noted(name: str, *arguments: Any, **settings: Any) -> Any:
        progress.append(name)
        return predict_case(name, *arguments, **settings)

    monkeypatch.setattr(predictor.engine, "predict_case", noted)
    monkeypatch.setattr(network, "forward", out_of_memory_at_c1)
    report = predictor.predict_from_files(images, tmp_path / "out")
    assert report.predicted == ["c0", "c2"]
    assert report.failed["c1"].startswith("OutOfMemoryError: CUDA out of memory")
    assert 1 in calls  # down to a single patch


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("a shape of no sense")]
)
def test_other_errors_of_the_network_are_not_taken_for_memory_that_runs_out(
    predictor, images, tmp_path, monkeypatch, error, caplog
):
    calls: list[int] = []

    def broken(patches: torch.Tensor) -> torch.Tensor:
        calls.append(len(patches))
        raise error

    monkeypatch.setattr(predictor.engine.models[0].network, "forward", broken)
    report = predictor.predict_from_files(images, tmp_path / "out")
    assert report.predicted == []
    assert report.failed == {case: f"{type(error).__name__}: {error}" for case in CASES}
    assert len(calls) == len(CASES)  # one try a case
    assert "does not fit into memory" not in caplog.text


# --- networks ---


def test_probabilities_that_are_no_numbers_fail_their_case(make_model_folder, images, tmp_path):
    """Logits of 1e38 and more overflow to infinity, whose softmax is NaN; the weights themselves are finite."""
    folder = make_model_folder(folds=(0, 1), logit_scale=1e38)
    predictor = EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False)
    outcome = predictor.predict_from_files(images, tmp_path / "out")
    assert sorted(outcome.failed) == CASES
    assert "Probabilities must be numbers" in outcome.failed["c0"]
    assert not list((tmp_path / "out").glob("*.nii.gz"))
