"""The ensemble predictor: the engine as an `nnUNetPredictor`, for code that calls nnU-Net from Python."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ext.architectures.posterior import to_logits
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.adaptation.case_adaptation import CaseAdaptation
from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.member_runner import WeightedMean
from nnunet_ext.inference.preparation import prepare_image
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.models.members import MemberError
from nnunet_ext.options import EnsembleOptions, OutputOptions

if TYPE_CHECKING:
    from typing_extensions import Self


class EnsemblePredictor(nnUNetPredictor):
    """Predicts with all members of one or several model folders; create it with `from_model_folders`.

    It is an `nnUNetPredictor`: with a single model folder, the inherited methods for arrays work as well and return
    the ensemble's result.

    Attributes:
        engine: runs the ensemble; set once a model folder is loaded.
    """

    engine: EnsembleEngine

    def __init__(self, **settings: Any) -> None:
        """Takes the settings of `nnUNetPredictor`; load a model with `initialize_from_trained_model_folder`."""
        with redirect_stdout(io.StringIO()):  # nnU-Net's constructor prints a remark about every CPU
            super().__init__(**settings)

    @classmethod
    def from_model_folders(
        cls,
        folders: str | Path | Sequence[str | Path],
        options: EnsembleOptions | None = None,
        *,
        calibration: Calibration | None = None,
        **fields: Any,
    ) -> Self:
        """Loads model folders; arguments and exceptions are those of `EnsembleEngine.from_model_folders`."""
        engine = EnsembleEngine.from_model_folders(folders, options, calibration=calibration, **fields)
        chosen = engine.options
        predictor = cls(
            tile_step_size=chosen.tile_step_size,
            use_gaussian=chosen.use_gaussian,
            use_mirroring=chosen.tta != "none",
            device=engine.device,
            allow_tqdm=chosen.allow_tqdm,
        )
        predictor.use(engine)
        return predictor

    def use(self, engine: EnsembleEngine) -> None:
        """Predicts with this engine from now on, and sets nnU-Net's attributes from its first model."""
        first = engine.models[0]
        self.engine = engine
        self.plans_manager, self.configuration_manager = first.plans, first.configuration
        self.dataset_json, self.label_manager, self.network = first.dataset_json, first.labels, first.network
        self.trainer_name, self.allowed_mirroring_axes = first.members[0].trainer_name, first.mirror_axes

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Loads one model folder as stock nnU-Net does, but without running code that a checkpoint may contain."""
        options = EnsembleOptions(
            folds=use_folds,
            members=checkpoint_name,
            device=self.device,
            tile_step_size=self.tile_step_size,
            use_gaussian=self.use_gaussian,
            tta="flips" if self.use_mirroring else "none",
            allow_tqdm=self.allow_tqdm,
        )
        self.use(EnsembleEngine(open_models([Path(model_training_output_dir)], options), options))

    def predict_from_files(  # noqa: PLR0913 - nnU-Net's own signature
        self,
        list_of_lists_or_source_folder: str | Path | Sequence[Sequence[str]],
        output_folder_or_list_of_truncated_output_files: str | Path | Sequence[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int = 1,
        num_processes_segmentation_export: int = 1,
        folder_with_segs_from_prev_stage: str | Path | None = None,
        num_parts: int = 1,
        part_id: int = 0,
        **fields: Any,
    ) -> RunOutcome:
        """`EnsembleEngine.predict_from_files` with the argument names of stock nnU-Net.

        Args:
            list_of_lists_or_source_folder: a folder with `CASE_0000<ending>` files, or the files of each case.
            output_folder_or_list_of_truncated_output_files: a folder; a list of paths without file ending; or None,
                which returns the results in the outcome.
            save_probabilities: also write `CASE.npz` and `CASE.pkl` as stock nnU-Net does.
            overwrite: False skips cases whose files are complete.
            num_processes_preprocessing: 0 prepares each case when it is its turn; any other number prepares the
                next case in a thread.
            num_processes_segmentation_export: 0 writes each case before the next one starts; any other number
                writes in a thread.
            folder_with_segs_from_prev_stage: segmentations of the previous stage of a cascade.
            num_parts: number of runs that the cases are divided into.
            part_id: which of these runs this is, from 0.
            fields: other fields of `OutputOptions`: `maps`, `map_type`, `save_members`.

        Raises:
            ValueError, FileNotFoundError, OutputInUseError, OtherEnsembleError: see
                `EnsembleEngine.predict_from_files`.
        """
        previous_stage = folder_with_segs_from_prev_stage
        options = OutputOptions(
            save_probabilities=save_probabilities,
            continue_prediction=not overwrite,
            previous_stage=None if previous_stage is None else Path(previous_stage),
            num_parts=num_parts,
            part_id=part_id,
            prepare_ahead=num_processes_preprocessing > 0,
            write_behind=num_processes_segmentation_export > 0,
            **fields,
        )
        return self.engine.predict_from_files(
            list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files, options
        )

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """The ensemble's result at the configuration's resolution, as nnU-Net's exporter expects it.

        For `average="probabilities"` it is the log (for regions the log-odds) of the mean probability, so that the
        exporter's own softmax returns the mean. The exporter then resamples these values, not each member's logits.

        Args:
            data: preprocessed image (channels, *spatial).

        Returns:
            Logits (C, *spatial) in fp32.

        Raises:
            MemberError: if several model folders are loaded, because their resolutions differ.
        """
        engine = self.engine
        if len(engine.models) > 1:
            raise MemberError(
                f"Preprocessed arrays can only be predicted with one model folder, whose resolution they have; "
                f"{len(engine.models)} are loaded. Use predict_from_files."
            )
        regions = self.label_manager.has_regions
        moments, total = Moments(regions=regions, with_variance=False), WeightedMean()
        passes, averages_logits = engine.passes[0], engine.options.average == "logits"
        (runner,) = CaseAdaptation("array", engine.options.adapt).runners(engine.runners)
        prepared = prepare_image(engine.models[0], data, options=engine.options)
        for step in passes:
            logits = runner.logits(step, prepared.tiled)
            view = step.field_of_view(logits.shape[1:], logits.device)
            weight = 1.0 if view is None else view
            if averages_logits:
                total.add([logits], weight)
            else:
                moments.add(self.label_manager.apply_inference_nonlin(logits), weight)
        return total.values()[0] if averages_logits else to_logits(moments.mean(), regions=regions)
