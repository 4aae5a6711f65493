"""The members' own segmentations, which a GPU delivers while it computes the next members."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from nnunet_ext.inference.accumulation.agreement import CroppedLabels, crop_to_foreground

MOST_ON_THE_WAY = 2  # segmentations; the one before the last is there as soon as the GPU works on the last


class MemberLabels:
    """Keeps each member's segmentation, cropped to its foreground, in main memory.

    Nothing waits for a GPU before it is `MOST_ON_THE_WAY` members ahead, so that it always has work.

    Args:
        embed: puts a segmentation (*box) into the whole image, if whole segmentations are kept as well; None keeps
            only the cropped ones.
    """

    def __init__(self, embed: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._embed = embed
        self._on_the_way: deque[tuple[str, Copy]] = deque()
        self._cropped: list[CroppedLabels] = []
        self._whole: dict[str, np.ndarray] = {}
        self._first: np.ndarray | None = None

    def add(self, name: str, segmentation: torch.Tensor) -> None:
        """Takes the segmentation (*box) of the next member, which must not change afterwards."""
        self._on_the_way.append((name, Copy(segmentation)))
        self._receive(leave=0 if segmentation.device.type == "cpu" else MOST_ON_THE_WAY)

    def keep_whole(self, name: str, segmentation: torch.Tensor) -> None:
        """Keeps a segmentation (*box) that is not a member's, such as a classifier's, in the whole image."""
        if self._embed is not None:
            self._whole[name] = self._embed(as_array(segmentation))

    @property
    def cropped(self) -> list[CroppedLabels]:
        """The members' segmentations in their order."""
        self._receive()
        return self._cropped

    @property
    def whole(self) -> dict[str, np.ndarray]:
        """Name to segmentation (*image); empty unless they are kept."""
        self._receive()
        return self._whole

    @property
    def only(self) -> np.ndarray | None:
        """(*box), the segmentation of the only member; None if there are several."""
        self._receive()
        return self._first if len(self._cropped) == 1 else None

    def _receive(self, leave: int = 0) -> None:
        """Waits for all segmentations but the latest."""
        while len(self._on_the_way) > leave:
            name, copy = self._on_the_way.popleft()
            labels = as_array(copy.arrived())
            self._first = labels if not self._cropped else None
            self._cropped.append(crop_to_foreground(labels))
            if self._embed is not None:
                self._whole[name] = self._embed(labels)


class Copy:
    """A copy of a tensor to main memory, under way.

    Args:
        values: the tensor, on any device; one that is in main memory already is not copied.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values
        self._done: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            # Into memory that the system may not move: the only kind that a GPU writes to without being waited for.
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(values.device))

    def arrived(self) -> torch.Tensor:
        """The copy, once it is complete."""
        if self._done is not None:
            self._done.synchronize()
        return self._values


def as_array(segmentation: torch.Tensor) -> np.ndarray:
    """A label map in the types that are written to files: uint8 or uint16."""
    values = segmentation.cpu().numpy()
    return values if values.dtype == np.uint8 else values.astype(np.uint16)
