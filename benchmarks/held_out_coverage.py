"""How many true Dice of held-out patients lie in the intervals that a calibration predicts, on real data.

    python benchmarks/held_out_coverage.py DATA/Dataset027_ACDC 2d WORK --patients '(patient[0-9]+)_'
    python benchmarks/held_out_coverage.py DATA/Dataset004_Hippocampus 3d_fullres WORK --fit 45 --held-out 60

Every other patient is held out. The rest is planned and trained by stock nnU-Net in folds of patients (small
networks, few iterations), calibrated on the folds, and `nnunet_ext report --gt` judges the held-out cases. What WORK
has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from small_plans import write_small
from workspace import plan, run, use_workspace

PLANS = "nnUNetPlansCoverage"


def main() -> None:
    """Prepares, trains, calibrates, predicts, judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a raw dataset")
    parser.add_argument("configuration")
    parser.add_argument("work", type=Path)
    parser.add_argument("--patients", metavar="REGEX", default="(.*)")
    parser.add_argument("--fit", type=int, default=40, help="patients to train and calibrate with")
    parser.add_argument("--held-out", type=int, default=40, help="patients")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("-tr", default="nnUNetTrainerCyclical2_10epochs_60iters")
    parser.add_argument("--members", default="samples:4")
    parser.add_argument("-f", nargs="+", default=[], help="folds that predict the held-out cases (default: all)")
    parser.add_argument("-device", default="cpu")
    options = parser.parse_args()
    name = options.dataset.name
    number = name[7:10]
    raw, preprocessed, results = (folder / name for folder in use_workspace(options.work))
    if not (raw / "dataset.json").is_file():
        copy_cases(options.dataset, raw, options.patients, options.fit, options.held_out)
    if not (preprocessed / "splits_final.json").is_file():
        plan(int(number), options.configuration, plans=PLANS)
        write_small(preprocessed / f"{PLANS}.json", PLANS, {options.configuration: {}})
        run("nnunet_ext", "splits", "-d", number, "--patients", options.patients, "--folds", options.folds)
    model = ["-d", number, "-c", options.configuration, "-p", PLANS, "-tr", options.tr]
    folder = results / f"{options.tr}__{PLANS}__{options.configuration}"
    for fold in range(options.folds):
        if not (folder / f"fold_{fold}" / "validation" / "summary.json").is_file():
            run("nnUNetv2_train", number, options.configuration, fold, "-tr", options.tr, "-p", PLANS,
                "-device", options.device)  # fmt: skip
    ensemble = [*model, "--members", options.members, "-device", options.device, "--disable_progress_bar"]
    if not (folder / "calibration.json").is_file():
        run("nnunet_ext", "calibrate", *ensemble, "--patients", options.patients)
    folds = ["-f", *options.f] if options.f else []
    predictions = options.work / "_".join(["predictions", *options.f])
    run("nnunet_ext", "predict", "-i", raw / "imagesTs", "-o", predictions, *ensemble, *folds, "--calibrated",
        "--continue_prediction")  # fmt: skip
    run("nnunet_ext", "report", predictions, "--gt", raw / "labelsTs", "--disable_progress_bar")


def copy_cases(
    source: Path, raw: Path, patients: str, fit: int | None = None, held_out: int | None = None, every: int = 2
) -> None:
    """A raw dataset with every second patient's cases, or every third's, in `imagesTs` and `labelsTs`.

    Args:
        source: raw dataset to copy from.
        raw: raw dataset that does not exist.
        patients: pattern whose group is the patient in a case's name.
        fit: most patients to train with.
        held_out: most patients that are held out.
        every: 2 for every second.
    """
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    patient_of = {}
    for path in sorted((source / "labelsTr").iterdir()):
        case = path.name.removesuffix(ending)
        found = re.search(patients, case)
        patient_of[case] = found[1] if found else case
    names = list(dict.fromkeys(patient_of.values()))
    others = names[every - 1 :: every]
    copy_part(source, raw, "Tr", ending, cases_of(patient_of.items(), [n for n in names if n not in others][:fit]))
    copy_part(source, raw, "Ts", ending, cases_of(patient_of.items(), others[:held_out]))
    count = len(list((raw / "labelsTr").iterdir()))
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": count}), encoding="utf-8")


def cases_of(patient_of: Iterable[tuple[str, str]], patients: Sequence[str]) -> list[str]:
    """The cases of some patients."""
    return [case for case, patient in patient_of if patient in patients]


def copy_part(source: Path, raw: Path, part: str, ending: str, cases: Sequence[str]) -> None:
    """Images and labels of some cases into `imagesPART` and `labelsPART`."""
    for kind in ("images", "labels"):
        (raw / f"{kind}{part}").mkdir(parents=True)
    for case in cases:
        shutil.copy(source / "labelsTr" / f"{case}{ending}", raw / f"labels{part}")
        for image in (source / "imagesTr").glob(f"{case}_????{ending}"):
            shutil.copy(image, raw / f"images{part}")


if __name__ == "__main__":
    main()
