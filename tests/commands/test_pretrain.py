"""`nnunet_ext pretrain`, from a folder of scans to a preprocessed dataset and a checkpoint."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.cli import main
from nnunet_ext.files.checkpoints import CANNOT_SEGMENT_KEY, EXTRA_STATE_KEY, load_checkpoint

NAME = "Dataset900_Scans"


def write(path: Path, seed: int, spacing_mm=(1.0, 1.0, 2.0), shape=(20, 22, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing_mm, 1])), path)
    return path


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Four good scans, one cut short, one with thick slices; nnU-Net's folders beside them."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    folder = tmp_path / "scans"
    for number in range(4):
        write(folder / f"p{number // 2}_s{number}.nii.gz", number)
    cut = write(folder / "cut.nii.gz", 5)
    cut.write_bytes(cut.read_bytes()[:-50])
    write(folder / "thick.nii.gz", 6, spacing_mm=(1.0, 1.0, 9.0))
    return folder


@pytest.fixture
def plans(make_model_folder):
    """A plans.json of another dataset, for a network that trains in a second."""
    return make_model_folder("other", configuration="3d_fullres", folds=()) / "plans.json"


@pytest.fixture
def pretrain(scans, plans):
    """Runs the command on the scans with the small plans."""
    common = ["pretrain", "-i", scans, "-d", NAME, "--plans", plans, "-npp", 1, "--disable_progress_bar"]

    def run(*flags):
        return main(list(map(str, [*common, "--max-spacing", 5, *flags])))

    return run


def dataset_folder(scans):
    return scans.parent / "nnUNet_preprocessed" / NAME


def table(scans):
    with (dataset_folder(scans) / "pretraining_scans.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_every_scan_is_in_the_table_with_the_reason_why_it_was_dropped(pretrain, scans, capsys):
    assert pretrain("--only-data") == 0
    rows = table(scans)
    assert [name for name, row in rows.items() if row["kept"] == "yes"] == ["p0_s0", "p0_s1", "p1_s2", "p1_s3"]
    assert (rows["cut"]["reason"], rows["thick"]["reason"]) == ("damaged", "spacing")
    assert "truncated" in rows["cut"]["explanation"]
    assert rows["thick"]["field_of_view_mm"] == "20 x 22 x 108"
    assert "4 of 6 scans are in the dataset" in capsys.readouterr().out


def test_the_images_are_what_nnunets_preprocessor_makes_of_them(pretrain, scans):
    pretrain("--only-data")
    folder = dataset_folder(scans)
    plans = PlansManager(str(folder / "nnUNetPlans.json"))
    configuration = plans.get_configuration("3d_fullres")
    image, outside, _ = DefaultPreprocessor(verbose=False).run_case(
        [str(scans / "p0_s0.nii.gz")], None, plans, configuration, {}
    )
    cases = nnUNetDatasetBlosc2(str(folder / configuration.data_identifier))
    assert cases.identifiers == ["p0_s0", "p0_s1", "p1_s2", "p1_s3"]
    found, mask, _, properties = cases.load_case("p0_s0")
    np.testing.assert_array_equal(found[:], image)
    np.testing.assert_array_equal(mask[:], outside)
    assert properties["class_locations"] == {}


def test_held_out_scans_are_whole_patients(pretrain, scans):
    pretrain("--only-data", "--patients", "(p[0-9])_")
    splits = json.loads((dataset_folder(scans) / "splits_final.json").read_text())
    assert sorted(split["val"] for split in splits) == [["p0_s0", "p0_s1"], ["p1_s2", "p1_s3"]]


def test_a_second_run_completes_the_first(pretrain, scans):
    pretrain("--only-data")
    cases = dataset_folder(scans) / "nnUNetPlans_3d_fullres"
    before = {path.name: path.stat().st_mtime_ns for path in cases.iterdir()}
    (cases / "p1_s3.pkl").unlink()  # as if the run had been killed
    (dataset_folder(scans) / ".partial-nnUNetPlans_3d_fullres_p1_s3").mkdir()
    write(scans / "new.nii.gz", 9)
    assert pretrain("--only-data") == 0
    after = {path.name: path.stat().st_mtime_ns for path in cases.iterdir()}
    assert after.keys() - before.keys() == {"new.b2nd", "new_seg.b2nd", "new.pkl"}
    unchanged = {name for name in before if after[name] == before[name]}
    assert before.keys() - unchanged == {"p1_s3.b2nd", "p1_s3_seg.b2nd", "p1_s3.pkl"}
    assert not list(dataset_folder(scans).glob(".partial*"))


def test_a_scan_that_changed_is_prepared_again(pretrain, scans):
    pretrain("--only-data")
    cases = dataset_folder(scans) / "nnUNetPlans_3d_fullres"
    before = {path.name: path.stat().st_mtime_ns for path in cases.iterdir()}
    write(scans / "p0_s0.nii.gz", 5)
    assert pretrain("--only-data") == 0
    after = {path.name: path.stat().st_mtime_ns for path in cases.iterdir()}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"p0_s0.b2nd", "p0_s0_seg.b2nd", "p0_s0.pkl"}


def test_a_fold_that_is_not_there_is_refused(pretrain, capsys):
    """nnU-Net would hold out a random fifth instead, not by patient."""
    assert pretrain("-f", 40) == 1
    assert "-f must be a fold from 0 to" in capsys.readouterr().err


def test_a_stricter_filter_removes_what_an_earlier_run_kept(pretrain, scans):
    pretrain("--only-data")
    write(scans / "p0_s0.nii.gz", 0, shape=(20, 22, 3))
    assert pretrain("--only-data", "--min-fov", 10) == 0
    assert table(scans)["p0_s0"]["reason"] == "field of view"
    assert not list((dataset_folder(scans) / "nnUNetPlans_3d_fullres").glob("p0_s0*"))


def test_masks_of_removed_regions_are_stored_as_labels(pretrain, scans, capsys):
    masks = scans.parent / "masks"
    masks.mkdir()
    removed = np.zeros((20, 22, 12), np.uint8)
    removed[:5] = 255
    for name, shape in (("p0_s0", slice(None)), ("p0_s1", slice(10))):  # the second is too short
        nibabel.save(nibabel.Nifti1Image(removed[:, :, shape], np.diag([1, 1, 2, 1])), masks / f"{name}.nii.gz")
    trainer = "nnUNetTrainerMAE_1epochs_1iters"
    assert pretrain("--removed", masks, "-tr", trainer, "-device", "cpu") == 0
    assert table(scans)["p0_s1"]["reason"] == "mask"
    cases = nnUNetDatasetBlosc2(str(dataset_folder(scans) / "nnUNetPlans_3d_fullres"))
    for name, share in (("p0_s0", 0.25), ("p1_s2", 0)):
        _, labels, _, properties = cases.load_case(name)
        assert (labels[:] > 0).mean() == pytest.approx(share, abs=0.02)
        assert properties["class_locations"] == {}
    assert pretrain("--only-data") == 1
    assert "were with --removed" in capsys.readouterr().err


def test_other_plans_and_other_datasets_are_refused(pretrain, scans, capsys):
    pretrain("--only-data")
    assert pretrain("--only-data", "--batch-size", 3) == 1
    assert "same plans" in capsys.readouterr().err
    (scans.parent / "nnUNet_raw" / NAME).mkdir()
    assert pretrain("--only-data") == 1
    assert "a dataset of their own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["-d", "Heart"], "found 'Heart'"),
        (["-c", "2d"], "must have the configuration 2d; it has 3d_fullres"),
        (["--plans", "no.json"], "no.json does not exist"),
        (["-tr", "nnUNetTrainerCyclical"], "needs labels"),
        (["--min-fov", "1000"], "at least 2 must pass"),
    ],
)
def test_what_cannot_work_is_refused(pretrain, capsys, flags, found):
    assert pretrain(*flags) == 1
    assert found in capsys.readouterr().err


def test_an_id_without_a_dataset_gets_a_name_and_the_papers_plans(scans, capsys):
    flags = ["-d", "901", "--only-data", "--max-spacing", "5", "-npp", "2", "--disable_progress_bar"]
    assert main(["pretrain", "-i", str(scans), *flags]) == 0
    folder = scans.parent / "nnUNet_preprocessed" / "Dataset901_Pretraining"
    plans = PlansManager(str(folder / "nnUNetPretrainPlans.json"))
    configuration = plans.get_configuration("3d_fullres")
    assert configuration.batch_size == 6
    assert configuration.patch_size == [160] * 3
    kwargs = configuration.network_arch_init_kwargs
    assert kwargs["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    image = nnUNetDatasetBlosc2(str(folder / configuration.data_identifier)).load_case("p0_s0")[0]
    assert image.shape == (1, 24, 22, 20)  # 12 slices of 2 mm at 1 mm


def test_it_trains_and_continues_on_the_dataset(pretrain, scans, capsys):
    trainer = "nnUNetTrainerS3D_1epochs_2iters"
    assert pretrain("-tr", trainer, "-device", "cpu") == 0
    folder = scans.parent / "nnUNet_results" / NAME / f"{trainer}__nnUNetPlans__3d_fullres" / "fold_0"
    assert str(folder / "checkpoint_best.pth") in capsys.readouterr().out
    checkpoint = load_checkpoint(folder / "checkpoint_best.pth")
    assert checkpoint[EXTRA_STATE_KEY][CANNOT_SEGMENT_KEY]
    assert (folder / "reconstructions" / "epoch_0000.png").is_file()
    write(scans / "new.nii.gz", 9)
    assert pretrain("-tr", trainer, "-device", "cpu", "--c") == 1
    assert "keep its held-out scans" in capsys.readouterr().err
