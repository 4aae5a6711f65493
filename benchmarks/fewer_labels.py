"""What images without labels add to eight labelled patients of ACDC: mean teacher and pseudo-labels.

    python benchmarks/fewer_labels.py DATA WORK

Data, network, length and test images are those of the study's CPU preset; eight patients of its training patients
keep their labels, the images of the others go to `imagesUn`. All models train on all labelled cases (`-f all`) with
two seeds. Pseudo-labels are those of both plain models with flips. What WORK has already is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.cells import predicted_and_judged
from study.data import PLANS, cropped, held_out_patients, images_of, number_of, patients_of, prepare, write_plans
from study.results_read import MethodResults, compared
from study.settings import Method, Preset, Study, read_study
from study.trainings import cpu_seconds_of
from workspace import nnunet_folder, plan, run, use_workspace

PSEUDO = 227
ROWS = {
    "8 patients": ("", "final", False),
    "mean teacher, student": ("MeanTeacher", "final", False),
    "mean teacher, teacher": ("MeanTeacher", "checkpoint_ema.pth", False),
    "pseudo-labels, CaseWeights": ("CaseWeights", "final", True),
}  # part, members, whether it trains on pseudo-labels


def main() -> None:
    """Prepares, trains, predicts, evaluates; prints a table per test set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of raw datasets")
    parser.add_argument("work", type=Path)
    parser.add_argument("--labelled", type=int, default=8, help="patients with labels")
    options = parser.parse_args()
    study = read_study("cpu")
    preset, source, work = study.preset, options.data.resolve(), options.work.resolve()
    use_workspace(work)
    work.mkdir(parents=True, exist_ok=True)
    raw = nnunet_folder("raw") / preset.dataset
    if not (raw / "imagesUn").exists():
        link_cases(preset, source / preset.dataset, raw, options.labelled)
    prepare(preset, source)
    run("nnunet_ext", "preprocess-unlabelled", "-d", number_of(preset.dataset), "-c", preset.configuration, "-p",
        PLANS, "-npp", 1, "--disable_progress_bar")  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    for row, (part, members, pseudo) in ROWS.items():
        if pseudo:
            label(preset, raw, work)
        for seed in preset.seeds:
            model = train(preset, part, seed, pseudo, work)
            words = ["-m", model, "-f", "all", "--members", members, "--tta", "none", "--disable_progress_bar"]
            found.setdefault(row, []).append(judge(preset, row, seed, words, source, work))
    print_tables(study, found)


def link_cases(preset: Preset, source: Path, raw: Path, labelled: int) -> None:
    """A raw dataset in which only some patients, evenly spread, have labels."""
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    patients = patients_of(source / "labelsTr", ending, preset.patients)
    held_out = held_out_patients(list(patients), preset)
    others = [patient for patient in patients if patient not in held_out]
    chosen = others[:: len(others) // labelled][:labelled]
    cases = [case for patient in chosen for case in patients[patient]]
    unlabelled = [case for patient in others if patient not in chosen for case in patients[patient]]
    raw.mkdir(parents=True)
    cropped((source / "labelsTr" / f"{case}{ending}" for case in cases), raw / "labelsTr", preset.crop)
    for some, folder in ((cases, "imagesTr"), (unlabelled, "imagesUn")):
        cropped((image for case in some for image in images_of(source, case, ending)), raw / folder, preset.crop)
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": len(cases)}), encoding="utf-8")


def model_of(preset: Preset, part: str, seed: int, dataset: str) -> tuple[str, Path]:
    """A trainer's name, and the folder of its model."""
    trainer = "nnUNetTrainer" + "_".join([part, preset.length, f"member{seed}"])
    return trainer, nnunet_folder("results") / dataset / f"{trainer}__{PLANS}__{preset.configuration}"


def train(preset: Preset, part: str, seed: int, pseudo: bool, work: Path) -> Path:
    """Trains on all labelled cases unless it is done; returns the folder of the model."""
    dataset = pseudo_dataset() if pseudo else preset.dataset
    trainer, model = model_of(preset, part, seed, dataset)
    if not (model / "fold_all" / "validation" / "summary.json").is_file():
        words = ["nnUNetv2_train", number_of(dataset), preset.configuration, "all", "-tr", trainer, "-p", PLANS]
        cpu_seconds_of([*words, "-device", preset.device], work / f"{dataset}_{trainer}.log")
    return model


def pseudo_dataset() -> str:
    """The folder name of the dataset of pseudo-labels."""
    (found,) = nnunet_folder("raw").glob(f"Dataset{PSEUDO}_*")
    return found.name


def label(preset: Preset, raw: Path, work: Path) -> None:
    """Labels the other images by both plain models with flips, and prepares the new dataset for training."""
    if not list(nnunet_folder("raw").glob(f"Dataset{PSEUDO}_*")):
        models = [word for seed in preset.seeds for word in ("-m", model_of(preset, "", seed, preset.dataset)[1])]
        predicted, quiet = work / "predicted", "--disable_progress_bar"
        run("nnunet_ext", "predict", "-i", raw / "imagesUn", "-o", predicted, *models, "-f", "all", "--maps",
            "mutual_information", "--save_probabilities", "--continue_prediction", quiet)  # fmt: skip
        run("nnunet_ext", "pseudo-label", "-d", number_of(preset.dataset), "-i", raw / "imagesUn", "-p", predicted,
            "--new-id", PSEUDO, "--patients", preset.patients, quiet)  # fmt: skip
    preprocessed = nnunet_folder("preprocessed") / pseudo_dataset()
    if not (preprocessed / f"{PLANS}.json").is_file():
        plan(PSEUDO, preset.configuration)
        write_plans(preprocessed, preset)
        run("nnUNetv2_preprocess", "-d", PSEUDO, "-c", preset.configuration, "-plans_name", PLANS, "-np", 1,
            "--no_pbar", nnUNet_n_proc_DA="1")  # fmt: skip


def judge(preset: Preset, row: str, seed: int, words: Sequence[object], source: Path, work: Path) -> dict[str, Any]:
    """Predicts and evaluates every test set, unless it is done."""
    folder = work / "judged" / f"{row.replace(' ', '_')}_{seed}"
    file = folder / "result.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tests = {test.name: predicted_and_judged(preset, test, words, folder, source, work) for test in preset.tests}
        file.write_text(json.dumps({"tests": tests}), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def print_tables(study: Study, found: dict[str, list[dict[str, Any]]]) -> None:
    """Dice and ECE of each row, with the paired interval of the difference to the first."""
    rows = {row: MethodResults(Method(row, ""), tuple(results)) for row, results in found.items()}
    first = next(iter(rows.values()))
    for test in study.preset.tests:
        print(f"\n## {test.name}\n\n| | Dice | difference | ECE |\n|---|---|---|---|")
        for row, results in rows.items():
            pair = compared(study, test, "mean_dice", results, first)
            change = (
                f"{pair.mean_difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})" if results is not first else ""
            )
            print(f"| {row} | {results.mean(test, 'mean_dice'):.3f} | {change} | {results.mean(test, 'ece'):.4f} |")


if __name__ == "__main__":
    main()
