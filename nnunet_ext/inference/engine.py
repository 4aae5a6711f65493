"""The engine: any set of nnU-Net members to one segmentation, with its uncertainty."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tqdm import tqdm

from nnunet_ext.architectures.streaming import StreamingNetwork
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.accumulation.case_sums import CaseEnsemble, PreparedCase
from nnunet_ext.inference.accumulation.early_exit import EarlyExit, rule_for
from nnunet_ext.inference.accumulation.resampling import require_fast_resampling
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.inference.memory_estimate import require_memory_for
from nnunet_ext.inference.passes import Pass, passes_of
from nnunet_ext.inference.run import CaseSink, PredictionReport, run_cases
from nnunet_ext.inference.runtimes.precision import Arithmetic, Precision, arithmetic_for
from nnunet_ext.inference.sliding_window import Tile, tile_image
from nnunet_ext.inference.uncertainty import require_known_maps
from nnunet_ext.input_checks import require_good_case
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import (
    Model,
    channel_names,
    load_model,
    require_previous_stage,
    require_same_labels,
    require_weights,
)
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case, cases_from
from nnunet_ext.prediction_folder.map_files import MapType
from nnunet_ext.prediction_folder.writer import CaseContents, CaseWriter, RunRecord, output_of

if TYPE_CHECKING:
    from typing_extensions import Self

Average = Literal["probabilities", "logits"]


logger = logging.getLogger(__name__)


class EnsembleEngine:
    """Predicts with all members of one or several model folders; made by `from_model_folders`.

    `EnsemblePredictor` is the same as an `nnUNetPredictor`. The engine stands alone because the import of nnU-Net's
    predictor takes 2 seconds, which a command would wait for.

    Args:
        tile_step_size: distance of tiles as a share of the patch.
        use_gaussian: weigh the centre of tiles more.
        use_mirroring: average over mirrored copies.
        device: where the networks run.
        allow_tqdm: show a progress bar.
    """

    models: list[Model]
    model_weights: list[float] | None
    average: Average
    tta_members: bool
    member_rule: str = "models that were already open"
    calibration: Calibration | None = None
    runners: list[MemberRunner]
    early_exit: EarlyExit | None = None
    fast_resampling: bool = False

    def __init__(
        self,
        *,
        tile_step_size: float = 0.5,
        use_gaussian: bool = True,
        use_mirroring: bool = True,
        device: torch.device,
        allow_tqdm: bool = True,
    ) -> None:
        self.tile_step_size = tile_step_size
        self.use_gaussian = use_gaussian
        self.use_mirroring = use_mirroring
        self.device = device
        self.allow_tqdm = allow_tqdm

    @classmethod
    def from_model_folders(
        cls,
        folders: str | Path | Sequence[str | Path],
        folds: Sequence[int | str] | None = None,
        members: str = "final",
        device: torch.device | str = "cuda",
        *,
        average: Average = "probabilities",
        weights: Sequence[float] | None = None,
        tta_members: bool = False,
        trust_checkpoints: bool = False,
        tile_step_size: float = 0.5,
        use_gaussian: bool = True,
        use_mirroring: bool = True,
        allow_tqdm: bool = True,
        precision: Precision | None = None,
        early_exit: EarlyExit | None = None,
        fast_resampling: bool = False,
    ) -> Self:
        """Opens model folders, which stock nnU-Net or our trainers wrote.

        Args:
            folders: one or several `TRAINER__PLANS__CONFIGURATION` folders; several make an ensemble in image space.
            folds: of every folder; None takes those that have members.
            members: "final", "best", "samples", "last-cycle" or a file pattern, each with an optional :COUNT.
            device: where the networks run.
            average: "probabilities" is the Bayesian model average; "logits" is what stock nnU-Net does over folds.
                It decides on segmentation and probabilities; maps always describe the members' probabilities.
            weights: one a folder, shared evenly by its members; None gives every member the same weight.
            tta_members: every mirrored copy counts as a member of its own.
            trust_checkpoints: allow checkpoints that hold more than data, which can run code.
            tile_step_size: distance of tiles as a share of the patch.
            use_gaussian: weigh the centre of tiles more.
            use_mirroring: average over mirrored copies.
            allow_tqdm: show a progress bar.
            precision: "fp32", "bf16", or "auto", which takes bf16 where a CPU has units for it; None is stock's.
            early_exit: "label" leaves out members where they cannot change the label any more; "information" where
                the mutual information has settled; None runs all members everywhere.
            fast_resampling: take the softmax at the network's resolution and resample probabilities; stock resamples
                logits. Faster where images are resampled, and of another entropy at the borders of structures.

        Raises:
            FileNotFoundError: if a folder is not a model folder.
            MemberError: if members are missing or do not belong together.
            CheckpointError: if a checkpoint is damaged or holds more than data.
        """
        predictor = cls(
            tile_step_size=tile_step_size,
            use_gaussian=use_gaussian,
            use_mirroring=use_mirroring,
            device=torch.device(device),
            allow_tqdm=allow_tqdm,
        )
        if not 0 < tile_step_size <= 1:
            raise ValueError(f"The step of the tiles must be above 0 and at most 1 patch; found {tile_step_size}.")
        paths = [Path(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
        rule = MemberRule.parse(members)
        arithmetic = arithmetic_for(precision, predictor.device)
        models = [
            load_model(
                path, folds, rule,
                device=predictor.device, trust=trust_checkpoints, weights_dtype=arithmetic.weights,
            )
            for path in paths
        ]  # fmt: skip
        predictor.use(
            models, average=average, weights=weights, tta_members=tta_members, arithmetic=arithmetic,
            early_exit=early_exit, fast_resampling=fast_resampling,
        )  # fmt: skip
        predictor.member_rule = members
        for model in models:
            logger.info("%s: %s", model.folder, ", ".join(member.name for member in model.members))
        return predictor

    def use(
        self,
        models: Sequence[Model],
        *,
        average: Average = "probabilities",
        weights: Sequence[float] | None = None,
        tta_members: bool = False,
        arithmetic: Arithmetic | None = None,
        early_exit: EarlyExit | None = None,
        fast_resampling: bool = False,
    ) -> None:
        """Takes models that are already open; see `from_model_folders`.

        Raises:
            MemberError: if they do not segment the same labels, or there is not one positive weight for each.
            ValueError: if an option is unknown, if early exit or fast resampling is asked for with averaged logits,
                or fast resampling for plans whose resampling is not nnU-Net's default.
        """
        if average not in ("probabilities", "logits"):
            raise ValueError(f'average must be "probabilities" or "logits"; found {average!r}.')
        if early_exit is not None:
            rule_for(early_exit)  # refuses unknown ones now
            if average == "logits":
                raise ValueError(
                    "Early exit goes by the mean of probabilities; found it with averaged logits. Leave out "
                    "--early-exit or --average logits."
                )
        if fast_resampling:
            require_fast_resampling((model.configuration for model in models), average)
        self.models = list(models)
        require_same_labels(self.models)
        require_weights(weights, self.models)
        self.model_weights = list(weights) if weights is not None else None
        self.average = average
        self.tta_members = tta_members
        self.early_exit = early_exit
        self.fast_resampling = fast_resampling
        arithmetic = arithmetic or arithmetic_for(None, self.device)
        self.runners = [MemberRunner(model, self.device, arithmetic) for model in self.models]
        first = self.models[0]
        self.plans_manager, self.configuration_manager = first.plans, first.configuration
        self.dataset_json, self.label_manager, self.network = first.dataset_json, first.labels, first.network
        self.trainer_name, self.allowed_mirroring_axes = first.members[0].trainer_name, first.mirror_axes

    @property
    def settings(self) -> dict[str, Any]:
        """How the ensemble is put together: what a calibration of it rests on. Folds are no part of it."""
        options = {"early_exit": self.early_exit, "fast_resampling": self.fast_resampling}
        return {
            "models": [model.folder.name for model in self.models],
            "weights": self.model_weights,
            "members": self.member_rule,
            "average": self.average,
            "tta_members": self.tta_members,
            "mirroring": self.use_mirroring,
            "step_size": self.tile_step_size,
        } | {name: value for name, value in options.items() if value}  # without them as before there were any

    def use_calibration(self, calibration: Calibration) -> None:
        """From now on predicts calibrated probabilities, expected Dice, verdict and covering mask.

        Raises:
            CalibrationError: if it was fitted for an ensemble that is put together in another way, or a member was
                trained again since.
        """
        calibration.require_settings(self.settings)
        calibration.require_members((member.name, member.sha256) for model in self.models for member in model.members)
        self.calibration = calibration

    def predict_from_files(
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
        *,
        maps: Sequence[str] = ("entropy",),
        map_type: MapType = "float32",
        save_members: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> PredictionReport:
        """Predicts cases one after the other; a case that cannot be predicted does not stop the others.

        Args:
            list_of_lists_or_source_folder: a folder with `CASE_0000<ending>` files, or the files of each case.
            output_folder_or_list_of_truncated_output_files: a folder; a list of paths without ending, one a case, all
                in one folder; or None, which returns the results in the report.
            save_probabilities: also write `CASE.npz` and `CASE.pkl` as stock does.
            overwrite: False skips cases whose files are complete.
            num_processes_preprocessing: 0 preprocesses in line; otherwise the next case is prepared in a thread.
            num_processes_segmentation_export: 0 writes in line; otherwise a thread writes.
            folder_with_segs_from_prev_stage: of a cascade.
            num_parts: into how many runs the cases are divided.
            part_id: which of them this is, from 0.
            maps: of "entropy", "mutual_information", "expected_entropy", "variance", "confidence".
            map_type: of the maps' files: "float32", "float16" or "uint8", see `write_map`.
            save_members: also write each member's own segmentation.
            arguments: what to record as the arguments in `predict_args.json`.

        Raises:
            ValueError: if a map is unknown or the part does not exist.
            FileNotFoundError: if the input folder holds no image.
            OutputInUseError: if another run writes the output folder.
        """
        require_known_maps(maps)
        self._require_whole_members(save_members)
        if not 0 <= part_id < num_parts:
            raise ValueError(f"Parts count from 0 to num_parts - 1; found part {part_id} of {num_parts}.")
        require_previous_stage(folder_with_segs_from_prev_stage, self.models)
        file_ending = self.dataset_json["file_ending"]
        cases = cases_from(list_of_lists_or_source_folder, file_ending, folder_with_segs_from_prev_stage)
        output, cases = output_of(output_folder_or_list_of_truncated_output_files, cases)
        wanted = cases[part_id::num_parts]
        writer = None
        if output is not None:
            names = [step.name for passes in self.passes for step in passes]
            contents = CaseContents(
                OutputOptions(
                    maps=maps,
                    map_type=map_type,
                    save_probabilities=save_probabilities,
                    save_members=save_members,
                    continue_prediction=not overwrite,
                    num_parts=num_parts,
                    part_id=part_id,
                ),
                member_names=names if save_members else (),
                covering_mask=self.calibration is not None and self.calibration.mask is not None,
                verdict=self.calibration is not None,
            )
            record = RunRecord(
                arguments if arguments is not None else {"members": self.member_rule, "average": self.average},
                [member.record() for model in self.models for member in model.members],
                self.dataset_json,
                self.plans_manager.plans,
            )
            writer = CaseWriter(output, contents, record, self.plans_manager.image_reader_writer_class())
        with writer or nullcontext():
            if writer is not None:
                writer.clear(wanted)
            complete = [case.name for case in wanted if writer is not None and not overwrite and writer.has(case)]
            report = self.predict_cases(
                [case for case in wanted if case.name not in complete],
                writer,
                maps=maps,
                save_members=save_members,
                save_probabilities=save_probabilities,
                prepare_ahead=num_processes_preprocessing > 0,
                write_behind=num_processes_segmentation_export > 0,
            )
            report.skipped = complete
            if writer is not None:
                writer.table.finish()
        return report

    def predict_cases(
        self,
        cases: Sequence[Case],
        sink: CaseSink | None,
        *,
        maps: Sequence[str] = ("entropy",),
        save_members: bool = False,
        save_probabilities: bool = False,
        prepare_ahead: bool = True,
        write_behind: bool = True,
    ) -> PredictionReport:
        """Predicts cases into anything that takes them; None keeps the results in the report."""

        def predict(case: Case, prepared: list[PreparedCase], progress: tqdm) -> CasePrediction:
            return self.predict_case(
                case.name,
                prepared,
                maps=maps,
                save_members=save_members,
                save_probabilities=save_probabilities,
                progress=progress,
            )

        return run_cases(
            cases,
            self.prepare,
            predict,
            sink,
            passes_per_case=self.passes_per_case,
            prepare_ahead=prepare_ahead,
            write_behind=write_behind,
            show_progress=self.allow_tqdm,
        )

    def predict_case(
        self,
        name: str,
        prepared: Sequence[PreparedCase],
        *,
        maps: Sequence[str] = ("entropy",),
        save_members: bool = False,
        save_probabilities: bool = False,
        progress: tqdm | None = None,
    ) -> CasePrediction:
        """Runs all members over one case.

        Args:
            name: of the case.
            prepared: the case as each model's preprocessing left it, in the models' order.
            maps: see `predict_from_files`.
            save_members: keep every member's own segmentation.
            save_probabilities: keep the probabilities.
            progress: is advanced by one a member.

        Raises:
            CaseTooLargeError: if it cannot fit into the memory.
        """
        require_memory_for(name, self.models, prepared, variance="variance" in maps)
        self._require_whole_members(save_members)
        predict_on = partial(
            self._predict_case_on, name=name, prepared=prepared, maps=maps, save_members=save_members,
            save_probabilities=save_probabilities, progress=progress,
        )  # fmt: skip
        if self.device.type == "cuda":
            done = progress.n if progress is not None else 0
            try:
                return predict_on(self.device)
            except torch.OutOfMemoryError:
                logger.warning("%s does not fit into the memory of the GPU; summing up in main memory.", name)
                torch.cuda.empty_cache()
                if progress is not None:
                    progress.update(done - progress.n)
        return predict_on(torch.device("cpu"))

    def _predict_case_on(
        self,
        device: torch.device,
        *,
        name: str,
        prepared: Sequence[PreparedCase],
        maps: Sequence[str],
        save_members: bool,
        save_probabilities: bool,
        progress: tqdm | None,
    ) -> CasePrediction:
        """`predict_case` with all that is summed up over the members on a device, which need not be the networks'."""
        prepared = [case.to(device) for case in prepared]
        ensemble = CaseEnsemble(
            self.models,
            prepared,
            average=self.average,
            with_variance="variance" in maps,
            keep_members=save_members,
            early_exit=rule_for(self.early_exit) if self.early_exit else None,
            fast_resampling=self.fast_resampling,
        )
        steps = [(position, step) for position, passes in enumerate(self.passes) for step in passes]
        weight_left = sum(step.weight for _, step in steps)
        for position, step in steps:
            tiles = self._tiles_needed(position, ensemble)
            if tiles is not None and not tiles:
                ensemble.add_settled()
            else:
                logits = self.runners[position].logits(step, prepared[position].tiled, tiles)
                ensemble.add(position, step, logits)
            weight_left -= step.weight
            if step is not steps[-1][1]:
                ensemble.settle(weight_left)
            if progress is not None:
                progress.update()
        return ensemble.finish(name, maps=maps, save_probabilities=save_probabilities, calibration=self.calibration)

    def _require_whole_members(self, save_members: bool) -> None:
        if save_members and self.early_exit:
            raise ValueError(
                "A member's own segmentation needs the member to run over the whole image; found --save_members with "
                "--early-exit. Leave out one of them."
            )

    def _tiles_needed(self, position: int, ensemble: CaseEnsemble) -> list[Tile] | None:
        """None stands for all; a mixture needs all as long as it needs one, because it remembers the whole volume."""
        tiles = ensemble.tiles_needed(position)
        return None if tiles and isinstance(self.models[position].network, StreamingNetwork) else tiles

    @property
    def passes(self) -> list[list[Pass]]:
        """The runs of each model's network: one a member, or one a member and flip."""
        return passes_of(self.models, self.model_weights, mirroring=self.use_mirroring, tta_members=self.tta_members)

    @property
    def passes_per_case(self) -> int:
        """How many members a case is predicted with, flips counted where they are members."""
        return sum(len(passes) for passes in self.passes)

    def _prepare_image(self, model: Model, image: torch.Tensor, properties: dict | None = None) -> PreparedCase:
        tiled = tile_image(
            image, model.configuration.patch_size, step_size=self.tile_step_size, gaussian=self.use_gaussian
        )
        return PreparedCase(tiled, properties or {})

    def prepare(self, case: Case) -> list[PreparedCase]:
        """Checks a case's files and preprocesses them for every model.

        Raises:
            BadInputError: if a file is damaged or the files do not belong together.
        """
        require_good_case(
            case.files,
            file_ending=self.dataset_json["file_ending"],
            channels=len(channel_names(self.models[0])),
            reader=self.plans_manager.plans["image_reader_writer"],
            previous_stage=case.previous_stage if any(model.is_cascaded for model in self.models) else None,
        )
        return [self._prepare_image(model, *model.preprocess(case)) for model in self.models]
