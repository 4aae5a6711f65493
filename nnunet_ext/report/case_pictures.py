"""Draws the chosen slices of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_ext.report.case_volumes import CaseVolumes
from nnunet_ext.report.overlays import data_uri, grey, picture_size, with_segmentation, with_uncertainty
from nnunet_ext.report.slices import picture_box

NOTICED = 0.2  # uncertainty that the crop should not cut off


@dataclass(frozen=True)
class SlicePicture:
    """One slice.

    Attributes:
        number: from 1.
        title: such as "slice 3 of 12".
        reason: why it is shown.
        segmentation: picture as a data URI.
        uncertainty: likewise; empty without a map.
        width: of both, in pixels.
        height: likewise.
    """

    number: int
    title: str
    reason: str
    segmentation: str
    uncertainty: str
    width: int
    height: int

    @property
    def size(self) -> int:
        """Bytes of both pictures in the page."""
        return len(self.segmentation) + len(self.uncertainty)


def draw_slices(volumes: CaseVolumes, chosen: Mapping[int, list[str]], quality: int) -> list[SlicePicture]:
    """Draws slices, cut to the foreground.

    Args:
        volumes: of the case.
        chosen: index of a slice to the reasons why it is shown, as `shown_slices` returns them.
        quality: of WebP, up to 100.
    """
    indices = list(chosen)
    marked = [volumes.segmentation[indices] > 0]
    marked += [] if volumes.truth is None else [volumes.truth[indices] > 0]
    if not any(mask.any() for mask in marked) and volumes.uncertainty is not None:
        marked = [volumes.uncertainty[indices] > NOTICED]
    crop = picture_box(marked, volumes.segmentation.shape[1:], volumes.spacing_mm)
    image = volumes.channels[0] if volumes.channels else np.zeros(volumes.segmentation.shape, dtype=np.float32)
    window = tuple(np.percentile(image[indices][:, crop[0], crop[1]], (0.5, 99.5)))
    pictures = []
    for index, reasons in chosen.items():
        part = (index, *crop)
        size = picture_size(volumes.segmentation[part].shape, volumes.spacing_mm)
        background = grey(image[part], window, size)
        truth = None if volumes.truth is None else volumes.truth[part]
        pictures.append(
            SlicePicture(
                number=index + 1,
                title=f"slice {index + 1} of {len(volumes.segmentation)}",
                reason=", ".join(reasons),
                segmentation=data_uri(with_segmentation(background, volumes.segmentation[part], truth), quality),
                uncertainty=(
                    data_uri(with_uncertainty(background, volumes.uncertainty[part]), quality)
                    if volumes.uncertainty is not None
                    else ""
                ),
                width=size[1],
                height=size[0],
            )
        )
    return pictures
