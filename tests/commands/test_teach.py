"""`nnunet_ext teach`, from flags to the files, with tiny networks that were never trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.cli import main
from nnunet_ext.commands.student import Student, resampled
from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.options import EnsembleOptions, TeachOptions
from nnunet_ext.options.pretraining import ScanFilter
from nnunet_ext.prediction_folder.output_lock import OutputLock
from nnunet_ext.teaching.case_file import CaseProbabilities
from nnunet_ext.teaching.record import TOGETHER, TeacherRecord
from nnunet_ext.unlabelled.preprocess import Preparation, prepare_scan
from nnunet_ext.unlabelled.scans import find_scans

DATASET = "Dataset998_Tiny"
CASES = ["p0_ed", "p0_es", "p1_ed", "p1_es"]
SPLITS = [{"train": CASES[2:], "val": CASES[:2]}, {"train": CASES[:2], "val": CASES[2:]}]
SPACINGS = {"2d": [1.0, 1.0], "3d_fullres": [4.0, 2.0, 1.5]}  # the images have 4, 1 and 1 mm
WHOLE = (slice(None),) * 4


@pytest.fixture
def teachers(make_model_folder: Callable[..., Path]) -> list[Path]:
    """Two models of two folds each, which differ in configuration."""
    return [
        make_model_folder("flat", folds=(0, 1)),
        make_model_folder("deep", configuration="3d_fullres", mirror_axes=(0, 1, 2), folds=(0, 1)),
    ]


@pytest.fixture
def preprocessed(
    teachers: list[Path], make_image: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A dataset, preprocessed for a student in 2d on the images' grid and in 3D on a coarser one."""
    raw, base = tmp_path / "nnUNet_raw" / DATASET, tmp_path / "nnUNet_preprocessed" / DATASET
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(base.parent))
    base.mkdir(parents=True)
    (raw / "labelsTr").mkdir(parents=True)
    (base / "splits_final.json").write_text(json.dumps(SPLITS))
    dataset_json = json.loads((teachers[0] / "dataset.json").read_text())
    (base / "dataset.json").write_text(json.dumps(dataset_json))
    plans = json.loads((teachers[1] / "plans.json").read_text())
    plans["configurations"] |= json.loads((teachers[0] / "plans.json").read_text())["configurations"]
    for name, spacing_mm in SPACINGS.items():
        plans["configurations"][name] |= {"spacing": spacing_mm, "data_identifier": f"student_{name}"}
    (base / "student.json").write_text(json.dumps(plans))
    for number, case in enumerate(CASES):
        image = make_image(raw / "imagesTr", case, seed=number) / f"{case}_0000.nii.gz"
        label = sitk.ReadImage(str(image)) > 200
        sitk.WriteImage(sitk.Cast(label, sitk.sitkUInt8), str(raw / "labelsTr" / f"{case}.nii.gz"))
        manager = PlansManager(plans)
        for name in SPACINGS:
            configuration = manager.get_configuration(name)
            folder = base / configuration.data_identifier
            folder.mkdir(exist_ok=True)
            configuration.preprocessor_class(verbose=False).run_case_save(
                *(str(folder / case), [str(image)], str(raw / "labelsTr" / f"{case}.nii.gz")),
                *(manager, configuration, dataset_json),
            )
    return base


@pytest.fixture
def teach(teachers: list[Path], preprocessed: Path) -> Callable[..., int]:
    """Runs the command with both teachers; returns its exit status."""

    def run(*flags: str, configuration: str = "2d", models: list[Path] = teachers) -> int:
        command = ["teach", "-d", DATASET, "-c", configuration, "-p", "student", "-device", "cpu", "--disable_tta"]
        chosen = [word for model in models for word in ("-m", str(model))]
        return main([*command, *chosen, "--disable_progress_bar", *flags])

    return run


def read(preprocessed: Path, case: str, configuration: str = "2d") -> np.ndarray:
    """(2, z, y, x) of a case."""
    file = preprocessed / f"student_{configuration}_teacher" / f"{case}.b2nd"
    return CaseProbabilities(file, 3, regions=False)[WHOLE]


def image_of(preprocessed: Path, case: str, configuration: str = "2d") -> tuple[Any, dict[str, Any]]:
    """The preprocessed image and its properties."""
    image, _, _, properties = nnUNetDatasetBlosc2(str(preprocessed / f"student_{configuration}")).load_case(case)
    return image, properties


