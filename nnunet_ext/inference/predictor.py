"""The ensemble predictor: the engine as one of nnU-Net's predictors, for those who call nnU-Net from Python."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ext.architectures.posterior import to_logits
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.models.members import MemberError, MemberRule
from nnunet_ext.models.model import load_model


class EnsemblePredictor(EnsembleEngine, nnUNetPredictor):
    """Predicts with all members of one or several model folders; made by `from_model_folders`.

    It is an `nnUNetPredictor`: where only one configuration is loaded, the inherited methods for arrays work, too,
    and return the ensemble's result.
    """

    def __init__(self, **settings: Any) -> None:
        with redirect_stdout(io.StringIO()):  # nnU-Net's constructor prints a remark about every CPU
            nnUNetPredictor.__init__(self, **settings)
        EnsembleEngine.__init__(
            self,
            tile_step_size=self.tile_step_size,
            use_gaussian=self.use_gaussian,
            use_mirroring=self.use_mirroring,
            device=self.device,
            allow_tqdm=self.allow_tqdm,
        )

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Stock's way to open one model folder; checkpoints are read without running code from them."""
        rule = MemberRule.parse(checkpoint_name)
        self.use([load_model(Path(model_training_output_dir), use_folds, rule, device=self.device)])
        self.member_rule = checkpoint_name

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """The ensemble's result at the configuration's resolution, (C, *spatial), as nnU-Net's exporter expects it.

        For `average="probabilities"` that is the log (for regions the log-odds) of the mean probability, so that
        the exporter's own softmax gives the mean again. Resampling then acts on these, not on each member.

        Raises:
            MemberError: if several model folders are loaded, whose resolutions differ.
        """
        if len(self.models) > 1:
            raise MemberError(
                f"Arrays at a configuration's resolution can only be predicted with one model folder; "
                f"{len(self.models)} are loaded. Use predict_from_files."
            )
        regions = self.label_manager.has_regions
        moments, total = Moments(regions=regions, with_variance=False), torch.zeros(())
        passes = self.passes[0]
        prepared = self._prepare_image(self.models[0], data)
        for step in passes:
            logits = self.runners[0].logits(step, prepared.tiled)
            if self.average == "logits":
                total = total + logits
            else:
                moments.add(self.label_manager.apply_inference_nonlin(logits))
        return total / len(passes) if self.average == "logits" else to_logits(moments.mean(), regions=regions)
