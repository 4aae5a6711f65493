"""Synthetic short-axis cardiac MR: few thick slices, partly present structures at both ends, shifts, two vendors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from nnunet_ext.phantom.case import Field, PhantomCase, smooth_noise

VendorName = Literal["a", "b"]

CARDIAC_LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


@dataclass(frozen=True)
class Vendor:
    """The appearance of images of one scanner: brightness of each tissue, and image degradation.

    Brightness is relative to blood at vendor a. `noise` is the standard deviation in each of the two channels whose
    magnitude is the image (Rician noise), `bias` is that of the logarithm of the bias field, and `shift_mm` is that
    of the displacement of a slice along y and x.
    """

    lung: float
    fat: float
    muscle: float
    liver: float
    myocardium: float
    blood: float
    noise: float
    bias: float
    blur_mm: float
    shift_mm: float
    gain: float


VENDORS: dict[str, Vendor] = {
    "a": Vendor(
        lung=0.08, fat=0.75, muscle=0.28, liver=0.42, myocardium=0.32, blood=1.0,
        noise=0.05, bias=0.15, blur_mm=0.8, shift_mm=1.0, gain=400.0,
    ),
    "b": Vendor(
        lung=0.16, fat=0.9, muscle=0.42, liver=0.58, myocardium=0.48, blood=0.86,
        noise=0.12, bias=0.35, blur_mm=1.8, shift_mm=2.0, gain=150.0,
    ),
}  # fmt: skip

# Tissues, painted in this order: a later one covers an earlier one.
LUNG, FAT, MUSCLE, LIVER, VESSEL, HEART_WALL, RV, MYO, LV, PAPILLARY = range(10)
# Papillary muscles belong to the blood pool, as in ACDC; atria and the right ventricle's wall have no label.
LABEL_OF_TISSUE = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3], dtype=np.uint8)

THIN_SLICES = 5  # thin slices per thick slice, averaged to simulate the partial-volume effect


@dataclass(frozen=True)
class Heart:
    """The anatomy of one subject, with lengths in mm and angles in radians.

    Depth is measured from the valve plane (0) to the apex (`length`). `tilt` is the slope of the valve plane and
    `drift` the slope of the heart's axis, both along x and y. `wobble` holds amplitude and phase of the waves on the
    contours.
    """

    length: float
    lv_radius: float
    wall: float
    rv_radius: float
    rv_angle: float
    tilt: tuple[float, float]
    drift: tuple[float, float]
    wobble: tuple[tuple[float, float], ...]
    liver_shift: float


def cardiac_case(
    seed: int,
    vendor: VendorName = "a",
    *,
    slices: int | None = None,
    in_plane_shape: tuple[int, int] | None = None,
) -> PhantomCase:
    """Draws one short-axis cardiac case with the labels right ventricle 1, myocardium 2 and left ventricle 3.

    The first slice lies at the base, often above the valve plane, where the atria are as bright as the ventricles but
    have no label; the last slice lies near or below the apex.

    Args:
        seed: the same seed and vendor give the same voxels.
        vendor: "a" has clean images; "b" has another contrast, more noise, a stronger bias field and more blur.
        slices: number of slices; None draws 8 to 10.
        in_plane_shape: (y, x) in voxels; None draws 96 to 112 by 96 to 128.

    Returns:
        The image (z, y, x) float32, the labels (z, y, x) uint8 and the spacing, 8 to 10 mm between slices and 1.4 to
        1.8 mm in plane.

    Raises:
        ValueError: if the vendor is unknown.
    """
    if vendor not in VENDORS:
        raise ValueError(f"The vendor must be one of {', '.join(VENDORS)}; found {vendor!r}.")
    scanner = VENDORS[vendor]
    rng = np.random.default_rng([seed, list(VENDORS).index(vendor)])
    heart = _draw_heart(rng)
    count = slices if slices is not None else int(rng.integers(8, 11))
    shape = in_plane_shape if in_plane_shape is not None else _draw_in_plane_shape(rng)
    in_plane_mm = round(float(rng.uniform(1.4, 1.8)), 2)
    # The stack covers slightly more than the heart, within the limits of 8 to 10 mm between slices.
    slice_mm = round(float(np.clip(1.06 * heart.length / (count - 1), 8.0, 10.0)), 1)
    first_mm = float(rng.uniform(-0.7, 0.4)) * slice_mm

    brightness = _brightness_of_tissue(scanner)
    shifts_mm = rng.normal(0.0, scanner.shift_mm, size=(count, 2))
    image = np.empty((count, *shape))
    labels = np.empty((count, *shape), dtype=np.uint8)
    for k in range(count):
        y_mm, x_mm = _in_plane_grid(shape, in_plane_mm, shifts_mm[k])
        offsets_mm = np.linspace(-0.45, 0.45, THIN_SLICES) * slice_mm
        thin = [_tissues(heart, first_mm + k * slice_mm + offset, y_mm, x_mm) for offset in offsets_mm]
        image[k] = np.mean([brightness[tissue] for tissue in thin], axis=0)
        labels[k] = LABEL_OF_TISSUE[thin[THIN_SLICES // 2]]

    image *= 1.0 + 0.06 * smooth_noise(rng, image.shape, (0.0, 2.0, 2.0))  # texture
    image = gaussian_filter(image, (0.0, scanner.blur_mm / in_plane_mm, scanner.blur_mm / in_plane_mm))
    image *= np.exp(scanner.bias * smooth_noise(rng, image.shape, (2.0, 25.0, 25.0)))
    noisy = np.hypot(image + rng.normal(0.0, scanner.noise, image.shape), rng.normal(0.0, scanner.noise, image.shape))
    gain = scanner.gain * float(rng.uniform(0.7, 1.4))
    return PhantomCase((gain * noisy).astype(np.float32), labels, (slice_mm, in_plane_mm, in_plane_mm))


def _brightness_of_tissue(scanner: Vendor) -> Field:
    """Brightness by tissue code; heart wall and papillary muscles look like myocardium, vessels like blood."""
    background = [scanner.lung, scanner.fat, scanner.muscle, scanner.liver, scanner.blood, scanner.myocardium]
    heart = [scanner.blood, scanner.myocardium, scanner.blood, scanner.myocardium]
    return np.array(background + heart)


def _draw_heart(rng: np.random.Generator) -> Heart:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    return Heart(
        length=float(rng.uniform(68.0, 84.0)),
        lv_radius=float(rng.uniform(19.0, 26.0)),
        wall=float(rng.uniform(8.0, 12.0)),
        rv_radius=float(rng.uniform(25.0, 33.0)),
        rv_angle=float(np.pi + rng.uniform(-0.45, 0.45)),
        tilt=(float(0.12 * np.cos(angle)), float(0.12 * np.sin(angle))),
        drift=(float(rng.uniform(-0.12, 0.12)), float(rng.uniform(0.0, 0.15))),
        wobble=tuple((float(rng.normal(0.0, 0.025)), float(rng.uniform(0.0, 2.0 * np.pi))) for _ in range(4)),
        liver_shift=float(rng.uniform(-15.0, 15.0)),
    )


def _draw_in_plane_shape(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(48, 57)) * 2, int(rng.integers(48, 65)) * 2


def _in_plane_grid(
    shape: tuple[int, int], spacing_mm: float, shift_mm: npt.NDArray[np.float64]
) -> tuple[Field, Field]:
    """Coordinates of the pixels in mm, with 0 at the centre of the image and y pointing down."""
    y, x = ((np.arange(n) - (n - 1) / 2) * spacing_mm - s for n, s in zip(shape, shift_mm, strict=True))
    return np.broadcast_to(y[:, None], shape), np.broadcast_to(x[None, :], shape)


def _tissues(heart: Heart, depth_mm: float, y_mm: Field, x_mm: Field) -> npt.NDArray[np.int64]:
    """Tissue of every pixel of an infinitely thin slice at `depth_mm` below the valve plane."""
    tissue = np.full(y_mm.shape, LUNG)

    def paint(code: int, mask: npt.NDArray[np.bool_]) -> None:
        tissue[mask] = code

    # Chest: muscle and fat around the lungs, liver and stomach below the heart, the aorta beside the spine.
    chest = np.hypot((x_mm - 8.0) / 88.0, (y_mm - 2.0) / 76.0)
    paint(MUSCLE, chest > 1.0)
    paint(FAT, chest > 1.1)
    liver_growth = 0.7 + 0.3 * np.clip(depth_mm / heart.length, 0.0, 1.0)
    paint(LIVER, np.hypot((x_mm + 38.0) / 58.0, (y_mm - 66.0 - 0.4 * heart.liver_shift) / 36.0) < liver_growth)
    paint(MUSCLE, np.hypot((x_mm - 48.0 - heart.liver_shift) / 26.0, (y_mm - 64.0) / 20.0) < liver_growth)
    paint(VESSEL, np.hypot(x_mm - 58.0, y_mm - 28.0) < 10.0)

    # Heart coordinates. The valve plane is tilted, so the depth differs over the slice.
    y = y_mm - heart.drift[1] * depth_mm
    x = x_mm - heart.drift[0] * depth_mm - 10.0
    t = (depth_mm + heart.tilt[0] * x + heart.tilt[1] * y) / heart.length
    angle = np.arctan2(y, x)
    wobble = 1.0 + sum(a * np.cos((k + 2) * angle + phase) for k, (a, phase) in enumerate(heart.wobble))
    radius = np.hypot(y, x) / wobble

    atrium = t < 0.0
    endo = heart.lv_radius * _taper(t, apex=0.88)
    ventricle_epi = (heart.lv_radius + heart.wall) * _taper(t, apex=1.0)
    epi = np.where(atrium, heart.lv_radius + 2.5, ventricle_epi)
    # The right ventricle is an ellipse beside the left one, which covers part of it and leaves a crescent.
    along = x * np.cos(heart.rv_angle) + y * np.sin(heart.rv_angle) - 0.86 * ventricle_epi
    across = y * np.cos(heart.rv_angle) - x * np.sin(heart.rv_angle)
    rv_distance = np.hypot(along / 0.8, across / 1.05) / wobble
    rv_edge = heart.rv_radius * _taper(t, apex=0.8)

    paint(FAT, ((radius < epi + 4.0) & (epi > 0.0)) | ((rv_distance < rv_edge + 7.0) & (rv_edge > 0.0)))
    paint(HEART_WALL, (rv_distance < rv_edge + 3.0) & (rv_edge > 0.0))
    paint(RV, rv_distance < rv_edge)
    paint(MYO, radius < epi)
    paint(LV, radius < endo)
    for direction in (0.9, 2.4):
        muscle_y, muscle_x = 0.55 * endo * np.sin(direction), 0.55 * endo * np.cos(direction)
        paint(PAPILLARY, (np.hypot(y - muscle_y, x - muscle_x) < 0.16 * endo) & (t > 0.25) & (t < 0.7))
    paint(HEART_WALL, atrium & (tissue == MYO))
    paint(VESSEL, atrium & ((tissue == RV) | (tissue == LV)))
    return tissue


def _taper(t: Field, apex: float) -> Field:
    """An elliptic taper: 1 at the base and above, 0 at the apex and below."""
    return np.sqrt(np.clip(1.0 - np.clip(t / apex, 0.0, None) ** 2, 0.0, None))
