"""The data of a study, in its folder: training cases, plans of small networks, splits, test images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
from small_plans import write_small
from workspace import linked, nnunet_folder, plan, run

from nnunet_ext.files.atomic import says, write_json
from nnunet_ext.patients import patient_of

from .settings import ImageSet, Preset

PLANS = "nnUNetPlansStudy"


def number_of(dataset: str) -> int:
    """27 of `Dataset027_ACDC`."""
    return int(dataset[7:10])


def patients_of(dataset: Path, pattern: str) -> dict[str, list[str]]:
    """Cases of each patient of a raw dataset, in alphabetical order."""
    ending = description_of(dataset)["file_ending"]
    cases: dict[str, list[str]] = {}
    for path in sorted((dataset / "labelsTr").glob(f"*{ending}")):
        case = path.name.removesuffix(ending)
        cases.setdefault(patient_of(case, pattern), []).append(case)
    return cases


def description_of(dataset: Path) -> dict[str, Any]:
    """The `dataset.json` of a raw dataset."""
    return json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))


def prepare(preset: Preset, source: Path) -> None:
    """Raw dataset without the test patients, plans, preprocessed cases, splits; what is there stays.

    Args:
        preset: of the study.
        source: folder of raw datasets. nnU-Net's three folders are those of the environment variables.

    Raises:
        ValueError: if there is data of other settings.
    """
    raw = nnunet_folder("raw") / preset.dataset
    preprocessed = nnunet_folder("preprocessed") / preset.dataset
    number = number_of(preset.dataset)
    preprocessed.mkdir(parents=True, exist_ok=True)
    decides = ("configuration", "patients", "held_out_every", "folds", "network", "crop", "planner", "regions")
    require_same(preprocessed / "study.json", {name: getattr(preset, name) for name in decides})
    if not (raw / "dataset.json").is_file():
        patients = training_patients(preset, source / preset.dataset)
        cases = [case for its_cases in patients.values() for case in its_cases]
        write_raw_dataset(source / preset.dataset, raw, cases, preset.crop, regions=preset.regions)
    if not (preprocessed / "nnUNetPlans.json").is_file():
        planner = preset.planner or None
        plan(number, preset.configuration, planner=planner, plans="nnUNetPlans" if planner else None)
    if not (preprocessed / f"{PLANS}.json").is_file():
        write_plans(preprocessed, preset)
        run("nnUNetv2_preprocess", "-d", number, "-c", preset.configuration, "-plans_name", PLANS, "-np", 1,
            "--no_pbar", nnUNet_n_proc_DA="1")  # fmt: skip
    if not (preprocessed / "splits_final.json").is_file():
        run("nnunet_ext", "splits", "-d", number, "--patients", preset.patients, "--folds", preset.folds)


def require_same(file: Path, settings: Mapping[str, Any]) -> None:
    """Notes what a folder's files are made with.

    Args:
        file: of the note.
        settings: that decide the files.

    Raises:
        ValueError: if the note names others.
    """
    if not file.is_file():
        write_json(settings, file)
    elif not says(file, settings):
        before = file.read_text(encoding="utf-8")
        raise ValueError(f"WORK must have the data of {settings}; {file} says {before}. Use another WORK.")


def training_patients(preset: Preset, dataset: Path) -> dict[str, list[str]]:
    """Cases of each patient that is not held out."""
    patients = patients_of(dataset, preset.patients)
    held_out = held_out_patients(list(patients), preset)
    return {patient: cases for patient, cases in patients.items() if patient not in held_out}


def write_raw_dataset(
    source: Path,
    raw: Path,
    cases: Sequence[str],
    crop: Sequence[int],
    unlabelled: Sequence[str] = (),
    regions: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """A raw dataset with some cases of another, cropped.

    Args:
        source: raw dataset that has them.
        raw: is made.
        cases: with labels.
        crop: see `cropped`.
        unlabelled: cases whose images go to `imagesUn`, without their labels.
        regions: see `Preset`; None or empty keeps the labels.
    """
    description = description_of(source)
    if regions:
        description |= {"labels": {"background": 0, **regions}, "regions_class_order": [*range(1, len(regions) + 1)]}
    ending = description["file_ending"]
    raw.mkdir(parents=True)
    cropped((source / "labelsTr" / f"{case}{ending}" for case in cases), raw / "labelsTr", crop)
    for some, folder in ((cases, "imagesTr"), (unlabelled, "imagesUn")):
        if some:
            cropped((image for case in some for image in images_of(source, case, ending)), raw / folder, crop)
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": len(cases)}), encoding="utf-8")


def cropped(files: Iterable[Path], folder: Path, crop: Sequence[int]) -> Path:
    """A folder with the middle of each file, or with links to the files without a crop.

    Args:
        files: NIfTI files; with links any files.
        folder: is made if it is missing.
        crop: voxels to keep along the first axes; axes that are shorter stay as they are.

    Returns:
        The folder.
    """
    if not crop:
        return linked(files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        image = nibabel.load(file)
        starts = [max(0, (size - kept) // 2) for size, kept in zip(image.shape, crop, strict=False)]
        parts = tuple(slice(start, start + kept) for start, kept in zip(starts, crop, strict=True))
        nibabel.save(image.slicer[parts], folder / file.name)
    return folder


def held_out_patients(patients: list[str], preset: Preset) -> list[str]:
    """Every n-th patient: names of ACDC are in the order of the diagnoses, which keeps them balanced."""
    return patients[:: preset.held_out_every]


def images_of(dataset: Path, case: str, ending: str) -> Iterator[Path]:
    """The image files of a case, one per channel."""
    return (dataset / "imagesTr").glob(f"{case}_????{ending}")


def write_plans(preprocessed: Path, preset: Preset) -> None:
    """nnU-Net's plans with the preset's network and spacing."""
    network = dict(preset.network)
    spacing = network.pop("spacing", None)
    file = preprocessed / "nnUNetPlans.json"
    if network:
        small = write_small(file, PLANS, {preset.configuration: network})
    else:
        small = file.with_name(f"{PLANS}.json")
        shutil.copy(file, small)
    plans = json.loads(small.read_text(encoding="utf-8"))
    planned = plans["configurations"][preset.configuration]
    if spacing:
        sizes = zip(planned["median_image_size_in_voxels"], planned["spacing"], spacing, strict=True)
        planned["median_image_size_in_voxels"] = [size * before / now for size, before, now in sizes]
        planned["spacing"] = spacing
    planned["data_identifier"] = f"{PLANS}_{preset.configuration}"
    small.write_text(json.dumps(plans | {"plans_name": PLANS}), encoding="utf-8")


def image_folders(preset: Preset, test: ImageSet, source: Path, work: Path) -> tuple[Path, Path]:
    """Folders of the images and of the true labels of a test set; written unless they are there.

    Raises:
        ValueError: if there is a test set of that name with other images.
    """
    folder = work / "tests" / test.name.replace(" ", "_")
    images, labels = folder / "images", folder / "labels"
    dataset = source / (test.dataset or preset.dataset)
    folder.mkdir(parents=True, exist_ok=True)
    cases = cases_of(preset, test, dataset)
    require_same(folder / "study.json", {"cases": cases, "crop": preset.crop, "corrupted": test.corrupted})
    if not (folder / "complete").is_file():
        ending = description_of(dataset)["file_ending"]
        cropped((dataset / "labelsTr" / f"{case}{ending}" for case in cases), labels, preset.crop)
        files = [(number, file) for number, case in enumerate(cases) for file in images_of(dataset, case, ending)]
        if test.corrupted:
            from .corruptions import CORRUPTIONS, corrupt_file  # imported here: only this needs TorchIO

            whole = cropped((file for _, file in files), folder / "uncorrupted", preset.crop)
            images.mkdir(exist_ok=True)
            kinds = list(CORRUPTIONS)
            for number, file in files:
                corrupt_file(whole / file.name, kinds[number % len(kinds)], number, images / file.name)
        else:
            cropped((file for _, file in files), images, preset.crop)
        (folder / "complete").touch()
    return images, labels


def cases_of(preset: Preset, test: ImageSet, dataset: Path) -> list[str]:
    """Names of the cases of a test set, of a raw dataset."""
    if test.fold is not None:
        splits = nnunet_folder("preprocessed") / preset.dataset / "splits_final.json"
        return sorted(json.loads(splits.read_text(encoding="utf-8"))[test.fold]["val"])
    patients = patients_of(dataset, patients_pattern(preset, test))
    names = list(patients) if test.dataset else held_out_patients(list(patients), preset)
    return [case for name in names[:: test.every] for case in patients[name]]


def patients_pattern(preset: Preset, test: ImageSet) -> str:
    """The pattern of a test set's patients; the preset's unless it has its own."""
    return test.patients or preset.patients