# --- what is written ---


def test_each_case_is_taught_by_the_fold_that_held_it_out(teach, teachers, preprocessed, capsys):
    assert teach("--patients", "(p[0-9])_") == 0
    printed = capsys.readouterr().out
    for fold, split in enumerate(SPLITS):
        options = EnsembleOptions(folds=fold, device="cpu", allow_tqdm=False, tta="none")
        engine = EnsembleEngine.from_model_folders(teachers, options)
        images = preprocessed.parent.parent / "nnUNet_raw" / DATASET / "imagesTr"
        files = [[str(images / f"{case}_0000.nii.gz")] for case in split["val"]]
        outcome = engine.predict_from_files(files, None, save_probabilities=True)
        for case, prediction in zip(split["val"], outcome.predictions, strict=True):
            crop = tuple(slice(*ends) for ends in image_of(preprocessed, case)[1]["bbox_used_for_cropping"])
            assert prediction.probabilities is not None
            expected = np.stack([volume[crop] for volume in prediction.probabilities[1:]])
            np.testing.assert_allclose(read(preprocessed, case), expected, atol=2**-11)
    record = TeacherRecord.load(preprocessed / "student_2d_teacher")
    assert (record.outputs, record.regions, record.settings["mirroring"]) == (3, False, False)
    assert {fold: taught.cases for fold, taught in record.folds.items()} == {"0": CASES[:2], "1": CASES[2:]}
    assert [(member["model"], member["name"]) for member in record.folds["1"].members] == [
        ("flat", "fold_1/checkpoint_final"),
        ("deep", "fold_1/checkpoint_final"),
    ]
    size = sum(read(preprocessed, case).size * 2 for case in CASES)
    assert (
        f"4 cases, each taught by the fold that held it out: 0 1; 0 are complete\nat most {size / 1e9:.3g} GB"
        in printed
    )
    assert printed.endswith("-tr nnUNetTrainerDistill -p student\n")


def test_a_student_on_a_coarser_grid_has_the_probabilities_there(teach, preprocessed):
    assert teach("-f", "0", configuration="3d_fullres") == 0
    assert teach("-f", "0", configuration="2d") == 0
    for case in CASES[:2]:
        found, fine = read(preprocessed, case, "3d_fullres"), read(preprocessed, case)
        assert found.shape[1:] == image_of(preprocessed, case, "3d_fullres")[0].shape[1:] != fine.shape[1:]
        assert found.min() >= 0
        assert found.sum(axis=0).max() <= 1.001
        np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), fine.mean(axis=(1, 2, 3)), atol=0.05)


def test_a_volume_is_transposed_cropped_and_resampled_as_the_image_was(preprocessed):
    """Linear along the axes: a ramp in x stays a ramp, at the centres of the larger voxels."""
    student = Student.open(DATASET, "student", "3d_fullres")
    ramp = np.broadcast_to(np.linspace(0.1, 0.9, 24, dtype=np.float32), (2, 4, 20, 24))
    found = resampled(ramp, (4, 10, 16), [4.0, 1.0, 1.0], student.configuration)
    centres = np.interp((np.arange(16) + 0.5) * 1.5 - 0.5, np.arange(24), ramp[0, 0, 0])
    np.testing.assert_allclose(found, np.broadcast_to(centres, found.shape), atol=1e-4)
    image, properties = image_of(preprocessed, CASES[0], "3d_fullres")
    student.plans.plans["transpose_forward"] = [2, 0, 1]
    turned = {**properties, "shape_before_cropping": (26, 4, 20), "bbox_used_for_cropping": [[1, 3], [0, 4], [2, 9]]}
    student.cases.load_case = lambda case: (np.zeros((1, 2, 4, 7)), None, None, turned)
    volume = np.random.default_rng(0).random((3, 4, 20, 26), np.float32)
    expected = volume[:, :, 2:9, 1:3].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(student.on_grid(volume, CASES[0]), expected)
    with pytest.raises(ValueError, match="must be the one that was preprocessed"):
        student.on_grid(volume[:, :3], CASES[0])
    assert image.shape[1:] != (4, 20, 26)


def test_a_configuration_that_inherits_another_has_its_cases_and_its_teacher(preprocessed):
    file = preprocessed / "student.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["half"] = {"inherits_from": "2d", "batch_size": 1}
    file.write_text(json.dumps(plans))
    student = Student.open("998", "student", "half")
    assert student.folder == preprocessed / "student_2d"
    assert sorted(student.cases.identifiers) == CASES


