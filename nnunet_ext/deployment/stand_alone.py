"""Segments a NIfTI image with an exported nnU-Net model, without nnU-Net.

    python predict.py SCAN_0000.nii.gz [SCAN_0001.nii.gz ...] -o SEGMENTATION.nii.gz [--no-flips]

One file per channel, in the order of "channels" in model.json. It needs numpy, scipy, scikit-image, SimpleITK and
the library that runs the networks: onnxruntime, openvino or torch. Networks and model.json lie beside it. The steps
are nnU-Net's: transpose, crop, normalise, resample, sliding window, resample back, decide. Several networks are
averaged after the softmax. It is an example to start from: it runs on the CPU, one patch at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.transform import resize

Network = Callable[[np.ndarray], np.ndarray]  # patches (B, channels, *patch) to logits (B, C, *patch), both float32
MUCH_COARSER = 3  # an axis whose spacing is more than this many times the finest is resampled on its own


def main() -> None:
    """Predicts the image that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", help="one NIfTI file per channel")
    parser.add_argument("-o", required=True, metavar="FILE", help="the segmentation")
    parser.add_argument("--no-flips", action="store_true", help="do not average over flipped patches: faster")
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parent
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if arguments.no_flips:
        model["flip_axes"] = []
    networks = [open_network(folder / network["file"]) for network in model["networks"]]
    predict_file(arguments.images, arguments.o, model, networks)


def predict_file(images: Sequence[str], output: str, model: dict[str, Any], networks: Sequence[Network]) -> None:
    """Reads the channels of an image, and writes its segmentation in the same geometry."""
    channels = [sitk.ReadImage(file) for file in images]
    image = np.stack([sitk.GetArrayFromImage(channel) for channel in channels]).astype(np.float32)
    spacing = [abs(size) for size in reversed(channels[0].GetSpacing())]
    if image.ndim == 3:  # a single slice, which nnU-Net gives a thickness that is never resampled
        image, spacing = image[:, None], [999 * max(spacing), *spacing]
    labels = segment(image, spacing, model, networks)
    written = sitk.GetImageFromArray(labels if channels[0].GetDimension() == 3 else labels[0])
    written.CopyInformation(channels[0])
    sitk.WriteImage(written, output, True)


# --- networks ---


def open_network(file: Path) -> Network:
    """The network of an .onnx, .xml (OpenVINO) or .pt (TorchScript) file, as a function."""
    return {".onnx": open_onnx, ".xml": open_openvino, ".pt": open_torchscript}[file.suffix](file)


def open_onnx(file: Path) -> Network:
    """A network in ONNX Runtime. On a GPU: providers=["CUDAExecutionProvider"]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    half = session.get_inputs()[0].type == "tensor(float16)"

    def run(patches: np.ndarray) -> np.ndarray:
        values: np.ndarray = session.run(["logits"], {"image": patches.astype(np.float16 if half else np.float32)})[0]
        return values.astype(np.float32)

    return run


def open_openvino(file: Path) -> Network:
    """A network in OpenVINO, whose reports to its vendor are off: that package is never imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda patches: compiled(np.ascontiguousarray(patches, np.float32))[0]


def open_torchscript(file: Path) -> Network:
    """A network in torch."""
    import torch

    network = torch.jit.load(str(file), map_location="cpu").eval()
    number_type = next((tensor.dtype for tensor in network.parameters()), torch.float32)

    @torch.inference_mode()
    def run(patches: np.ndarray) -> np.ndarray:
        values: np.ndarray = network(torch.from_numpy(np.ascontiguousarray(patches)).to(number_type)).float().numpy()
        return values

    return run


# --- nnU-Net's steps ---


