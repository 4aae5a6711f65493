"""Masked pre-training without labels: a dense auto-encoder (`MAE`) and a sparse one (`S3D`), arXiv 2410.23132."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.architectures.masked_autoencoder import Densification, SparseMaskedAutoencoder
from nnunet_ext.masking.blocks import block_grid, hidden_blocks, random_ratio, random_visible_blocks, visible_voxels
from nnunet_ext.trainers.own_steps import OwnStepsTrainer
from nnunet_ext.trainers.part_state import PartWithState
from nnunet_ext.trainers.pretraining.pictures import save_reconstructions
from nnunet_ext.trainers.pretraining.transforms import spatial_transforms

VALIDATION = 0  # stage of the masks' seed: the same masks after every epoch


class MaskedPretraining(OwnStepsTrainer):
    """Hides blocks of an image and learns to reconstruct them; the loss counts hidden voxels only.

    Masks are a function of epoch and iteration, so that a resumed training draws those of an uninterrupted one.
    Validation hides the same blocks after every epoch. The network is the planned one with one output per channel.
    """

    peak_rate: float = 1e-2
    pretraining_epochs: int = 1000
    lowest_ratio: float = 0.6  # of hidden blocks, drawn once per batch
    highest_ratio: float = 0.9
    mask_percent: int | None = None  # a fixed share of hidden blocks
    mask_block: int | None = None  # voxels per axis; None for the size of one voxel of the bottleneck
    picture_every: int = 10  # epochs

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.initial_lr = self.peak_rate
        self.num_epochs = self.pretraining_epochs
        self.oversample_foreground_percent = 0.0
        self.mask_generator = torch.Generator()
        self.picture_is_due = False

    # --- data ---

    @staticmethod
    def get_training_transforms(
        patch_size: Sequence[int],
        rotation_for_DA: Any,
        deep_supervision_scales: Any,
        mirror_axes: Sequence[int] | None,
        do_dummy_2d_data_aug: bool,
        **_: Any,
    ) -> BasicTransform:
        """Rotation, scaling and mirroring as nnU-Net does them; intensities are not changed."""
        return spatial_transforms(patch_size, rotation_for_DA, mirror_axes, do_dummy_2d_data_aug)

    # --- network ---

    def network_builder(self) -> Callable[..., nn.Module]:
        build = super().network_builder()

        @functools.wraps(build)  # nnU-Net inspects the signature
        def image_to_image(plans: Any, configuration: Any, channels: int, heads: int, deep: bool) -> nn.Module:
            return self.as_autoencoder(build(plans, configuration, channels, channels, deep))

        return image_to_image

    def as_autoencoder(self, network: nn.Module) -> nn.Module:
        """The planned network with torch's own initial weights, as in the paper.

        Raises:
            ValueError: if it is no U-Net, the configuration is of a cascade, or blocks and patch do not fit.
        """
        if not is_unet(network) or self.is_cascaded:
            found = "a cascade's second stage" if self.is_cascaded else type(network).__name__
            raise ValueError(
                f"Masked pre-training needs a U-Net with nnU-Net's encoder and decoder, and no cascade; found "
                f"{found}. Choose another configuration or other plans."
            )
        hidden = hidden_blocks(self.grid, self.ratios[1])
        self.print_to_log_file(
            f"Masks: blocks of {list(self.block_size)} voxels, a grid of {list(self.grid)}; at most {hidden} hidden."
        )
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
        for layer in network.decoder.seg_layers[:-1]:  # type: ignore[union-attr, index]
            layer.requires_grad_(False)  # for deep supervision, which is off; DDP fails on weights without gradient
        return network

    # --- masks ---

    @property
    def block_size(self) -> tuple[int, ...]:
        """Voxels of a block along each axis."""
        strides = np.prod(np.vstack(self.configuration_manager.pool_op_kernel_sizes), axis=0)
        return tuple(self.mask_block or int(stride) for stride in strides)

    @property
    def grid(self) -> tuple[int, ...]:
        """Blocks of a patch along each axis."""
        return block_grid(self.configuration_manager.patch_size, self.block_size)

    @property
    def ratios(self) -> tuple[float, float]:
        """The smallest and the largest share of hidden blocks."""
        if self.mask_percent is not None:
            return self.mask_percent / 100, self.mask_percent / 100
        return self.lowest_ratio, self.highest_ratio

    def seed_masks(self, stage: int) -> None:
        """Seeds the masks from rank and stage: `VALIDATION`, or 1 + the epoch."""
        self.mask_generator.manual_seed(int(np.random.SeedSequence([self.local_rank, stage]).generate_state(1)[0]))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.seed_masks(1 + self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.seed_masks(VALIDATION)
        is_last = self.current_epoch == self.num_epochs - 1
        self.picture_is_due = self.writes_files and (is_last or self.current_epoch % self.picture_every == 0)

    # --- steps ---

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """What the network sees; the image (B, channels, *spatial) and its mask (B, 1, *spatial), 1 where visible."""
        image = batch["data"]
        ratio = random_ratio(*self.ratios, self.mask_generator)
        blocks = random_visible_blocks(len(image), self.grid, ratio, self.mask_generator)
        visible = visible_voxels(blocks.to(image.device), image.shape[2:])
        return self.network_input(image, visible), [image, visible]

    def network_input(self, image: Tensor, visible: Tensor) -> Tensor:
        """Hook: what the network gets of an image (B, channels, *spatial) and its mask (B, 1, *spatial)."""
        return image * visible

    def training_loss(self, outputs: Tensor, targets: list[Tensor]) -> Tensor:
        """Mean squared error over the hidden voxels of all channels."""
        image, visible = targets
        hidden = 1 - visible
        return ((outputs.float() - image).square() * hidden).sum() / (hidden.sum() * image.shape[1])

    def validation_figures(self, outputs: Tensor, targets: list[Tensor]) -> dict[str, float]:
        """The share of the variance of hidden voxels that is reconstructed; the first batch is also drawn."""
        image, visible = targets
        if self.picture_is_due:
            self.picture_is_due = False
            name = f"epoch_{self.current_epoch:04d}.png"
            save_reconstructions(image, visible, outputs, Path(self.output_folder) / "reconstructions" / name)
        variance = image[(visible == 0).expand_as(image)].var(correction=0)
        return {"explained variance": 1 - float(self.training_loss(outputs, targets) / variance.clamp(min=1e-8))}


class MAE(MaskedPretraining):
    """Dense masked auto-encoder: hidden voxels are zero in the image, and the planned network is used as it is."""


class S3D(PartWithState, MaskedPretraining):
    """Masked auto-encoder whose encoder sees visible voxels only.

    Every checkpoint stores the weights of the plain network as `network_weights`, and those of the densification
    under their own key.
    """

    state_key = "densification"
    uses_mask_token: bool = True
    uses_densify_conv: bool = True

    def training_network(self, network: nn.Module) -> nn.Module:
        kind = Densification(mask_token=self.uses_mask_token, convolution=self.uses_densify_conv)
        return SparseMaskedAutoencoder(super().training_network(network), self.block_size, kind)

    def network_input(self, image: Tensor, visible: Tensor) -> Tensor:
        """The mask is an additional channel; the network hides the voxels."""
        return torch.cat((image, visible), dim=1)

    @property
    def plain_network(self) -> nn.Module:
        return self.sparse_network.plain

    @property
    def sparse_network(self) -> SparseMaskedAutoencoder:
        """The network with its densification, without the wrappers of DDP and torch.compile."""
        return cast(SparseMaskedAutoencoder, super().plain_network)

    def part_state(self) -> dict[str, Any]:
        return self.sparse_network.densification.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.sparse_network.densification.load_state_dict(state)
