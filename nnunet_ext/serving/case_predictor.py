"""What the worker runs: the checks of an upload, then the ensemble, then a zip file of what it wrote."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import without_nan
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.input_checks.pictures import STACK_READER
from nnunet_ext.models.model import Model, channel_names, require_previous_stage
from nnunet_ext.options import OutputOptions
from nnunet_ext.serving.file_limits import Announced, require_small_file
from nnunet_ext.serving.refusal import Refusal
from nnunet_ext.serving.worker import CASE

ROW = "row.json"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same result is the same bytes


class EnginePredictor:
    """Predicts uploads with a loaded ensemble.

    Args:
        engine: the ensemble.
        output: which maps are sent.
        voxels: most numbers in one image, as announced and resampled.

    Raises:
        ValueError: if the model is the second stage of a cascade, or takes stacks of TIFF pages, whose spacing is in
            another file.
    """

    def __init__(self, engine: EnsembleEngine, output: OutputOptions, voxels: int) -> None:
        require_previous_stage(None, engine.models)
        first = engine.models[0]
        if first.plans.plans["image_reader_writer"] == STACK_READER:
            raise ValueError(
                "The server takes images that say their spacing; found a model of TIFF stacks, whose spacing is in "
                "another file. Use nnunet_ext predict."
            )
        self.engine = engine
        self.output = output
        self.voxels = voxels
        self.ending: str = first.dataset_json["file_ending"]
        self.description: dict[str, Any] = {
            "file_ending": self.ending,
            "channels": channel_names(first),
            "labels": first.dataset_json["labels"],
            "models": [model.folder.name for model in engine.models],
            "device": str(engine.device),
            "members": engine.passes_per_case,
            "maps": list(output.maps),
            "verdict": engine.calibration is not None,
        }

    def __call__(self, images: Path, results: Path) -> None:
        """Predicts the case in the folder `images` and writes `results`, a zip file.

        Raises:
            Refusal: if the images are refused, or cannot be predicted.
        """
        files = sorted(images.iterdir())
        self.require_small(files)
        folder = results.with_suffix("")
        outcome = self.engine.predict_from_files([[str(file) for file in files]], folder, self.output, arguments={})
        for message in outcome.failed.values():
            raise Refusal(422, without_paths(message, images))
        write_archive(folder, outcome.rows[CASE], results)
        shutil.rmtree(folder)

    def require_small(self, files: Sequence[Path]) -> None:
        """Refuses files beyond the limit, before their voxels are read.

        Raises:
            Refusal: see `require_small_file`; also if a resampled image would be beyond the limit.
        """
        for file in files:
            announced = require_small_file(file, self.ending.lower(), self.voxels)
            for model in self.engine.models:
                resampled = resampled_voxels(announced, model)
                if resampled > self.voxels:
                    raise Refusal(
                        413,
                        f"An image may have {self.voxels} voxels (--max-voxels) at the network's spacing; "
                        f"{file.name} would have {resampled:.3g}. Check its spacing, or crop it.",
                    )


def resampled_voxels(announced: Announced, model: Model) -> float:
    """How many voxels an image has at the spacing of a model's configuration, before nnU-Net crops it."""
    if not announced.spacing_mm:
        return 0
    shape, spacing_mm = announced.shape[2::-1], announced.spacing_mm[2::-1]  # (z, y, x), or (y, x)
    order = model.plans.transpose_forward if len(shape) == 3 else range(len(shape))
    target = list(model.configuration.spacing)
    voxels = 1.0
    for axis in reversed(order):  # the last axes are those of the network; a 2D one keeps its slices as they are
        step = float(target.pop()) if target else spacing_mm[axis]
        voxels *= shape[axis] * abs(spacing_mm[axis]) / step
    return voxels


def without_paths(message: str, folder: Path) -> str:
    """A message without the folder of the request, which is nobody's business."""
    return message.replace(f"{folder}{os.sep}", "")


def write_archive(folder: Path, row: dict[str, object], archive: Path) -> None:
    """Writes what is about the case in a prediction folder into a zip file, and its row as JSON."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.startswith(f"{CASE}.")]
    with zipfile.ZipFile(archive, "w") as zipped:  # not compressed once more
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_TIME)
            with path.open("rb") as source, zipped.open(entry, "w") as target:
                shutil.copyfileobj(source, target)
        text = json.dumps(without_nan(row), indent=2) + "\n"
        zipped.writestr(zipfile.ZipInfo(ROW, _ZIP_TIME), text)