def segment(
    image: np.ndarray, spacing: Sequence[float], model: dict[str, Any], networks: Sequence[Network]
) -> np.ndarray:
    """The label map (z, y, x) of an image (channels, z, y, x) with a spacing in mm along (z, y, x)."""
    axes, shape = model["transpose_forward"], image.shape[1:]
    image = image.transpose(0, *(axis + 1 for axis in axes))
    fine = [spacing[axis] for axis in axes]
    target = list(model["spacing_mm"])
    target = [fine[0], *target] if len(target) == 2 else target  # 2D: the spacing between slices stays

    inside = binary_fill_holes((image != 0).any(0))
    box = bounding_box(inside)
    cropped = image[all_channels(box)]
    channels = zip(cropped, model["normalisation"], strict=True)
    normalised = np.stack([normalise(channel, inside[box], how) for channel, how in channels])
    wanted = [round(mm / new * size) for mm, new, size in zip(fine, target, normalised.shape[1:], strict=True)]
    prepared = resample(normalised, wanted, fine, target, model["resampling"]["image"])

    mean = sum(
        probabilities(
            resample(
                sliding_window(network, prepared, model),
                cropped.shape[1:],
                target,
                fine,
                model["resampling"]["logits"],
            ),
            model["nonlinearity"],
        )
        for network in networks
    )
    labels = np.zeros([shape[axis] for axis in axes], dtype=np.uint8 if model["largest_label"] < 255 else np.uint16)
    labels[box] = decide(np.asarray(mean) / len(networks), model["regions_class_order"])
    return labels.transpose(model["transpose_backward"])


def all_channels(where: Sequence[Any]) -> tuple[Any, ...]:
    """A part of the spatial axes as an index of (C, *spatial)."""
    return (slice(None), *where)


