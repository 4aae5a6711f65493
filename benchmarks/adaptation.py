"""Test-time adaptation on held-out cases, as they are and shifted: Dice, calibration error and CPU time, off and on.

    python benchmarks/adaptation.py MODEL_FOLDER IMAGES LABELS WORK -f 1 --cases 15

Every case is predicted by the same members without and with `--adapt`. The shifts are of one middle strength and the
same in every run: gamma 1.5, noise of a tenth of the intensity range, Gaussian blur of one voxel, and a bias field
from 0.67 to 1.5 along the last axis.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import find_objects, gaussian_filter

from nnunet_ext.evaluation import expected_calibration_error
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.options import AdaptOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of an image scaled to 0 to 1

SHIFTS: dict[str, Shift] = {
    "clean": lambda image, rng: image,
    "gamma": lambda image, rng: np.clip(image, 0, 1) ** 1.5,
    "noise": lambda image, rng: image + rng.normal(0, 0.1, image.shape),
    "blur": lambda image, rng: gaussian_filter(image, 1),
    "bias": lambda image, rng: image * np.exp(0.4 * np.linspace(-1, 1, image.shape[-1])),
}


def main() -> None:
    """Shifts, predicts both ways, compares; prints one line per shift and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("-f", nargs="+", help="folds (default: all)")
    parser.add_argument("--cases", type=int, default=15, help="the first cases in alphabetical order")
    parser.add_argument("--shifts", nargs="+", choices=SHIFTS, default=list(SHIFTS))
    parser.add_argument("-device")
    options = parser.parse_args()
    images = sorted(options.images.glob("*_0000.nii.gz"))[: options.cases]
    folds = [int(fold) for fold in options.f] if options.f else None
    ways = {"off": None, "on": AdaptOptions()}
    engines = {
        way: EnsembleEngine.from_model_folders(
            options.model, folds=folds, device=options.device, adapt=adapt, allow_tqdm=False
        )
        for way, adapt in ways.items()
    }
    for shift in options.shifts:
        shifted = shifted_copies(images, SHIFTS[shift], options.work / shift / "images")
        for way, engine in engines.items():
            start = time.process_time()
            outcome = engine.predict_from_files(shifted, None, save_probabilities=True, maps=())
            seconds = (time.process_time() - start) / len(images)
            dice, ece = figures(outcome.predictions, options.labels)
            adapted = sum(bool(row.get("adapted_members")) for row in outcome.rows.values())
            print(
                f"{shift:6} {way:3} Dice {np.mean(dice):.4f} ECE {np.mean(ece):.4f} {seconds:.1f} CPU s per case, "
                f"{adapted} of {len(images)} cases with adapted members",
                flush=True,
            )
            if way == "off":
                before = dice, ece
        for name, first, second in zip(("Dice", "ECE"), before, (dice, ece), strict=True):
            difference = second - first
            print(
                f"{shift:6} on - off, {name}: mean {difference.mean():+.5f}, lowest {difference.min():+.5f}, highest "
                f"{difference.max():+.5f}, higher in {(difference > 0).sum()}, lower in {(difference < 0).sum()}",
                flush=True,
            )


def shifted_copies(images: list[Path], shift: Shift, folder: Path) -> Path:
    """The images with a shift, in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(images):
        image = sitk.ReadImage(str(file))
        values = sitk.GetArrayFromImage(image).astype(np.float32)
        low, high = np.percentile(values, (0.5, 99.5))
        changed = shift((values - low) / (high - low), np.random.default_rng(number)) * (high - low) + low
        result = sitk.GetImageFromArray(changed.astype(np.float32))
        result.CopyInformation(image)
        sitk.WriteImage(result, str(folder / file.name))
    return folder


def figures(predictions: list[CasePrediction], labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean foreground Dice and calibration error in the box around the true foreground, as `evaluate` computes it."""
    dice, ece = [], []
    for prediction in predictions:
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels / f"{prediction.case}.nii.gz")))
        structures = [(truth == label, prediction.segmentation == label) for label in np.unique(truth[truth > 0])]
        dice.append(np.mean([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in structures]))
        mask = np.zeros(truth.shape, bool)
        mask[find_objects((truth > 0).astype(int))[0]] = True
        ece.append(expected_calibration_error(prediction.probabilities, truth, mask=mask))
    return np.array(dice), np.array(ece)


if __name__ == "__main__":
    main()
