"""A mixture of classifiers weighted by their memory of a stack of slices (Streaming, arXiv 2502.09269, Eqs. 2, 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.architectures.over_volumes import Memory
from nnunet_ext.losses.mixture_loss import MixtureOutput

Mixture = Literal["log", "paper"]
# (probabilities, valid_slices=..., regions=...) to the logarithms of weights that sum to 1 over the K classifiers
WeightRule = Callable[..., Tensor]


def memory_weights(
    probabilities: Tensor, *, kappa: float = 1.0, valid_slices: Tensor | None = None, regions: bool = False
) -> Tensor:
    """Weights of K classifiers from their memory of the stack: W_i = softmax_i(kappa U_i) (Eq. 3).

    The memory M_i is the mean of a classifier's probabilities over the slices, and U_i the unbiased variance of M_i
    over the classes. A large U_i means a confident classifier, which gets a larger weight. All slices share the
    weights, and the gradient flows through them.

    Args:
        probabilities: (K, B, C, D, *in_plane), with D slices.
        kappa: inverse temperature; 1 is the paper's. U_i lies between 0 and 1/C, so with kappa = 1 the weights of two
            classifiers with four classes lie between 0.438 and 0.562.
        valid_slices: (B, D), True where a slice is part of the image and False where it is padding, which is left out
            of the memory. A stack without valid slices uses all of them. None means that all slices are valid.
        regions: whether the C outputs are independent regions; U_i is then the variance of (p, 1 - p), averaged over
            the regions.

    Returns:
        (K, B, 1, 1, *in_plane) in fp32, summing to 1 over K.
    """
    return log_memory_weights(probabilities, kappa=kappa, valid_slices=valid_slices, regions=regions).exp()


def log_memory_weights(
    probabilities: Tensor, *, kappa: float = 1.0, valid_slices: Tensor | None = None, regions: bool = False
) -> Tensor:
    """The natural logarithm of `memory_weights`, computed so that it is finite for every kappa."""
    confidence = memory_uncertainty(probabilities, valid_slices=valid_slices, regions=regions)
    return torch.log_softmax(kappa * confidence, dim=0)


def memory_uncertainty(probabilities: Tensor, *, valid_slices: Tensor | None = None, regions: bool = False) -> Tensor:
    """U_i of `memory_weights`, (K, B, 1, 1, *in_plane) in fp32; large where the classifier is decided."""
    memory = mean_over_slices(probabilities.float(), valid_slices)  # (K, B, C, 1, *in_plane)
    if regions:
        # the unbiased variance of the two numbers p and 1 - p is (p - (1 - p))^2 / 2
        return ((2 * memory - 1).square() / 2).mean(dim=2, keepdim=True)
    return memory.var(dim=2, keepdim=True)


def mean_over_slices(probabilities: Tensor, valid_slices: Tensor | None) -> Tensor:
    """Mean over the valid slices, over all if none is: (K, B, C, D, *in_plane) to (K, B, C, 1, *in_plane)."""
    if valid_slices is None:
        return probabilities.mean(dim=3, keepdim=True)
    none_valid = ~valid_slices.any(dim=1, keepdim=True)  # (B, 1)
    share = (valid_slices | none_valid).to(probabilities.dtype)
    share = share / share.sum(dim=1, keepdim=True)
    in_plane = (1,) * (probabilities.ndim - 4)
    share = share.reshape(1, len(share), 1, -1, *in_plane)  # (B, D) to (1, B, 1, D, ...)
    return (probabilities * share).sum(dim=3, keepdim=True)


class MemoryWeights:
    """The rule of `Streaming` (Eq. 3): weights from the memory of the stack."""

    def __init__(self, kappa: float = 1.0) -> None:
        self.kappa = kappa

    def __call__(self, probabilities: Tensor, *, valid_slices: Tensor | None, regions: bool) -> Tensor:
        """(K, B, C, D, *in_plane) to the logarithms of weights (K, B, 1, 1, *in_plane)."""
        return log_memory_weights(probabilities, kappa=self.kappa, valid_slices=valid_slices, regions=regions)


class FixedWeights:
    """The rule of `StreamingFixed` (Eq. 2): the same weights everywhere.

    Args:
        weights: one per classifier, summing to 1.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)

    def __call__(self, probabilities: Tensor, *, valid_slices: Tensor | None, regions: bool) -> Tensor:
        """(K, B, C, D, *in_plane) to the logarithms of weights (K, 1, 1, 1, ...); -inf for a weight of 0."""
        weights = torch.tensor(self.weights, dtype=torch.float32, device=probabilities.device)
        return weights.log().reshape(-1, *(1,) * (probabilities.ndim - 1))


def mixed_log_probabilities(logits: Tensor, log_weights: Tensor) -> Tensor:
    """log sum_i W_i softmax(z_i), without a floor: the gradient does not vanish where all classifiers are wrong.

    Args:
        logits: z_i, (K, B, C, ...) in fp32.
        log_weights: log W_i, broadcast against the logits.

    Returns:
        (B, C, ...); its exponential sums to 1 over C.
    """
    return torch.logsumexp(log_weights + F.log_softmax(logits, dim=2), dim=0)