def bounding_box(inside: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around all True voxels; everything if there are none."""
    if not inside.any():
        return tuple(slice(0, size) for size in inside.shape)
    return tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(inside))


def normalise(channel: np.ndarray, inside: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    """One channel as nnU-Net normalises it; `inside` are the voxels within the nonzero region."""
    scheme, channel = how["scheme"], channel.astype(np.float32)
    if scheme == "CTNormalization":
        clipped = np.clip(channel, how["percentile_00_5"], how["percentile_99_5"])
        return (clipped - np.float32(how["mean"])) / np.float32(max(how["std"], 1e-8))
    if scheme == "ZScoreNormalization":
        where = inside if how["use_mask_for_norm"] else np.ones_like(inside)
        mean, deviation = channel[where].mean(), channel[where].std()
        channel[where] = (channel[where] - mean) / max(deviation, 1e-8)
        return channel
    if scheme == "RescaleTo01Normalization":
        channel = channel - channel.min()
        return channel / max(channel.max(), 1e-8)
    return channel / np.float32(255) if scheme == "RGBTo01Normalization" else channel


def resample(
    volume: np.ndarray, shape: Sequence[int], old: Sequence[float], new: Sequence[float], how: dict[str, Any]
) -> np.ndarray:
    """(C, D, H, W) to (C, *shape); slice by slice and nearest across slices if one axis is much coarser."""
    if tuple(volume.shape[1:]) == tuple(shape):
        return volume
    axis = coarse_axis(old, new, how["force_separate_z"])
    if axis is None:
        return np.stack([resized(channel, shape, how["order"]) for channel in volume]).astype(np.float32)
    in_plane = [size for number, size in enumerate(shape) if number != axis]
    slices = np.moveaxis(volume, axis + 1, 1)
    planes = np.stack([[resized(plane, in_plane, how["order"]) for plane in channel] for channel in slices])
    count = planes.shape[1]
    nearest = np.minimum(np.floor((np.arange(shape[axis]) + 0.5) * (count / shape[axis])).astype(int), count - 1)
    return np.moveaxis(planes[:, nearest], 1, axis + 1).astype(np.float32)


def coarse_axis(old: Sequence[float], new: Sequence[float], force: bool | None) -> int | None:
    """The axis that is resampled on its own, because it is much coarser before or after; None if there is none."""
    candidates = [old, new] if force is None else [old] * force
    for spacing in candidates:
        if force or max(spacing) / min(spacing) > MUCH_COARSER:
            coarsest = np.flatnonzero(np.asarray(spacing) == max(spacing))
            return int(coarsest[0]) if len(coarsest) == 1 else None
    return None


def resized(values: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Spline interpolation of a slice or a volume."""
    found: np.ndarray = resize(values.astype(float), shape, order, mode="edge", anti_aliasing=False)
    return found


def sliding_window(network: Network, image: np.ndarray, model: dict[str, Any]) -> np.ndarray:
    """Logits (C, D, H, W) of an image (channels, D, H, W), blended over overlapping patches and their flips."""
    patch = model["patch_size"]
    lacking = [max(0, size - have) for size, have in zip(patch, image.shape[-len(patch) :], strict=True)]
    lacking = [0] * (4 - len(patch)) + lacking  # channels and, in 2D, slices are not padded
    padded = np.pad(image, [(size // 2, size - size // 2) for size in lacking])
    window, logits, weight = gaussian(patch), None, np.zeros(padded.shape[1:], np.float32)
    for tile in tiles(padded.shape[1:], patch, model["step_size"]):
        found = flip_average(network, padded[all_channels(tile)], model["flip_axes"])
        if logits is None:
            logits = np.zeros((len(found), *padded.shape[1:]), np.float32)
        logits[all_channels(tile)] += found * window
        weight[tile] += window
    unpad = [slice(low, low + size) for low, size in zip([s // 2 for s in lacking[1:]], image.shape[1:], strict=True)]
    blended: np.ndarray = (np.asarray(logits) / weight)[all_channels(unpad)]
    return blended


def flip_average(network: Network, patch: np.ndarray, flip_axes: Sequence[int]) -> np.ndarray:
    """Logits (C, *patch) of a patch (channels, *patch), averaged over all combinations of flips."""
    chosen = [axes for count in range(len(flip_axes) + 1) for axes in itertools.combinations(flip_axes, count)]
    total = np.zeros(1, np.float32)
    for axes in chosen:
        flipped = tuple(axis + 1 for axis in axes)
        total = total + np.flip(network(np.flip(patch, flipped)[None])[0], flipped)
    return total / len(chosen)


def gaussian(patch: Sequence[int]) -> np.ndarray:
    """The weight of each voxel of a patch: large in its middle, and never zero."""
    peak = np.zeros(patch)
    peak[tuple(size // 2 for size in patch)] = 1
    window = gaussian_filter(peak, [size / 8 for size in patch], mode="constant")
    window *= 10 / window.max()
    window[window == 0] = window[window > 0].min()
    return window.astype(np.float32)


def tiles(shape: Sequence[int], patch: Sequence[int], step: float) -> Iterator[tuple[Any, ...]]:
    """Where the patches lie; a 2D patch runs over every slice."""
    starts = []
    for size, length in zip(shape[-len(patch) :], patch, strict=True):
        count = int(np.ceil((size - length) / (length * step))) + 1
        starts.append([round((size - length) / max(1, count - 1) * number) for number in range(count)])
    for index in itertools.product(*(range(size) for size in shape[: -len(patch)])):
        for corner in itertools.product(*starts):
            yield (*index, *(slice(start, start + length) for start, length in zip(corner, patch, strict=True)))


def probabilities(logits: np.ndarray, nonlinearity: str) -> np.ndarray:
    """Softmax over classes, or a sigmoid for each of several overlapping regions."""
    if nonlinearity == "sigmoid":
        return (1 + np.tanh(logits / 2)) / 2
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def decide(mean: np.ndarray, regions_class_order: Sequence[int] | None) -> np.ndarray:
    """The most likely class, or the labels of the regions painted one over the other."""
    if regions_class_order is None:
        return mean.argmax(0)
    labels = np.zeros(mean.shape[1:], dtype=int)
    for region, label in zip(mean, regions_class_order, strict=True):
        labels[region > 0.5] = label
    return labels


if __name__ == "__main__":
    main()
