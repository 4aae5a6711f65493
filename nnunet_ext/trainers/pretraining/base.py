"""What all pre-trainings without labels share: rate and length, network, space-only augmentation, seeds, pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.trainers.own_steps import NO_LABELS, OwnStepsTrainer
from nnunet_ext.trainers.pretraining.pictures import Column, save_pictures
from nnunet_ext.trainers.pretraining.transforms import spatial_transforms

REMOVED_REGIONS = "nnunet_ext_removed_regions"  # in dataset.json: labels mark what was removed for anonymity
VALIDATION = 0  # stage of the seed: the same random changes after every epoch


class Pretraining(OwnStepsTrainer):
    """Learns from images alone with the planned U-Net, as arXiv 2410.23132 trains its method and the others.

    Random changes of the images are drawn from `generator`, a function of epoch and iteration, so that a resumed
    training draws those of an uninterrupted one. Validation draws the same after every epoch.
    """

    peak_rate: float = 1e-2
    pretraining_epochs: int = 1000
    picture_every: int = 10  # epochs

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.replace_defaults(initial_lr=self.peak_rate, num_epochs=self.pretraining_epochs)
        self.oversample_foreground_percent = 0.0
        self.label_manager = NO_LABELS
        self.generator = torch.Generator()  # on the CPU, so that all devices draw the same
        self.picture_is_due = False

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

    def present(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, 1, *spatial): 0 where a mask of the dataset says that an image was made anonymous, 1 elsewhere."""
        image = batch["data"]
        if self.dataset_json.get(REMOVED_REGIONS):
            return (batch["target"] <= 0).to(image.dtype)  # nnU-Net sets -1 around the image
        return torch.ones_like(image[:, :1])

    # --- network ---

    def outputs_for(self, channels: int) -> int:
        """Hook: the network's outputs for an image with so many channels; as many, unless a part says otherwise."""
        return channels

    def network_builder(self) -> Callable[..., nn.Module]:
        build = super().network_builder()

        @functools.wraps(build)  # nnU-Net inspects the signature
        def without_labels(plans: Any, configuration: Any, channels: int, heads: int, deep: bool) -> nn.Module:
            return self.as_pretrained(build(plans, configuration, channels, self.outputs_for(channels), deep))

        return without_labels

    def as_pretrained(self, network: nn.Module) -> nn.Module:
        """The planned network with torch's own initial weights, as in the paper.

        Raises:
            ValueError: if it is no U-Net, or the configuration is of a cascade.
        """
        if not is_unet(network) or self.is_cascaded:
            found = "a cascade's second stage" if self.is_cascaded else type(network).__name__
            raise ValueError(
                f"Pre-training without labels needs a U-Net with nnU-Net's encoder and decoder, and no cascade; "
                f"found {found}. Choose another configuration or other plans."
            )
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
        for layer in network.decoder.seg_layers[:-1]:  # type: ignore[union-attr, index]
            layer.requires_grad_(False)  # for deep supervision, which is off; DDP fails on weights without gradient
        return network

    # --- seeds and pictures ---

    def seed_stage(self, stage: int) -> None:
        """Seeds `generator` from rank and stage: `VALIDATION`, or 1 + the epoch."""
        self.generator.manual_seed(int(np.random.SeedSequence([self.local_rank, stage]).generate_state(1)[0]))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.seed_stage(1 + self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.seed_stage(VALIDATION)
        is_last = self.current_epoch == self.num_epochs - 1
        self.picture_is_due = self.writes_files and (is_last or self.current_epoch % self.picture_every == 0)

    def draw(self, *columns: Column) -> None:
        """Writes a picture of a validation batch if one is due: the first batch of every few epochs."""
        if self.picture_is_due:
            self.picture_is_due = False
            name = f"epoch_{self.current_epoch:04d}.png"
            save_pictures(columns, Path(self.output_folder) / "reconstructions" / name)
