"""Several classifiers mixed by the memory of a whole stack of slices (Streaming, arXiv 2502.09269, Eqs. 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.architectures.posterior import to_logits

SMALLEST_PROBABILITY = 1e-6
Mixture = Literal["log", "paper"]
WeightRule = Callable[..., Tensor]  # (probabilities, valid_slices=..., regions=...) to weights that sum to 1 over K


def memory_weights(
    probabilities: Tensor, *, kappa: float = 1.0, valid_slices: Tensor | None = None, regions: bool = False
) -> Tensor:
    """Weights of K classifiers from what each remembers of the stack: W_i = softmax_i(kappa U_i) (Eq. 3).

    The memory M_i is the mean of a classifier's probabilities over the slices, U_i its unbiased variance over the
    classes. A large U_i means a decided classifier, so it gets the larger weight. All slices share the weights, and
    the gradient flows through them.

    Args:
        probabilities: (K, B, C, D, *in_plane), D slices.
        kappa: 1 is the paper's. U_i lies between 0 and 1/C, so with kappa = 1 two classifiers of four classes weigh
            between 0.438 and 0.562.
        valid_slices: (B, D), True where a slice is part of the image. Padding does not enter the memory; a stack
            without any valid slice uses all. None: all are valid.
        regions: the C outputs are independent regions: U_i is the variance of (p, 1 - p), mean over regions.

    Returns:
        (K, B, 1, 1, *in_plane) in fp32, sums to 1 over K.
    """
    memory = mean_over_slices(probabilities.float(), valid_slices)  # (K, B, C, 1, *in_plane)
    if regions:
        # the unbiased variance of the two numbers p and 1 - p is (p - (1 - p))^2 / 2
        decidedness = ((2 * memory - 1).square() / 2).mean(dim=2, keepdim=True)
    else:
        decidedness = memory.var(dim=2, keepdim=True)
    return torch.softmax(kappa * decidedness, dim=0)


def mean_over_slices(probabilities: Tensor, valid_slices: Tensor | None) -> Tensor:
    """(K, B, C, D, *in_plane) to (K, B, C, 1, *in_plane): the mean over the valid slices, over all if none is."""
    if valid_slices is None:
        return probabilities.mean(dim=3, keepdim=True)
    none_valid = ~valid_slices.any(dim=1, keepdim=True)  # (B, 1)
    share = (valid_slices | none_valid).to(probabilities.dtype)
    share = share / share.sum(dim=1, keepdim=True)
    in_plane = (1,) * (probabilities.ndim - 4)
    share = share.reshape(1, len(share), 1, -1, *in_plane)  # (B, D) to (1, B, 1, D, ...)
    return (probabilities * share).sum(dim=3, keepdim=True)


class MemoryWeights:
    """The rule of `Streaming`: weights from the memory of the stack."""

    def __init__(self, kappa: float = 1.0) -> None:
        self.kappa = kappa

    def __call__(self, probabilities: Tensor, *, valid_slices: Tensor | None, regions: bool) -> Tensor:
        """(K, B, C, D, *in_plane) to (K, B, 1, 1, *in_plane)."""
        return memory_weights(probabilities, kappa=self.kappa, valid_slices=valid_slices, regions=regions)


class FixedWeights:
    """The rule of `StreamingFixed` (Eq. 2): the same weights everywhere.

    Args:
        weights: one a classifier, sum 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)

    def __call__(self, probabilities: Tensor, *, valid_slices: Tensor | None, regions: bool) -> Tensor:
        """(K, B, C, D, *in_plane) to (K, 1, 1, 1, ...)."""
        weights = torch.tensor(self.weights, dtype=torch.float32, device=probabilities.device)
        return weights.reshape(-1, *(1,) * (probabilities.ndim - 1))