# --- killed, resumed, continued elsewhere ---


def test_a_killed_run_is_resumed_with_what_is_complete(teach, preprocessed, capsys):
    """A run that died while it wrote the third case leaves two files, a part of the third, and the record."""
    assert teach() == 0
    folder = preprocessed / "student_2d_teacher"
    whole = {case: read(preprocessed, case) for case in CASES}
    (folder / f"{CASES[2]}.b2nd").rename(folder / f"{PARTIAL_PREFIX}{CASES[2]}.b2nd")
    (folder / f"{CASES[3]}.b2nd").unlink()
    os.truncate(folder / f"{PARTIAL_PREFIX}{CASES[2]}.b2nd", 100)
    before = {case: (folder / f"{case}.b2nd").stat().st_mtime_ns for case in CASES[:2]}
    assert teach() == 0
    assert "; 2 are complete" in capsys.readouterr().out
    assert {case: (folder / f"{case}.b2nd").stat().st_mtime_ns for case in CASES[:2]} == before
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{case}.b2nd" for case in CASES), "teacher.json"]
    for case in CASES:
        np.testing.assert_array_equal(read(preprocessed, case), whole[case])


def test_files_without_a_record_are_not_taken_for_complete(teach, preprocessed, capsys):
    """Nobody knows who taught them: a run that was killed while it removed another teacher's leaves such files."""
    folder = preprocessed / "student_2d_teacher"
    folder.mkdir()
    (folder / f"{CASES[0]}.b2nd").write_bytes(b"of another teacher")
    assert teach("-f", "0") == 0
    assert "; 0 are complete" in capsys.readouterr().out
    assert read(preprocessed, CASES[0]).max() <= 1


def test_folds_can_be_taught_one_by_one(teach, preprocessed, capsys):
    assert teach("-f", "1") == 0
    assert "2 preprocessed cases have no teacher, such as p0_ed" in capsys.readouterr().out
    assert teach("-f", "0") == 0
    assert set(TeacherRecord.load(preprocessed / "student_2d_teacher").folds) == {"0", "1"}


def test_another_teacher_needs_overwrite(teach, teachers, preprocessed, write_checkpoint, capsys):
    assert teach("-f", "0") == 0
    assert teach("-f", "0", models=teachers[:1]) == 1
    assert "another teacher" in capsys.readouterr().err
    write_checkpoint(teachers[0], 0, seed=99)
    assert teach("-f", "0") == 1
    assert "fold 0 had flat/fold_0/checkpoint_final" in capsys.readouterr().err
    assert teach("-f", "0", "--overwrite", models=teachers[:1]) == 0
    record = TeacherRecord.load(preprocessed / "student_2d_teacher")
    assert [member["model"] for member in record.folds["0"].members] == ["flat"]


# --- cases without labels ---


@pytest.fixture
def unlabelled(teachers: list[Path], preprocessed: Path, make_image: Callable[..., Path]) -> Callable[..., None]:
    """Puts images of these names into `imagesUn` and preprocesses them for the student in 2d."""

    def add(*names: str) -> None:
        images = preprocessed.parent.parent / "nnUNet_raw" / DATASET / "imagesUn"
        for number, name in enumerate(names):
            make_image(images, name, seed=100 + number)
        plans = json.loads((preprocessed / "student.json").read_text())
        folder = preprocessed / "student_2d_unlabelled"
        folder.mkdir(exist_ok=True)
        preparation = Preparation(folder, plans, "2d", 1, ".nii.gz", ScanFilter())
        for scan in find_scans(images, ".nii.gz"):
            assert prepare_scan(scan, preparation).dropped is None

    return add


def read_unlabelled(preprocessed: Path, case: str) -> np.ndarray:
    """(2, z, y, x) of a case without labels."""
    file = preprocessed / "student_2d_unlabelled_teacher" / f"{case}.b2nd"
    return CaseProbabilities(file, 3, regions=False)[WHOLE]


