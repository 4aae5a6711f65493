"""Measures what early exit, fast resampling and precision save and change in predictions of a trained model.

    python benchmarks/options.py -i IMAGES --labels LABELS -m MODEL [-m MODEL ...] [-f FOLD ...] [--members RULE]
        [--tta-members] [--precisions bf16] [--only "fast resampling"] [--spacing MM] [-device cpu] [-o options.json]

Every case is predicted with each option in turn. The table has the time of prediction without reading and writing and
the number of patches that the networks ran on, both relative to no option, and the means over cases of foreground
Dice, calibration error and foreground entropy. Regions are not supported. With --spacing, images and labels are first
resampled in plane, so that predictions must be resampled as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation import expected_calibration_error
from nnunet_ext.evaluation.overlap import mean_dice
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.cases import find_cases


@dataclass
class Outcome:
    """The results with one option: one value per case, and the number of patches over all cases."""

    seconds: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    calibration_error: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    same_labels: list[float] = field(default_factory=list)
    patches: int = 0


def main() -> None:
    """Runs the measurements, prints a table and writes it as JSON."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        if options.spacing is not None:
            images, labels = Path(folder) / "images", Path(folder) / "labels"
            resample_in_plane(options.i, images, options.spacing, sitk.sitkLinear)
            resample_in_plane(options.labels, labels, options.spacing, sitk.sitkNearestNeighbor)
            options.i, options.labels = images, labels
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Predicts every case with every option, prints the table and writes it as JSON."""
    keep_freed_memory()
    settings = {
        "folds": options.f,
        "members": options.members,
        "device": options.device,
        "tta_members": options.tta_members,
        "allow_tqdm": False,
    }
    ways: dict[str, dict[str, Any]] = {
        "none": {},
        "early exit, label": {"early_exit": "label"},
        "early exit, information": {"early_exit": "information"},
        "fast resampling": {"fast_resampling": True},
        **{precision: {"precision": precision} for precision in options.precisions},
    }
    ways = {name: way for name, way in ways.items() if options.only is None or name in ("none", *options.only)}
    outcomes = {name: Outcome() for name in ways}
    engines = {name: opened(options.m, outcomes[name], **settings, **way) for name, way in ways.items()}
    model = engines["none"].models[0]
    reader = model.plans.image_reader_writer_class()
    ending = model.dataset_json["file_ending"]
    labels = model.labels.foreground_labels
    for case in find_cases(options.i, ending):
        truth = reader.read_seg(str(options.labels / f"{case.name}{ending}"))[0][0]
        box = bounding_box(truth > 0) or tuple(slice(0, size) for size in truth.shape)
        prepared = engines["none"].prepare(case)
        reference: np.ndarray | None = None
        for name, engine in engines.items():
            start = time.perf_counter()
            prediction = engine.predict_case(case.name, prepared, OutputOptions(save_probabilities=True))
            outcome = outcomes[name]
            outcome.seconds.append(time.perf_counter() - start)
            reference = prediction.segmentation if reference is None else reference
            outcome.same_labels.append(float((prediction.segmentation == reference).mean()))
            outcome.dice.append(mean_dice(prediction.segmentation, truth, labels))
            outcome.entropy.append(prediction.row["foreground_entropy"])
            cropped, inside = prediction.probabilities[(slice(None), *box)], truth[box]
            outcome.calibration_error.append(expected_calibration_error(cropped, inside))
    print_table(outcomes)
    options.o.write_text(json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()}, indent=2))


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", type=Path, required=True, help="folder of images")
    parser.add_argument("--labels", type=Path, required=True, help="folder of their label maps")
    parser.add_argument("-m", type=Path, action="append", required=True, help="model folder")
    parser.add_argument("-f", type=int, nargs="+", help="folds")
    parser.add_argument("--members", default="final")
    parser.add_argument("--tta-members", action="store_true")
    parser.add_argument("--precisions", nargs="*", default=[])
    parser.add_argument("--only", nargs="+", help="names of the options to measure, as in the table")
    parser.add_argument("--spacing", type=float, metavar="MM", help="resample images in plane to this spacing first")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", type=Path, default=Path("options.json"))
    return parser.parse_args()


def resample_in_plane(source: Path, target: Path, spacing_mm: float, interpolator: int) -> None:
    """Writes the images of a folder resampled to another spacing along x and y."""
    target.mkdir()
    for file in sorted(source.glob("*.nii.gz")):
        image = sitk.ReadImage(str(file))
        old = image.GetSpacing()
        spacing = (spacing_mm, spacing_mm, *old[2:])
        size = [
            round(count * before / after) for count, before, after in zip(image.GetSize(), old, spacing, strict=True)
        ]
        resampled = sitk.Resample(
            image, size, sitk.Transform(), interpolator, image.GetOrigin(), spacing, image.GetDirection()
        )
        sitk.WriteImage(resampled, str(target / file.name))


def opened(folders: Sequence[Path], outcome: Outcome, **settings: Any) -> EnsembleEngine:
    """An engine whose networks count the patches that they run on."""
    engine = EnsembleEngine.from_model_folders(folders, **settings)

    def count(module: object, arguments: tuple[Any, ...]) -> None:
        outcome.patches += len(arguments[0])

    for model in engine.models:
        model.network.register_forward_pre_hook(count)
    return engine


def print_table(outcomes: dict[str, Outcome]) -> None:
    """Prints one row per option, with time and patches relative to no option."""
    base = outcomes["none"]
    print(f"{'option':26}{'time':>8}{'patches':>9}{'same labels':>13}{'Dice':>9}{'ECE':>9}{'entropy':>9}")
    for name, outcome in outcomes.items():
        print(
            f"{name:26}{sum(outcome.seconds) / sum(base.seconds):8.3f}{outcome.patches / base.patches:9.3f}"
            f"{np.mean(outcome.same_labels):13.4%}{np.nanmean(outcome.dice):9.4f}"
            f"{np.nanmean(outcome.calibration_error):9.4f}{np.nanmean(outcome.entropy):9.4f}"
        )


if __name__ == "__main__":
    main()
