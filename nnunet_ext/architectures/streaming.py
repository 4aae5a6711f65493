"""Several classifiers mixed by the memory of a whole stack of slices (Streaming, arXiv 2502.09269, Eqs. 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet

Mixture = Literal["log", "paper"]
# (probabilities, valid_slices=..., regions=...) to the logarithms of weights that sum to 1 over K
WeightRule = Callable[..., Tensor]


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
    return log_memory_weights(probabilities, kappa=kappa, valid_slices=valid_slices, regions=regions).exp()


def log_memory_weights(
    probabilities: Tensor, *, kappa: float = 1.0, valid_slices: Tensor | None = None, regions: bool = False
) -> Tensor:
    """The natural logarithm of `memory_weights`, which is finite whatever kappa is."""
    memory = mean_over_slices(probabilities.float(), valid_slices)  # (K, B, C, 1, *in_plane)
    if regions:
        # the unbiased variance of the two numbers p and 1 - p is (p - (1 - p))^2 / 2
        decidedness = ((2 * memory - 1).square() / 2).mean(dim=2, keepdim=True)
    else:
        decidedness = memory.var(dim=2, keepdim=True)
    return torch.log_softmax(kappa * decidedness, dim=0)


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
        """(K, B, C, D, *in_plane) to the logarithms of weights (K, B, 1, 1, *in_plane)."""
        return log_memory_weights(probabilities, kappa=self.kappa, valid_slices=valid_slices, regions=regions)


class FixedWeights:
    """The rule of `StreamingFixed` (Eq. 2): the same weights everywhere.

    Args:
        weights: one a classifier, sum 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)

    def __call__(self, probabilities: Tensor, *, valid_slices: Tensor | None, regions: bool) -> Tensor:
        """(K, B, C, D, *in_plane) to the logarithms of weights (K, 1, 1, 1, ...); a weight of 0 has -inf."""
        weights = torch.tensor(self.weights, dtype=torch.float32, device=probabilities.device)
        return weights.log().reshape(-1, *(1,) * (probabilities.ndim - 1))


def mixed_log_probabilities(logits: Tensor, log_weights: Tensor) -> Tensor:
    """log sum_i W_i softmax(z_i), without a floor: also where all classifiers are wrong the gradient is whole.

    Args:
        logits: (K, B, C, ...) in fp32.
        log_weights: log W_i, broadcast against the logits.

    Returns:
        (B, C, ...); its exponential sums to 1 over C.
    """
    return torch.logsumexp(log_weights + F.log_softmax(logits, dim=2), dim=0)


def mixed_log_odds(logits: Tensor, log_weights: Tensor) -> Tensor:
    """log Q - log(1 - Q) of Q = sum_i W_i sigmoid(z_i), without a floor; arguments as above."""
    inside = torch.logsumexp(log_weights + F.logsigmoid(logits), dim=0)
    outside = torch.logsumexp(log_weights + F.logsigmoid(-logits), dim=0)
    return inside - outside


class StreamingNetwork(nn.Module):
    """K classifiers whose probabilities are mixed, as one network in the form that nnU-Net expects.

    With `mixture="log"` the output is the logarithm of the mixed probabilities (their log-odds for regions), so that
    nnU-Net's softmax gives them back. With "paper" it is the mixed probabilities themselves, to which nnU-Net then
    applies a second softmax as the authors' code does; the loss then has a floor (0.744 for four classes) and the
    probabilities are squeezed, while the labels are the same.

    A 2D network takes a stack of slices, too: (B, channels, D, *in_plane). A single slice is a stack of one. A 3D
    network's slices lie along the first spatial axis.

    Padding does not enter the memory. It is what a loader added to an image and marked with NaN (`marked_padding`);
    the classifiers see zeros there. Slices that are blank in the image itself count as any other. The stock predictor
    marks nothing, so that under it all slices of a tile count, those that it pads to the size of a patch, too.

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
        is_padding = marked_padding(stack)
        blanked = with_blank_slices(stack, is_padding)
        outputs = [self.classify(classifier, blanked) for classifier in self.classifiers]
        supervised = isinstance(outputs[0], list)
        scales = zip(*outputs, strict=True) if supervised else [outputs]
        mixed = [self.combine_logits(torch.stack(list(logits)), ~is_padding) for logits in scales]
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

    def combine_logits(self, logits: Tensor, valid_slices: Tensor | None = None) -> Tensor:
        """The classifiers' logits to the network's output, in fp32 whatever the logits are.

        Args:
            logits: (K, B, C, D, *in_plane), of a stack, a patch or a whole volume.
            valid_slices: (B, D), False for padding, which does not enter the memory; at a coarser scale D may be
                smaller than theirs. None: all slices are valid.

        Returns:
            (B, C, D, *in_plane): the logarithm of the mixed probabilities, their log-odds for regions, or with the
            paper's mixture the probabilities.
        """
        logits = logits.float()
        probabilities = torch.sigmoid(logits) if self.has_regions else torch.softmax(logits, dim=2)
        valid_slices = slices_at_depth(valid_slices, logits.shape[3])
        log_weights = self.weigh(probabilities, valid_slices=valid_slices, regions=self.has_regions)
        if self.mixture == "paper":
            return (log_weights.exp() * probabilities).sum(dim=0)
        return (mixed_log_odds if self.has_regions else mixed_log_probabilities)(logits, log_weights)

    @property
    def decoder(self) -> DeepSupervisionSwitch:
        """Where nnU-Net switches deep supervision."""
        return DeepSupervisionSwitch(self.classifiers)


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


def marked_padding(stack: Tensor) -> Tensor:
    """Which slices of (B, channels, D, *in_plane) a loader marked as padding, (B, D): NaN all over the first channel.

    Not in all channels, because a cascade appends the channels of its previous stage after the mark is set.
    """
    return stack[:, 0].isnan().flatten(start_dim=2).all(dim=2)


def with_blank_slices(stack: Tensor, is_padding: Tensor) -> Tensor:
    """(B, channels, D, *in_plane) with zeros in the slices of which `is_padding`, (B, D), is True."""
    in_plane = (1,) * (stack.ndim - 3)
    return stack.masked_fill(is_padding.reshape(len(is_padding), 1, -1, *in_plane), 0.0)  # (B, D) to (B, 1, D, ...)


def slices_at_depth(valid_slices: Tensor | None, depth: int) -> Tensor | None:
    """(B, D) to (B, depth) at a coarser scale: valid if any slice that it is made of is valid."""
    if valid_slices is None or valid_slices.shape[1] == depth:
        return valid_slices
    return F.adaptive_max_pool1d(valid_slices.float()[:, None], depth)[:, 0] > 0  # (B, 1, D) to (B, depth)