def test_a_case_without_labels_is_taught_by_all_folds_together(teach, teachers, preprocessed, unlabelled, capsys):
    unlabelled("q0_a", "q1_a")
    assert teach("--unlabelled", "--patients", "([a-z][0-9])_") == 0
    options = EnsembleOptions(folds=[0, 1], device="cpu", allow_tqdm=False, tta="none")
    engine = EnsembleEngine.from_model_folders(teachers, options)
    images = preprocessed.parent.parent / "nnUNet_raw" / DATASET / "imagesUn"
    files = [[str(images / f"{case}_0000.nii.gz")] for case in ("q0_a", "q1_a")]
    outcome = engine.predict_from_files(files, None, save_probabilities=True)
    for case, prediction in zip(("q0_a", "q1_a"), outcome.predictions, strict=True):
        assert prediction.probabilities is not None
        properties = nnUNetDatasetBlosc2(str(preprocessed / "student_2d_unlabelled")).load_case(case)[3]
        crop = (slice(1, None), *(slice(*ends) for ends in properties["bbox_used_for_cropping"]))
        np.testing.assert_allclose(read_unlabelled(preprocessed, case), prediction.probabilities[crop], atol=2**-11)
    record = TeacherRecord.load(preprocessed / "student_2d_unlabelled_teacher")
    assert set(record.folds) == {TOGETHER}
    assert record.folds[TOGETHER].cases == ["q0_a", "q1_a"]
    assert record.folds[TOGETHER].trained_on == CASES
    assert [member["name"] for member in record.folds[TOGETHER].members] == [
        f"fold_{fold}/checkpoint_final" for fold in (0, 1, 0, 1)
    ]
    assert not (preprocessed / "student_2d_teacher").exists()
    printed = capsys.readouterr().out
    size = sum(read_unlabelled(preprocessed, case).size * 2 for case in ("q0_a", "q1_a"))
    assert (
        f"2 cases without labels, all taught by these folds: 0 1; 0 are complete\nat most {size / 1e9:.3g} GB"
        in printed
    )
    assert printed.endswith("-tr nnUNetTrainerDistill_Unlabelled -p student\n")


def test_a_case_that_was_preprocessed_again_is_taught_again(teach, preprocessed, unlabelled, capsys):
    unlabelled("q0_a", "q1_a")
    assert teach("--unlabelled") == 0
    before = read_unlabelled(preprocessed, "q1_a")
    unlabelled("q1_a")  # another image of that name
    capsys.readouterr()
    assert teach("--unlabelled") == 0
    assert "; 1 are complete" in capsys.readouterr().out
    assert not np.array_equal(read_unlabelled(preprocessed, "q1_a"), before)


def test_two_runs_do_not_teach_a_student_at_a_time(teach, preprocessed, capsys):
    lock = OutputLock(preprocessed / ".student_2d_teacher_lock")
    assert teach() == 1
    assert "Only one run at a time" in capsys.readouterr().err
    lock.release()
    assert teach() == 0
    assert not (preprocessed / ".student_2d_teacher_lock").exists()


def test_a_killed_run_on_cases_without_labels_is_resumed_and_takes_new_ones(teach, preprocessed, unlabelled, capsys):
    unlabelled("q0_a", "q1_a")
    assert teach("--unlabelled") == 0
    folder = preprocessed / "student_2d_unlabelled_teacher"
    whole = read_unlabelled(preprocessed, "q1_a")
    (folder / "q1_a.b2nd").rename(folder / f"{PARTIAL_PREFIX}q1_a.b2nd")
    os.truncate(folder / f"{PARTIAL_PREFIX}q1_a.b2nd", 100)
    before = (folder / "q0_a.b2nd").stat().st_mtime_ns
    unlabelled("q2_a")
    assert teach("--unlabelled") == 0
    assert "3 cases without labels, all taught by these folds: 0 1; 1 are complete" in capsys.readouterr().out
    assert (folder / "q0_a.b2nd").stat().st_mtime_ns == before
    np.testing.assert_array_equal(read_unlabelled(preprocessed, "q1_a"), whole)
    TeacherRecord.load(folder).require_taught(folder, ["q0_a", "q1_a", "q2_a"])
    assert teach("--unlabelled", "-f", "0") == 1
    assert "the cases without labels had flat/fold_0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("p1_es", (), "1 of the cases without labels are also labelled, such as p1_es"),
        ("p0_ed", ("-f", "0"), "also labelled, such as p0_ed"),  # which fold 0 held out
        ("p1_later", ("--patients", "(p[0-9])_"), "such as p1_later of p1, who has the case p1_ed"),
        ("p1_later", ("--patients", "(p[0-9])_", "-f", "0"), "such as p1_later of p1, who has the case p1_ed"),
    ],
)
def test_a_case_that_members_have_seen_is_refused_though_it_has_no_label(
    teach, preprocessed, unlabelled, capsys, name, flags, message
):
    unlabelled(name)
    assert teach("--unlabelled", *flags) == 1
    assert message in capsys.readouterr().err
    assert not (preprocessed / "student_2d_unlabelled_teacher").exists()


