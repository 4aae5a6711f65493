"""Small heads that turn the features of a level into segmentation logits; for training only (arXiv 2306.03271)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

LEAKY_SLOPE = 1e-2  # negative slope in nnU-Net's and the authors' He initialisation
VECTOR_LENGTH = 128

Stride = tuple[int, ...]


class DistillationHead(nn.Module):
    """A 1x1 convolution to C classes, followed by transposed convolutions from C to C channels up to a finer grid.

    Steps with the same stride share one transposed convolution, as in the authors' code: a head of an isotropic U-Net
    has one, a head of an anisotropic U-Net has one per distinct stride.

    Args:
        channels: number of channels of the feature.
        classes: C, the number of logits.
        steps: stride of each up-sampling step, in order; without any the logits stay on the feature's grid.
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
        """(B, channels, *spatial) to logits (B, C, *finer)."""
        logits = self.classify(feature)
        for name in self.names:
            logits = self.upsample[name](logits)
        return logits


class VectorHead(nn.Module):
    """A linear map of a feature's spatial mean to a vector of length 128, to compare the features themselves.

    The paper up-samples with convolutions first and then takes the mean. Both are linear, so this represents the same
    maps without the large intermediate tensor.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, VECTOR_LENGTH)
        nn.init.kaiming_normal_(self.project.weight, a=LEAKY_SLOPE)  # nnU-Net's initialisation skips nn.Linear
        nn.init.zeros_(self.project.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, channels, *spatial) to (B, 128)."""
        return self.project(feature.flatten(start_dim=2).mean(dim=2))  # (B, channels, voxels) to (B, channels)


class LevelHeads(nn.Module):
    """The heads of the chosen levels of encoder and decoder.

    Args:
        make_head: builds the head of a level of a side, "encoder" or "decoder"; a shared one is built once.
        encoder_levels: levels whose encoder feature gets a head.
        decoder_levels: levels whose decoder feature gets a head; the bottleneck counts as a decoder feature.
        shared: whether E_l and D_l share one head, as in the authors' nnU-Net and Swin UNETR, instead of having one
            each, as in their UNETR and V-Net.
    """

    def __init__(
        self,
        make_head: Callable[[str, int], nn.Module],
        encoder_levels: Collection[int],
        decoder_levels: Collection[int],
        *,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.encoder_keys = {level: head_key("encoder", level, shared) for level in sorted(encoder_levels)}
        self.decoder_keys = {level: head_key("decoder", level, shared) for level in sorted(decoder_levels)}
        places = {key: ("encoder", level) for level, key in self.encoder_keys.items()}
        places |= {key: ("decoder", level) for level, key in self.decoder_keys.items()}
        self.heads = nn.ModuleDict({key: make_head(*place) for key, place in places.items()})

    def forward(self, encoder: Sequence[Tensor], decoder: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The heads' outputs for the chosen levels of the encoder and of the decoder, each the finest level first.

        Args:
            encoder: features E_0 ... E_{n-2}.
            decoder: features D_0 ... D_{n-1}, the bottleneck last.
        """
        return (
            [self.heads[key](encoder[level]) for level, key in self.encoder_keys.items()],
            [self.heads[key](decoder[level]) for level, key in self.decoder_keys.items()],
        )


def head_key(side: str, level: int, shared: bool) -> str:
    """The name of a level's head: "level_2" if encoder and decoder share it, else "encoder_2" or "decoder_2"."""
    return f"level_{level}" if shared else f"{side}_{level}"


def steps_to_full_resolution(strides: Sequence[Stride], level: int) -> list[Stride]:
    """The strides from a level up to level 0, the coarsest first; for level 0 itself one step of stride 1.

    Args:
        strides: stride of each level of the network; the first is 1 along all axes.
        level: index of the level; 0 is full resolution.
    """
    return [tuple(strides[step]) for step in range(level, 0, -1)] or [tuple(strides[0])]


def stride_name(stride: Stride) -> str:
    """The name of a stride in a state dict, for example "1x2x2"."""
    return "x".join(map(str, stride))


def parameter_count(module: nn.Module) -> int:
    """The number of parameters of a module; shared parameters count once."""
    return sum(parameter.numel() for parameter in module.parameters())
