"""Parsers of files that other people wrote, each as a function of bytes; and files that are right, to start from.

A target may refuse its input in the words that users get, and do nothing else: another exception is a fault, and so
is an image without a finding that nnU-Net's own reader cannot read. `fuzz.py` runs them with random bytes, and
`test_fuzz_targets.py` with what was found once.
"""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import nibabel
import numpy as np
import SimpleITK as sitk
from mutations import mutate_json, mutate_text_header
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.postprocessing.remove_connected_components import (
    remove_all_but_largest_component_from_segmentation as stock_step,
)

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.model_calibration import Calibration, CalibrationError
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.risk_control import MaskThreshold
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.files.atomic import without_nan
from nnunet_ext.input_checks import check_case
from nnunet_ext.postprocessing.step import PostProcessingError
from nnunet_ext.postprocessing.stock_file import read_stock_steps
from nnunet_ext.samples import MANIFEST, Sample, read_manifest, select_all_modes
from nnunet_ext.serving.file_limits import require_small_file
from nnunet_ext.serving.refusal import Refusal

MOST_VOXELS = 10**6  # that the server accepts


@dataclass(frozen=True)
class Target:
    """A parser, and files that it accepts.

    Attributes:
        run: takes the bytes of a file and a folder to write it to; raises only if there is a fault.
        seeds: makes the contents of files without faults.
        mutate: changes a content in a way that suits its format; None leaves that to the fuzzer.
    """

    run: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes] | None = None


# ---- images -------------------------------------------------------------------------------------------------------


def image(ending: str, reader: type, compress: bool = False) -> Callable[[bytes, Path], object]:
    """A target of the checks of images, and of the reader after them."""

    def run(data: bytes, folder: Path) -> None:
        path = folder / f"a_0000{ending}"
        path.write_bytes(gzip.compress(data, 1, mtime=0) if compress else data)
        with suppress(Refusal):
            require_small_file(path, ending, MOST_VOXELS)
        if not check_case([path], file_ending=ending, channels=1, reader=reader.__name__):
            voxels, _ = reader().read_images([str(path)])
            assert voxels.ndim == 4 and np.isfinite(voxels).all()

    return run


def nifti_seeds() -> list[bytes]:
    """A file with sform and qform, and one with neither."""
    voxels = np.random.default_rng(0).integers(0, 9, (2, 3, 2), dtype=np.int16)
    placed = nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1.0]))
    placed.set_sform(placed.affine, 1)
    placed.set_qform(placed.affine, 1)
    return [placed.to_bytes(), nibabel.Nifti2Image(voxels.astype(np.float32), None).to_bytes()]


def itk_seeds(ending: str) -> Callable[[], list[bytes]]:
    """Small images as SimpleITK writes them, plain and compressed."""

    def make() -> list[bytes]:
        voxels = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 9, (2, 3, 2), dtype=np.int16))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a{ending}"
            contents = []
            for compress in (False, True):
                sitk.WriteImage(voxels, str(path), compress)
                contents.append(path.read_bytes())
        return contents

    return make


# ---- what is written by this package and nnU-Net ------------------------------------------------------------------


def load_calibration(data: bytes, folder: Path) -> None:
    """A calibration, and everything that `predict --calibrated` does with it."""
    path = folder / "calibration.json"
    path.write_bytes(data)
    try:
        calibration = Calibration.load(path)
        calibration.require_settings({})
        calibration.require_members([("fold_0/checkpoint_final", "hash")])
    except CalibrationError:
        return
    assert calibration.sha256
    doubts(calibration)
    calibration.columns({"members": 2, "flags": []} | dict.fromkeys((calibration.confidence,), 0.5))


def calibration_seeds() -> list[bytes]:
    """A calibration of few cases."""
    calibration = Calibration(
        temperature=Temperature((1.5, 1.5), regions=False),
        confidence="pairwise_dice",
        quality=QualityMap((0.1, 0.9), (0.2, 0.8), -0.1, 0.1, 0.9, 40, 20),
        threshold=Threshold(0.8, 0.75, 0.95, 0.2, 20, 40),
        mask=MaskThreshold(0.25, 0.1, 0.08, 40, 1),
        settings={},
        fitted_on={"folds": ["0"], "members": [{"name": "fold_0/checkpoint_final", "sha256": "hash"}]},
        figures={"temperature": {"none": {"nll": 0.2, "ece": 0.1}}, "folds": {"mean_dice": {"0": 0.5}}},
        cases=[{"case": "a", "dice": 0.8}],
    )
    return [json.dumps(without_nan(calibration.as_json())).encode()]


def load_samples(data: bytes, folder: Path) -> None:
    """A manifest of samples, and the choice of members from it."""
    (folder / MANIFEST).write_bytes(data)
    with suppress(ValueError):
        for sample in select_all_modes(read_manifest(folder), 2):
            assert (folder / sample.file).parent == folder


def samples_seeds() -> list[bytes]:
    """A manifest of two samples."""
    samples = [Sample(f"checkpoint_c0_e000{n}.pth", 0, n, n, 0.1, 0.5, "hash").__dict__ for n in range(2)]
    return [json.dumps({"samples": samples}).encode()]


def load_stock_steps(data: bytes, folder: Path) -> None:
    """nnU-Net's `postprocessing.pkl`."""
    path = folder / "postprocessing.pkl"
    path.write_bytes(data)
    with suppress(PostProcessingError):
        read_stock_steps(path)


def stock_steps_seeds() -> list[bytes]:
    """As nnU-Net writes it, with Python's and NumPy's integers."""
    return [
        pickle.dumps(([stock_step], [{"labels_or_regions": label}]), protocol)
        for label in (1, np.int64(2))
        for protocol in (2, 4)
    ]


TARGETS = {
    "nifti": Target(image(".nii", NibabelIO), nifti_seeds),
    "nifti_gz": Target(image(".nii.gz", SimpleITKIO, compress=True), nifti_seeds),
    "nrrd": Target(image(".nrrd", SimpleITKIO), itk_seeds(".nrrd"), mutate_text_header),
    "mha": Target(image(".mha", SimpleITKIO), itk_seeds(".mha"), mutate_text_header),
    "calibration": Target(load_calibration, calibration_seeds, mutate_json),
    "samples": Target(load_samples, samples_seeds, mutate_json),
    "stock_postprocessing": Target(load_stock_steps, stock_steps_seeds),
}