def mixed_log_odds(logits: Tensor, log_weights: Tensor) -> Tensor:
    """The log-odds of Q = sum_i W_i sigmoid(z_i), without a floor; arguments as for `mixed_log_probabilities`."""
    inside = torch.logsumexp(log_weights + F.logsigmoid(logits), dim=0)
    outside = torch.logsumexp(log_weights + F.logsigmoid(-logits), dim=0)
    return inside - outside


class StreamingNetwork(nn.Module):
    """K classifiers in one network, whose probabilities are mixed, in the form that nnU-Net expects.

    With `mixture="log"` the output is the logarithm of the mixed probabilities (for regions their log-odds), so that
    nnU-Net's softmax returns the mixed probabilities. With "paper" it is the mixed probabilities themselves, to which
    nnU-Net then applies a second softmax, as the authors' code does. The cross-entropy then has a floor (0.744 for
    four classes), and the probabilities are compressed towards each other; labels are the same.

    A 2D network also takes a stack of slices, (B, channels, D, *in_plane); a single slice is a stack of one. The
    slices of a 3D network lie along the first spatial axis.

    Padding is left out of the memory. A loader marks the slices that it pads with by NaN (`marked_padding`), and the
    classifiers get zeros there. Blank slices of the image itself count like any other. The stock predictor marks
    nothing, so all slices of a tile count there, including those that pad it to the size of a patch.

    The flag `regions` is stored with the weights, because nnU-Net builds a network without saying whether its outputs
    are classes or regions.

    Args:
        classifiers: each maps (B, channels, *spatial) to logits (B, C, *spatial), or a list of them with deep
            supervision.
        weigh: the rule for the weights.
        mixture: the form of the output.
        shows_classifiers: whether the network returns a `MixtureOutput` in training.
    """

    regions: Tensor

    def __init__(
        self,
        classifiers: Sequence[nn.Module],
        weigh: WeightRule,
        mixture: Mixture = "log",
        *,
        shows_classifiers: bool = False,
    ) -> None:
        super().__init__()
        self.shows_classifiers = shows_classifiers
        self.classifiers = nn.ModuleList(classifiers)
        self.weigh = weigh
        self.mixture = mixture
        self.register_buffer("regions", torch.zeros((), dtype=torch.bool))
        self.has_regions = False  # a copy of the flag, because reading the tensor would break torch.compile's graph
        self.register_load_state_dict_post_hook(read_regions)
        self.is_2d = any(isinstance(module, nn.Conv2d) for module in classifiers[0].modules())

    def declare_regions(self, regions: bool) -> None:
        """Sets whether the outputs are regions."""
        self.regions.fill_(regions)
        self.has_regions = regions

    def forward(self, image: Tensor) -> Any:
        """(B, channels, [D,] *in_plane) to (B, C, [D,] *in_plane), or a list of that with deep supervision."""
        stack = image[:, :, None] if self.is_2d and image.ndim == 4 else image  # (B, channels, D, *in_plane)
        is_padding = marked_padding(stack)
        blanked = with_blank_slices(stack, is_padding)
        outputs = [self.classify(classifier, blanked) for classifier in self.classifiers]
        mixed = self.mix(outputs, ~is_padding)
        if stack is not image:
            mixed, outputs = without_slices(mixed), [without_slices(output) for output in outputs]
        return MixtureOutput(mixed, outputs) if self.training and self.shows_classifiers else mixed

    def mix(self, outputs: Sequence[Any], valid_slices: Tensor) -> Any:
        """The mixture of the classifiers' outputs, at each scale of deep supervision."""
        if not isinstance(outputs[0], list):
            return self.combine_logits(torch.stack(list(outputs)), valid_slices)
        return [self.combine_logits(torch.stack(list(scale)), valid_slices) for scale in zip(*outputs, strict=True)]

    def classify(self, classifier: nn.Module, stack: Tensor) -> Any:
        """One classifier's logits of a stack, (B, C, D, *in_plane); a 2D classifier gets the slices as a batch."""
        if not self.is_2d:
            return classifier(stack)
        batch, _, depth, *_ = stack.shape
        slices = stack.transpose(1, 2).flatten(0, 1)  # (B D, channels, *in_plane)
        logits = classifier(slices)

        def stacked(output: Tensor) -> Tensor:
            return output.unflatten(0, (batch, depth)).transpose(1, 2)  # (B, C, D, *in_plane)

        return [stacked(output) for output in logits] if isinstance(logits, list) else stacked(logits)

    def combine_logits(self, logits: Tensor, valid_slices: Tensor | None = None) -> Tensor:
        """Mixes the classifiers' logits into the network's output, always in fp32.

        Args:
            logits: (K, B, C, D, *in_plane) of a stack, a patch or a whole volume.
            valid_slices: (B, D') bool, False for padding, which is left out of the memory. D' may be larger than D if
                the logits are at a coarser scale. None means that all slices are valid.

        Returns:
            (B, C, D, *in_plane): the logarithm of the mixed probabilities, for regions their log-odds; with the
            paper's mixture the probabilities themselves.
        """
        logits = logits.float()
        probabilities = torch.sigmoid(logits) if self.has_regions else torch.softmax(logits, dim=2)
        valid_slices = slices_at_depth(valid_slices, logits.shape[3])
        log_weights = self.weigh(probabilities, valid_slices=valid_slices, regions=self.has_regions)
        if self.mixture == "paper":
            return (log_weights.exp() * probabilities).sum(dim=0)
        return (mixed_log_odds if self.has_regions else mixed_log_probabilities)(logits, log_weights)

    def over_volumes(self) -> MixtureOverVolumes:
        """How inference runs the network: each classifier over the whole volume, then the mixture of all slices."""
        return MixtureOverVolumes(self)

    @property
    def decoder(self) -> DeepSupervisionSwitch:
        """Where nnU-Net switches deep supervision."""
        return DeepSupervisionSwitch(self.classifiers)