class StreamingNetwork(nn.Module):
    """K classifiers whose probabilities are mixed, as one network in the form that nnU-Net expects.

    With `mixture="log"` the output is the logarithm of the mixed probabilities (their log-odds for regions), so that
    nnU-Net's softmax gives them back. With "paper" it is the mixed probabilities themselves, to which nnU-Net then
    applies a second softmax as the authors' code does; the loss then has a floor (0.744 for four classes) and the
    probabilities are squeezed, while the labels are the same.

    A 2D network takes a stack of slices, too: (B, channels, D, *in_plane). A single slice is a stack of one. A 3D
    network's slices lie along the first spatial axis. A slice that is constant in all channels is padding.

    Args:
        classifiers: each (B, channels, *spatial) to logits (B, C, *spatial), or a list of them with deep supervision.
        weigh: the rule for the weights.
        mixture: the form of the output.

    The flag `regions` is part of the weights, because nnU-Net builds a network without saying whether its outputs are
    classes or regions.
    """

    regions: Tensor

    def __init__(self, classifiers: Sequence[nn.Module], weigh: WeightRule, mixture: Mixture = "log") -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)
        self.weigh = weigh
        self.mixture = mixture
        self.register_buffer("regions", torch.zeros((), dtype=torch.bool))
        self.has_regions = False  # the flag as a Python value: reading the tensor would break torch.compile's graph
        self.register_load_state_dict_post_hook(read_regions)
        self.is_2d = any(isinstance(module, nn.Conv2d) for module in classifiers[0].modules())

    def declare_regions(self, regions: bool) -> None:
        """Says whether the outputs are regions."""
        self.regions.fill_(regions)
        self.has_regions = regions

    def forward(self, image: Tensor) -> Any:
        """(B, channels, [D,] *in_plane) to (B, C, [D,] *in_plane), or a list of that with deep supervision."""
        stack = image[:, :, None] if self.is_2d and image.ndim == 4 else image  # (B, channels, D, *in_plane)
        valid_slices = slices_with_content(stack)
        outputs = [self.classify(classifier, stack) for classifier in self.classifiers]
        supervised = isinstance(outputs[0], list)
        scales = zip(*outputs, strict=True) if supervised else [outputs]
        mixed = [self.mix(torch.stack(list(logits)), valid_slices) for logits in scales]
        if stack is not image:
            mixed = [output[:, :, 0] for output in mixed]
        return mixed if supervised else mixed[0]

    def classify(self, classifier: nn.Module, stack: Tensor) -> Any:
        """One classifier's logits of a stack, (B, C, D, *in_plane); a 2D one sees its slices as a batch."""
        if not self.is_2d:
            return classifier(stack)
        batch, _, depth, *_ = stack.shape
        slices = stack.transpose(1, 2).flatten(0, 1)  # (B D, channels, *in_plane)
        logits = classifier(slices)

        def stacked(output: Tensor) -> Tensor:
            return output.unflatten(0, (batch, depth)).transpose(1, 2)  # (B, C, D, *in_plane)

        return [stacked(output) for output in logits] if isinstance(logits, list) else stacked(logits)

    def mix(self, logits: Tensor, valid_slices: Tensor | None) -> Tensor:
        """The classifiers' logits (K, B, C, D, *in_plane) to the network's output (B, C, D, *in_plane)."""
        return self.to_output(self.combine(self.probabilities(logits), valid_slices))

    def probabilities(self, logits: Tensor) -> Tensor:
        """What nnU-Net would make of logits (K, B, C, ...), in fp32."""
        return torch.sigmoid(logits.float()) if self.has_regions else torch.softmax(logits.float(), dim=2)

    def combine(self, probabilities: Tensor, valid_slices: Tensor | None = None) -> Tensor:
        """Mixes the classifiers' probabilities: sum_i W_i P_i.

        Args:
            probabilities: (K, B, C, D, *in_plane).
            valid_slices: (B, D); at a coarser scale D may be smaller than theirs.

        Returns:
            (B, C, D, *in_plane), a proper distribution.
        """
        if valid_slices is not None and valid_slices.shape[1] != probabilities.shape[3]:
            pooled = F.adaptive_max_pool1d(valid_slices.float()[:, None], probabilities.shape[3])  # any slice of it
            valid_slices = pooled[:, 0] > 0
        weights = self.weigh(probabilities, valid_slices=valid_slices, regions=self.has_regions)
        return (weights * probabilities).sum(dim=0)

    def combine_logits(self, logits: Tensor, valid_slices: Tensor | None = None) -> Tensor:
        """As `mix`."""
        return self.mix(logits, valid_slices)

    def over_volumes(self) -> MixtureOverVolumes:
        """How inference runs it: each classifier over the whole volume, then the mixture of all slices."""
        return MixtureOverVolumes(self)

    def to_output(self, mixed: Tensor) -> Tensor:
        """Mixed probabilities in the form that nnU-Net's non-linearity follows."""
        if self.mixture == "paper":
            return mixed
        return to_logits(mixed, regions=self.has_regions, smallest=SMALLEST_PROBABILITY)

    @property
    def decoder(self) -> DeepSupervisionSwitch:
        """Where nnU-Net switches deep supervision."""
        return DeepSupervisionSwitch(self.classifiers)


