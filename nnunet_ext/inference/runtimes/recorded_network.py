"""A network whose launches are recorded once and then replayed (CUDA graphs), where compilation is unwanted."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from nnunet_ext.error_text import first_line

Run = Callable[[torch.Tensor], torch.Tensor]
Record = Callable[[nn.Module, torch.Tensor], Run]
MOST_SHAPES = 4  # each recording keeps memory; other numbers of patches are rare
WARM_UP_RUNS = 3  # in which cuDNN chooses its kernels and allocates what they need

logger = logging.getLogger(__name__)


class RecordedNetwork:
    """Runs a network on patches (B, channels, *patch) as it would run itself, by recordings of its launches.

    Small networks are bound by the launches of their kernels, which a recording sends to the GPU at once. A recording
    holds for one shape and layout of the patches. The network's weights may change between runs, in place.

    Args:
        network: runs without gradients, and must not decide by the values of its input.
        record: returns what replays the network on patches like the given ones; None records a CUDA graph.
    """

    def __init__(self, network: nn.Module, record: Record | None = None) -> None:
        self._network = network
        self._record = cuda_graph if record is None else record
        self._replays: dict[tuple[torch.Size, tuple[int, ...]], Run] = {}

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, channels, *patch) to logits (B, C, *patch)."""
        key = (patches.shape, patches.stride())
        if key not in self._replays and len(self._replays) < MOST_SHAPES:
            self._replays[key] = self._recorded(patches)
        return self._replays.get(key, self._network)(patches)

    def _recorded(self, patches: torch.Tensor) -> Run:
        """What replays the network; the network itself where it cannot be recorded."""
        self._network(patches)  # first, so that patches that do not fit into memory fail outside of a recording
        try:
            return self._record(self._network, patches)
        except RuntimeError as error:
            logger.info("%d patches run without a recording: %s", len(patches), first_line(error))
            return self._network


def cuda_graph(network: nn.Module, patches: torch.Tensor) -> Run:
    """Records a network as a CUDA graph.

    Args:
        network: on the device of the patches.
        patches: (B, channels, *patch), of the shape and layout that are to be replayed.

    Returns:
        Replays the graph on other patches of this shape; its output is a copy, which no later run overwrites.

    Raises:
        RuntimeError: if the network cannot be recorded, for example because it waits for the GPU.
    """
    with torch.inference_mode():
        read = patches.clone()
        stream = torch.cuda.Stream(patches.device)
        stream.wait_stream(torch.cuda.current_stream(patches.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                network(read)
        torch.cuda.current_stream(patches.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # By default any call of CUDA in another thread, such as a copy of the next case, would end the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            written = network(read)

    def replay(patches: torch.Tensor) -> torch.Tensor:
        read.copy_(patches)
        graph.replay()
        return written.clone()

    return replay
