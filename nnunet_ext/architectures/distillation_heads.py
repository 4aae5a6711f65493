"""Small heads that turn the features of a level into segmentation logits, for training only (arXiv 2306.03271)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

LEAKY_SLOPE = 1e-2  # of nnU-Net's and the authors' He initialisation
VECTOR_LENGTH = 128

Stride = tuple[int, ...]


class DistillationHead(nn.Module):
    """A 1x1 convolution to C classes, then transposed convolutions C to C up to a finer grid.

    Steps of the same stride share one transposed convolution, as in the authors' code: an isotropic U-Net has one a
    head, an anisotropic one as many as it has distinct strides.

    Args:
        channels: of the feature.
        classes: C, the number of logits.
        steps: stride of each up-sampling, the first one first; none leaves the logits on the feature's grid.
        conv_op: nn.Conv2d or nn.Conv3d.
    """

    def __init__(self, channels: int, classes: int, steps: Sequence[Stride], conv_op: type[nn.Module]) -> None:
        super().__init__()
        transposed_conv = get_matching_convtransp(conv_op)
        self.classify = conv_op(channels, classes, kernel_size=1)
        self.names = [stride_name(stride) for stride in steps]
        self.upsample = nn.ModuleDict(
            {stride_name(stride): transposed_conv(classes, classes, stride, stride) for stride in steps}
        )
        self.apply(InitWeights_He(LEAKY_SLOPE))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, channels, *spatial) to (B, C, *finer)."""
        logits = self.classify(feature)
        for name in self.names:
            logits = self.upsample[name](logits)
        return logits


class VectorHead(nn.Module):
    """A linear map of a feature's mean over space to a vector, for the comparison of features themselves.

    The paper up-samples with convolutions first and takes the mean then. Both are linear, so that this is the same
    family of maps without the large intermediate.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, VECTOR_LENGTH)
        nn.init.kaiming_normal_(self.project.weight, a=LEAKY_SLOPE)  # nnU-Net's initialisation leaves out nn.Linear
        nn.init.zeros_(self.project.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, channels, *spatial) to (B, 128)."""
        return self.project(feature.flatten(start_dim=2).mean(dim=2))  # (B, channels, voxels) to (B, channels)


class LevelHeads(nn.Module):
    """One head for each level that takes part, for the encoder's and the decoder's feature of that level.

    Args:
        make_head: builds the head of a level.
        encoder_levels: levels whose encoder feature takes part.
        decoder_levels: levels whose decoder feature takes part; the bottleneck counts as a decoder feature.
        shared: E_l and D_l use the same head, as in the authors' nnU-Net; otherwise each has its own.
    """

    def __init__(
        self,
        make_head: Callable[[int], nn.Module],
        encoder_levels: Collection[int],
        decoder_levels: Collection[int],
        *,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.encoder_keys = {level: head_key("encoder", level, shared) for level in sorted(encoder_levels)}
        self.decoder_keys = {level: head_key("decoder", level, shared) for level in sorted(decoder_levels)}
        levels = {key: level for keys in (self.encoder_keys, self.decoder_keys) for level, key in keys.items()}
        self.heads = nn.ModuleDict({key: make_head(level) for key, level in levels.items()})

    def forward(self, encoder: Sequence[Tensor], decoder: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs of the encoder's and the decoder's levels that take part, each the finest level first.

        Args:
            encoder: E_0 ... E_{n-1}.
            decoder: D_0 ... D_{n-2}; the bottleneck E_{n-1} is added as D_{n-1}.
        """
        decoder = [*decoder, encoder[-1]]
        return (
            [self.heads[key](encoder[level]) for level, key in self.encoder_keys.items()],
            [self.heads[key](decoder[level]) for level, key in self.decoder_keys.items()],
        )


def head_key(side: str, level: int, shared: bool) -> str:
    """The name of a level's head: "level_2" if both sides share it, else "encoder_2" or "decoder_2"."""
    return f"level_{level}" if shared else f"{side}_{level}"


def steps_to_full_resolution(strides: Sequence[Stride], level: int) -> list[Stride]:
    """The strides between a level and level 0, the coarsest first; level 0 itself takes one step of stride 1.

    Args:
        strides: of each level of the network; the first one is 1 along all axes.
        level: from 0.
    """
    return [tuple(strides[step]) for step in range(level, 0, -1)] or [tuple(strides[0])]


def stride_name(stride: Stride) -> str:
    """How a stride is called in a state dict: "1x2x2"."""
    return "x".join(map(str, stride))


def parameter_count(module: nn.Module) -> int:
    """How many numbers a module learns; those that several of its parts share count once."""
    return sum(parameter.numel() for parameter in module.parameters())