class MixtureOverVolumes:
    """A mixture over a whole volume: its memory is that of all slices, not of a tile's.

    Run tile by tile, the classifiers would be weighed by the slices of the tile, in 2D by a single one.
    See `architectures.over_volumes.OverVolumes`.
    """

    may_be_compiled = False  # its classifiers are called one by one
    needs_whole_volume = True

    def __init__(self, network: StreamingNetwork) -> None:
        self.network = network
        self.classifiers = tuple(network.classifiers)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """The classifiers' logits (C, D, *in_plane) to the mixture's output, (C, D, *in_plane)."""
        stacked = torch.stack(list(logits))[:, None]  # (K, 1, C, D, *in_plane)
        return self.network.combine_logits(stacked)[0]

    def weights_changed(self) -> None:
        """Reads the flag of regions, which is part of the weights."""
        read_regions(self.network, None)


def read_regions(network: nn.Module, _: Any) -> None:
    """Takes the flag from weights that were just loaded."""
    if isinstance(network, StreamingNetwork):
        network.declare_regions(bool(network.regions))


class DeepSupervisionSwitch:
    """Switches deep supervision of several networks at once, under the name that nnU-Net writes to."""

    def __init__(self, networks: Sequence[Any] | nn.ModuleList) -> None:
        self.networks = list(networks)

    @property
    def deep_supervision(self) -> bool:
        """Whether the networks return a list."""
        return bool(self.networks[0].decoder.deep_supervision)

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        for network in self.networks:
            network.decoder.deep_supervision = enabled


class BottleneckDropout(nn.Module):
    """A U-Net with dropout between encoder and decoder, as the paper's; its weights have the U-Net's own names.

    Args:
        unet: with nnU-Net's encoder and decoder.
        probability: of an element of the bottleneck to be dropped in training.
    """

    def __init__(self, unet: Any, probability: float = 0.5) -> None:
        super().__init__()
        self.encoder = unet.encoder
        self.decoder = unet.decoder
        self.dropout = nn.Dropout(probability)

    def forward(self, image: Tensor) -> Any:
        """(B, channels, *spatial) to the U-Net's output."""
        *skips, bottleneck = self.encoder(image)
        return self.decoder([*skips, self.dropout(bottleneck)])


def with_dropout(network: nn.Module, probability: float) -> nn.Module:
    """A U-Net with dropout at its bottleneck; another network, which has its own place for it, as it is."""
    return BottleneckDropout(network, probability) if is_unet(network) else network


def slices_with_content(stack: Tensor) -> Tensor:
    """Which slices of (B, channels, D, *in_plane) are not constant in all channels, (B, D)."""
    voxels = stack.detach().flatten(start_dim=3)  # (B, channels, D, voxels)
    return (voxels.amax(dim=3) > voxels.amin(dim=3)).any(dim=1)
