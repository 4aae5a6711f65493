"""Compares mixtures of two classifiers with one network and an ensemble of two, on the validation cases of a fold.

    python benchmarks/streaming_study.py 27 -p nnUNetPlansStudy --suffix 12epochs_50iters -device cpu [-o study.json]

Trains with stock `nnUNetv2_train` (models that are already trained are skipped) and predicts with the memory of the
whole volume, as `nnunet_ext predict` does; the mixture with memory also with the stock predictor, where the memory is
that of a single slice. Dice is the mean over cases and labels; EC is the end coefficient. nnU-Net's environment
variables must be set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from compare_trainers import train, trainer_name
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_ext.evaluation.end_slices import end_coefficient
from nnunet_ext.evaluation.overlap import mean_dice
from nnunet_ext.inference import EnsemblePredictor

PARTS = {"one network": ["plain 0"], "deep ensemble": ["plain 0", "plain 1"], "fixed": ["StreamingFixed 0"],
         "memory": ["Streaming 0"]}  # fmt: skip


def main() -> None:
    """Trains, predicts, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration", nargs="?", default="2d")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-f", default="0")
    parser.add_argument("--suffix", default="12epochs_50iters")
    parser.add_argument("-device", default="cuda")
    parser.add_argument("--work", type=Path, default=Path("streaming_study"), help="folder for the predictions")
    parser.add_argument("-o", type=Path, default=Path("streaming_study.json"))
    options = parser.parse_args()
    models: dict[str, Path] = {}
    for words in dict.fromkeys(word for group in PARTS.values() for word in group):
        part, seed = words.split()
        name = trainer_name("" if part == "plain" else part, options.suffix, int(seed))
        models[words] = train(options, name).parents[1]
    first = next(iter(models.values()))
    cases = sorted(path.name for path in (first / f"fold_{options.f}" / "validation").glob("*.nii.gz"))
    dataset = first.parent.name
    truths = [labels_of(Path(nnUNet_preprocessed) / dataset / "gt_segmentations" / case) for case in cases]
    table = {}
    for title, group in PARTS.items():
        folder = options.work / title.replace(" ", "_")
        predict([models[words] for words in group], dataset, cases, folder, options)
        table[title] = figures([labels_of(folder / case) for case in cases], truths)
    stock = models["Streaming 0"] / f"fold_{options.f}" / "validation"
    table["memory, stock's predictor"] = figures([labels_of(stock / case) for case in cases], truths)
    whole = [labels_of(options.work / "memory" / case) for case in cases]
    agreement = np.mean([np.mean(mine == labels_of(stock / case)) for mine, case in zip(whole, cases, strict=True)])
    print(f"{len(cases)} cases\n{'':28}{'Dice':>8}{'EC paper':>10}{'EC strict':>11}")
    for title, row in table.items():
        print(f"{title:28}{row['dice']:8.4f}{row['ec_paper']:10.2f}{row['ec_strict']:11.2f}")
    print(f"voxels with the same label, whole volume and stock: {agreement:.4%}")
    options.o.write_text(json.dumps({"cases": cases, "table": table, "agreement": float(agreement)}, indent=2))


def predict(
    models: Sequence[Path], dataset: str, cases: Sequence[str], folder: Path, options: argparse.Namespace
) -> None:
    """Predicts the validation cases with the members' mean probabilities."""
    predictor = EnsemblePredictor.from_model_folders(
        models, folds=[int(options.f)], device=options.device, allow_tqdm=False
    )
    images = Path(nnUNet_raw) / dataset / "imagesTr"
    files = [[str(images / case.replace(".nii.gz", "_0000.nii.gz"))] for case in cases]
    predictor.predict_from_files(files, folder, maps=[])


def labels_of(file: Path) -> np.ndarray:
    """The label map of a file, (z, y, x)."""
    return np.asarray(nibabel.load(file).dataobj).astype(int).transpose(2, 1, 0)  # (x, y, z) to (z, y, x)


def figures(predictions: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float]:
    """Mean Dice and the end coefficient in both variants."""
    classes = max(int(truth.max()) for truth in truths) + 1
    pairs = zip(predictions, truths, strict=True)
    return {
        "dice": float(np.mean([mean_dice(found, truth, range(1, classes)) for found, truth in pairs])),
        "ec_paper": end_coefficient(predictions, truths, num_classes=classes, variant="paper"),
        "ec_strict": end_coefficient(predictions, truths, num_classes=classes, variant="strict"),
    }


if __name__ == "__main__":
    main()
