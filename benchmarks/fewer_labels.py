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
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.data import PLANS, number_of, prepare, training_patients, write_raw_dataset
from study.results_read import MethodResults, compared
from study.running import Places, predicted_and_judged
from study.settings import Method, Preset, Study, read_study
from study.trainings import Training, train
from workspace import nnunet_folder, run, use_workspace

FOLD = "all"
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
    preset, places = study.preset, Places(options.data.resolve(), options.work.resolve())
    source, work = places.source, places.work
    use_workspace(work)
    work.mkdir(parents=True, exist_ok=True)
    raw = nnunet_folder("raw") / preset.dataset
    if not (raw / "imagesUn").exists():
        reveal(preset, source / preset.dataset, raw, options.labelled)
    prepare(preset, source)
    run("nnunet_ext", "preprocess-unlabelled", "-d", number_of(preset.dataset), "-c", preset.configuration, "-p",
        PLANS, "-npp", 1, "--disable_progress_bar")  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    for row, (part, members, pseudo) in ROWS.items():
        trained_on = pseudo_preset(preset, raw, source, work) if pseudo else preset
        for seed in preset.seeds:
            training = Training(part, seed, FOLD)
            train(training, trained_on)
            words = ["-m", training.model(trained_on), "-f", FOLD, "--members", members, "--tta", "none"]
            words.append("--disable_progress_bar")
            found.setdefault(row, []).append(judge(preset, row, seed, words, places))
    print_tables(study, found)


def reveal(preset: Preset, source: Path, raw: Path, labelled: int) -> None:
    """A raw dataset in which only some patients, evenly spread, have labels."""
    patients = training_patients(preset, source)
    names = list(patients)
    chosen = names[:: len(names) // labelled][:labelled]
    cases, unlabelled = (
        [case for name in names if (name in chosen) is has_label for case in patients[name]]
        for has_label in (True, False)
    )
    write_raw_dataset(source, raw, cases, preset.crop, unlabelled)


def pseudo_preset(preset: Preset, raw: Path, source: Path, work: Path) -> Preset:
    """The preset on the dataset whose other images both plain models labelled with flips; it is made if missing."""
    if not list(nnunet_folder("raw").glob(f"Dataset{PSEUDO}_*")):
        models = [word for seed in preset.seeds for word in ("-m", Training("", seed, FOLD).model(preset))]
        predicted, quiet = work / "predicted", "--disable_progress_bar"
        run("nnunet_ext", "predict", "-i", raw / "imagesUn", "-o", predicted, *models, "-f", FOLD, "--maps",
            "mutual_information", "--save_probabilities", "--continue_prediction", quiet)  # fmt: skip
        run("nnunet_ext", "pseudo-label", "-d", number_of(preset.dataset), "-i", raw / "imagesUn", "-p", predicted,
            "--new-id", PSEUDO, "--patients", preset.patients, quiet)  # fmt: skip
    (dataset,) = nnunet_folder("raw").glob(f"Dataset{PSEUDO}_*")
    of_pseudo = replace(preset, dataset=dataset.name)
    prepare(of_pseudo, source)
    return of_pseudo


def judge(preset: Preset, row: str, seed: int, words: Sequence[object], places: Places) -> dict[str, Any]:
    """Predicts and evaluates every test set, unless it is done."""
    folder = places.work / "judged" / f"{row.replace(' ', '_')}_{seed}"
    file = folder / "result.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tests = {test.name: predicted_and_judged(preset, test, words, folder, places) for test in preset.tests}
        file.write_text(json.dumps({"tests": tests}), encoding="utf-8")
    return {"seed": seed, **json.loads(file.read_text(encoding="utf-8"))}


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