class MixtureOverVolumes:
    """Runs a mixture over a whole volume, so that its memory is that of all slices and not of a tile's.

    Run tile by tile, the classifiers would be weighted by the slices of the tile, in 2D by a single slice. See
    `architectures.over_volumes.OverVolumes`.
    """

    may_be_compiled = False  # its classifiers are called one by one
    needs_whole_volume = True
    has_memory = True

    def __init__(self, network: StreamingNetwork) -> None:
        self.network = network
        self.classifiers = tuple(network.classifiers)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Mixes the classifiers' logits, each (C, D, *in_plane), into the network's output (C, D, *in_plane)."""
        stacked = torch.stack(list(logits))[:, None]  # (K, 1, C, D, *in_plane)
        return self.network.combine_logits(stacked)[0]

    def memory(self, logits: Sequence[Tensor]) -> Memory:
        """U and W of the volume, from each classifier's logits (C, D, *in_plane)."""
        stacked = torch.stack(list(logits))[:, None].float()  # (K, 1, C, D, *in_plane)
        regions = self.network.has_regions
        probabilities = torch.sigmoid(stacked) if regions else torch.softmax(stacked, dim=2)
        uncertainty = memory_uncertainty(probabilities, regions=regions)
        weights = self.network.weigh(probabilities, valid_slices=None, regions=regions).exp()
        shape = (len(stacked), *stacked.shape[3:])
        return Memory(*(values[:, 0, 0].expand(shape) for values in (uncertainty, weights)))

    def weights_changed(self) -> None:
        """Updates the copy of the flag `regions`, which is stored with the weights."""
        read_regions(self.network, None)


def read_regions(network: nn.Module, _: Any) -> None:
    """Updates the copy of the flag `regions` after weights were loaded."""
    if isinstance(network, StreamingNetwork):
        network.declare_regions(bool(network.regions))


class DeepSupervisionSwitch:
    """Switches deep supervision of several networks at once, through the attribute that nnU-Net sets."""

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
    """A U-Net with dropout between encoder and decoder, as in the paper's code; its weights keep the U-Net's names.

    Args:
        unet: a network with nnU-Net's encoder and decoder.
        probability: probability that an element of the bottleneck is dropped in training.
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
    """Adds dropout to the bottleneck of a U-Net; other networks have their own dropout and are returned unchanged."""
    return BottleneckDropout(network, probability) if is_unet(network) else network


def marked_padding(stack: Tensor) -> Tensor:
    """(B, D) bool: the slices of (B, channels, D, *in_plane) that a loader marked as padding, all NaN in channel 0.

    Only the first channel is checked, because a cascade appends the channels of its previous stage after the mark is
    set.
    """
    return stack[:, 0].isnan().flatten(start_dim=2).all(dim=2)


def with_blank_slices(stack: Tensor, is_padding: Tensor) -> Tensor:
    """Fills the slices of (B, channels, D, *in_plane) with zeros where `is_padding` (B, D) is True."""
    in_plane = (1,) * (stack.ndim - 3)
    return stack.masked_fill(is_padding.reshape(len(is_padding), 1, -1, *in_plane), 0.0)  # (B, D) to (B, 1, D, ...)


def without_slices(output: Any) -> Any:
    """(B, C, 1, *in_plane) to (B, C, *in_plane); with deep supervision a list of them."""
    return [scale[:, :, 0] for scale in output] if isinstance(output, list) else output[:, :, 0]


def slices_at_depth(valid_slices: Tensor | None, depth: int) -> Tensor | None:
    """(B, D) to (B, depth) at a coarser scale; a coarse slice is valid if any of the slices it covers is valid."""
    if valid_slices is None or valid_slices.shape[1] == depth:
        return valid_slices
    return F.adaptive_max_pool1d(valid_slices.float()[:, None], depth)[:, 0] > 0  # (B, 1, D) to (B, depth)
