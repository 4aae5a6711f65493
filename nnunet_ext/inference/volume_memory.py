"""A mixture of classifiers over a whole volume: its memory is that of all slices, not of a tile's (arXiv 2502.09269).

Run tile by tile, a `StreamingNetwork` would weigh its classifiers by the slices of the tile, and in a 2D
configuration by a single slice. Here each classifier goes over the volume on its own, as any network does, and the
mixing comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nnunet_ext.architectures.mirroring import Flip
from nnunet_ext.architectures.streaming import StreamingNetwork
from nnunet_ext.inference.sliding_window import TiledImage, sliding_window_logits


def network_logits(
    network: nn.Module, tiled: TiledImage, flips: Sequence[Flip], *, device: torch.device, **options: Any
) -> torch.Tensor:
    """Logits of any network over an image, (C, *spatial) in fp32; arguments as `sliding_window_logits`."""
    if isinstance(network, StreamingNetwork):
        return mixture_logits(network, tiled, flips, device=device, **options)
    return sliding_window_logits(network, tiled, flips, device=device, **options)


@torch.inference_mode()
def mixture_logits(
    network: StreamingNetwork, tiled: TiledImage, flips: Sequence[Flip], *, device: torch.device, **options: Any
) -> torch.Tensor:
    """What a mixture returns for a volume, (C, D, *in_plane): its classifiers' probabilities with its own memory.

    The classifiers' logits are averaged over flips and blended over tiles before they become probabilities, as the
    logits of one network are. The padding of the tiles is cut off before; every slice that is left counts.
    """
    logits = torch.stack(
        [
            sliding_window_logits(classifier, tiled, flips, device=device, **options)
            for classifier in network.classifiers
        ]
    )  # (K, C, D, *in_plane)
    return network.combine_logits(logits[:, None], valid_slices=None)[0]  # (1, C, D, *in_plane) to (C, D, *in_plane)