def test_a_patient_that_the_chosen_fold_held_out_is_taught_by_it(teach, preprocessed, unlabelled):
    """Fold 1 trained on p0, fold 0 did not."""
    unlabelled("p0_later")
    assert teach("--unlabelled", "--patients", "(p[0-9])_", "-f", "1") == 1
    assert teach("--unlabelled", "--patients", "(p[0-9])_", "-f", "0") == 0
    assert TeacherRecord.load(preprocessed / "student_2d_unlabelled_teacher").folds[TOGETHER].trained_on == CASES[2:]


def test_a_case_that_lost_its_label_after_the_training_is_refused(teach, teachers, unlabelled, capsys):
    unlabelled("q0_a")
    validated = teachers[1] / "fold_1" / "validation" / "q0_a.nii.gz"
    validated.parent.mkdir()
    validated.touch()
    assert teach("--unlabelled") == 1
    assert "it was a labelled case in the training" in capsys.readouterr().err


def test_without_preprocessed_cases_or_their_images_nothing_is_taught(teach, preprocessed, unlabelled, capsys):
    assert teach("--unlabelled") == 1
    assert "nnunet_ext preprocess-unlabelled -d Dataset998_Tiny -c 2d -p student" in capsys.readouterr().err
    unlabelled("q0_a", "q1_a")
    (preprocessed.parent.parent / "nnUNet_raw" / DATASET / "imagesUn" / "q1_a_0000.nii.gz").unlink()
    assert teach("--unlabelled") == 1
    assert "1 have none, such as q1_a" in capsys.readouterr().err


# --- leaks and contradictions ---


def refused(status: int, capsys: pytest.CaptureFixture[str], preprocessed: Path) -> str:
    assert status == 1
    assert not (preprocessed / "student_2d_teacher").exists()
    return capsys.readouterr().err


def test_a_teacher_that_was_trained_on_its_case_is_refused(teach, teachers, preprocessed, capsys):
    """The second model validated, in its fold 0, a case that the splits now list for training."""
    validated = teachers[1] / "fold_0" / "validation" / f"{CASES[2]}.nii.gz"
    validated.parent.mkdir()
    validated.touch()
    assert "the splits were changed after the training" in refused(teach(), capsys, preprocessed)


def test_a_case_on_both_sides_of_a_split_is_refused(teach, preprocessed, capsys):
    leaking = [SPLITS[0], {"train": CASES[:3], "val": CASES[2:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(leaking))
    assert CASES[2] in refused(teach(), capsys, preprocessed)


def test_a_patient_on_both_sides_is_refused(teach, preprocessed, capsys):
    mixed = [{"train": CASES[1::2], "val": CASES[::2]}, {"train": CASES[::2], "val": CASES[1::2]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(mixed))
    assert "from patients" in refused(teach("--patients", "(p[0-9])_"), capsys, preprocessed)


def test_members_of_all_cases_are_refused(teach, preprocessed, capsys):
    assert "fold_all was trained on every case" in refused(teach("-f", "all"), capsys, preprocessed)


def test_what_does_not_belong_together_is_refused(teach, make_model_folder, preprocessed, capsys):
    other = make_model_folder("other", folds=(0, 1), labels={"background": 0, "left": 2, "right": 1})
    assert "segment the same dataset" not in refused(teach(configuration="3d_lowres"), capsys, preprocessed)
    left = json.loads((preprocessed / "dataset.json").read_text())
    (preprocessed / "dataset.json").write_text(json.dumps({**left, "labels": {"background": 0, "left": 1}}))
    assert "segment the same dataset" in refused(teach(models=[other]), capsys, preprocessed)
    shutil.rmtree(preprocessed / "student_2d")
    assert "nnUNetv2_preprocess" in refused(teach(), capsys, preprocessed)


def test_options_are_checked():
    with pytest.raises(ValueError, match="found none"):
        TeachOptions("1", "2d", ())
    with pytest.raises(ValueError, match="different names"):
        TeachOptions("1", "2d", (Path("a/m"), Path("b/m")))
    with pytest.raises(ValueError, match="found 1"):
        TeachOptions("1", "2d", (Path("m"),), top=1)
