"""The engine: predicts one segmentation and its uncertainty with any set of nnU-Net members."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from nnunet_ext.calibration.ensemble_weights import EnsembleWeights
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.accumulation.case_frame import PreparedCase, all_to
from nnunet_ext.inference.accumulation.case_sums import SumOptions
from nnunet_ext.inference.accumulation.early_exit import rule_for
from nnunet_ext.inference.accumulation.maps import MAPS
from nnunet_ext.inference.accumulation.memory_maps import with_memory_maps
from nnunet_ext.inference.accumulation.resampling import require_linear_resampling
from nnunet_ext.inference.adaptation.adapting_runner import adaptable_runtime
from nnunet_ext.inference.adaptation.case_adaptation import CaseAdaptation
from nnunet_ext.inference.class_weights import require_fitted_for, with_class_weights
from nnunet_ext.inference.finish import finish, stages_for
from nnunet_ext.inference.folder_run import PredictCases, complete_folder
from nnunet_ext.inference.member_loop import MemberLoop
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.inference.memory_fallback import where_it_fits
from nnunet_ext.inference.memory_plan import MemoryPlan, MemoryPlanner
from nnunet_ext.inference.passes import passes_by_fold, passes_of, segmented_names
from nnunet_ext.inference.preparation import prepare_case
from nnunet_ext.inference.run import CaseSink, Pace, RunOutcome, run_cases
from nnunet_ext.inference.runtimes.choice import CHOICES, ChooseRuntime, compilation
from nnunet_ext.inference.runtimes.precision import arithmetic_for
from nnunet_ext.inference.stages.postprocess import postprocess_stage, warn_of_other_ensemble
from nnunet_ext.inference.transform_cost import log_cost, require_several_transforms, warn_of_single_transforms
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS
from nnunet_ext.labels import regions_of
from nnunet_ext.machine.allocator import return_large_blocks
from nnunet_ext.machine.devices import fastest_device, usable_device
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import (
    Model,
    load_model,
    require_model_weights,
    require_previous_stage,
    require_same_labels,
)
from nnunet_ext.options import MEMORY_MAPS, EnsembleOptions, OutputOptions
from nnunet_ext.prediction_folder.case_files import CaseContents, CasePrediction
from nnunet_ext.prediction_folder.cases import Case, cases_from
from nnunet_ext.prediction_folder.provenance import Provenance, provenance_of
from nnunet_ext.prediction_folder.writer import CaseWriter, RunRecord, output_of

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class EnsembleEngine:
    """Predicts with all members of one or several models.

    `EnsemblePredictor` offers the same as an `nnUNetPredictor`. The engine does not inherit from it, so that commands
    need not import nnU-Net's predictor, which takes 2 seconds.

    Args:
        models: loaded model folders; several form an ensemble in image space.
        options: how the members are combined and where they run.
        calibration: adds calibrated probabilities, predicted Dice, verdict and covering mask.
        choose_runtime: returns each model's runtime; None takes `options.runtime`, adaptation always plain torch.

    Raises:
        MemberError: if the models do not segment the same labels, or `model_weights` is not one positive number per
            model.
        CalibrationError: if the calibration was fitted for an ensemble with other settings, a member was retrained
            since, or early exit would keep the members of several folds from running.
        PostProcessingError: if post-processing is requested and its file is missing, damaged, or for other labels.
        EnsembleWeightsError: if class weights were fitted for another ensemble, or a member was retrained since.
        ValueError: if fast resampling is requested and the plans do not use nnU-Net's default resampling, or the
            test-time transforms are not allowed for a model.
    """

    def __init__(
        self,
        models: Sequence[Model],
        options: EnsembleOptions,
        *,
        calibration: Calibration | None = None,
        choose_runtime: ChooseRuntime | None = None,
    ) -> None:
        require_same_labels(models)
        require_model_weights(options.model_weights, models)
        if options.fast_resampling:
            require_linear_resampling(model.configuration for model in models)
        self.models = list(models)
        self.options = options
        self.device = device_of(options)
        self.calibration = calibration
        self.structures = regions_of(self.models[0].dataset_json)
        folders = [model.folder for model in models]
        self.postprocess = postprocess_stage(options.postprocess, folders, self.models[0].dataset_json)
        self.class_weights = None if options.class_weights is None else EnsembleWeights.load(options.class_weights)
        if self.class_weights is not None:
            require_fitted_for(self.class_weights, self.models, self.settings)
        warn_of_other_ensemble(self.postprocess, self.settings)
        arithmetic = arithmetic_for(options.precision, self.device)
        choose = (choose_runtime or CHOICES[options.runtime]) if options.adapt is None else adaptable_runtime
        self.runners = [MemberRunner(model, choose(model, self.device, arithmetic)) for model in self.models]
        transforms = TRANSFORM_SETS[options.tta]
        self.passes = passes_of(
            self.models, options.model_weights, transforms=transforms, tta_members=options.tta_members
        )
        if self.class_weights is not None:
            self.passes = with_class_weights(self.passes, self.class_weights)
        folds = passes_by_fold(self.passes)
        self.loop = MemberLoop(
            self.models,
            self.runners,
            folds,
            self.structures,
            early_exit=rule_for(options.early_exit) if options.early_exit else None,
            describe_folds=calibration is not None and len(folds) > 1,  # it was fitted on single folds
            postprocess=self.postprocess,
        )
        self.memory = MemoryPlanner(self.models, self.passes, options, self.loop.describe_folds, self.postprocess)
        if options.max_memory is not None:
            return_large_blocks()
        if options.tta_members:
            warn_of_single_transforms(self.passes)
        if calibration is not None:
            calibration.require_settings(self.settings)
            calibration.require_members(
                (member.name, member.sha256) for model in self.models for member in model.members
            )
            calibration.require_every_pass(len(folds), options.early_exit)

    @classmethod
    def from_model_folders(
        cls,
        folders: str | Path | Sequence[str | Path],
        options: EnsembleOptions | None = None,
        *,
        calibration: Calibration | None = None,
        **fields: Any,
    ) -> Self:
        """Loads model folders that stock nnU-Net or the trainers of this package wrote.

        Args:
            folders: one or several `TRAINER__PLANS__CONFIGURATION` folders.
            options: how the members are combined; None uses the defaults.
            calibration: the calibration that was fitted for this ensemble.
            fields: fields of `EnsembleOptions` that override those in `options`: `folds=[0, 1]`,
                `members="samples:30"`, ...

        Raises:
            FileNotFoundError: if a folder is not a model folder.
            MemberError: if members are missing or do not belong together.
            CheckpointError: if a checkpoint is damaged or holds more than data.
            CalibrationError, ValueError: see the constructor.
        """
        options = replace(options or EnsembleOptions(), **fields)
        paths = [Path(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
        models = open_models(paths, options)
        for model in models:
            logger.info("%s: %s", model.folder, ", ".join(member.name for member in model.members))
        engine = cls(models, options, calibration=calibration)
        log_cost(models, engine.passes)
        return engine

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a calibration depends on. Folds are not among them: it is fitted across folds."""
        options = self.options
        optional = {
            "early_exit": options.early_exit,
            "fast_resampling": options.fast_resampling,
            "adapt": None if options.adapt is None else asdict(options.adapt),
            "postprocessing": None if self.postprocess is None else self.postprocess.chosen.sha256,
            "class_weights": None if self.class_weights is None else self.class_weights.sha256,
            "tta": options.tta if options.tta not in ("flips", "none") else None,  # "mirroring" tells these two apart
        }
        return {
            "models": [model.folder.name for model in self.models],
            "weights": None if options.model_weights is None else list(options.model_weights),
            "members": options.members,
            "average": options.average,
            "tta_members": options.tta_members,
            "mirroring": options.tta != "none",
            "step_size": options.tile_step_size,
        } | {name: value for name, value in optional.items() if value}  # left out, calibrations of older versions fit

    @property
    def provenance(self) -> Provenance:
        """What makes up the ensemble, for the record of a prediction folder."""
        calibration, postprocess = self.calibration, self.postprocess
        return provenance_of(
            self.options,
            [member.record() for model in self.models for member in model.members],
            members_averaged=self.passes_per_case,
            stages=[type(stage).__name__.lower() for stage in stages_for(OutputOptions(), calibration, postprocess)],
            calibration=None if calibration is None else calibration.sha256,
            postprocessing=None if postprocess is None else postprocess.chosen.sha256,
        ).with_class_weights(None if self.class_weights is None else self.class_weights.sha256)

    def predict_from_files(
        self,
        source: str | Path | Sequence[Sequence[str]],
        output: str | Path | Sequence[str] | None,
        options: OutputOptions | None = None,
        *,
        arguments: dict[str, Any] | None = None,
        predict_cases: PredictCases | None = None,
        **fields: Any,
    ) -> RunOutcome:
        """Predicts cases one after the other; a case that cannot be predicted does not stop the others.

        Args:
            source: a folder with `CASE_0000<ending>` files, or the list of files of each case.
            output: a folder; a list of paths without file ending, one per case, all in one folder; or None, which
                returns the results in the outcome.
            options: what is written; None uses the defaults.
            arguments: what to record as the arguments in `predict_args.json`.
            predict_cases: predicts and writes the cases into a folder elsewhere; None does so in this process.
            fields: fields of `OutputOptions` that override those in `options`: `maps=["variance"]`, ...

        Raises:
            ValueError: if the options contradict each other, or the segmentations of a cascade's first stage are
                missing.
            FileNotFoundError: if the input folder holds no image.
            OutputInUseError: if another run is writing to the output folder.
            OtherEnsembleError: if the output folder holds the results of another ensemble.
        """
        options = with_memory_maps(replace(options or OutputOptions(), **fields), self.models)
        sum_options(self.options, options)  # refuses contradictory options before the first case
        if "tta_variance" in options.maps:
            require_several_transforms(self.models, self.passes)
        require_previous_stage(options.previous_stage, self.models)
        ending = self.models[0].dataset_json["file_ending"]
        folder, cases = output_of(output, cases_from(source, ending, options.previous_stage))
        wanted = cases[options.part_id :: options.num_parts]
        if arguments is None:
            arguments = {"members": self.options.members, "average": self.options.average}
        if folder is None:
            return self.predict_cases(wanted, None, options)
        with self.writer(folder, options, arguments) as writer:
            return complete_folder(wanted, writer, options, predict_cases or self.predict_cases)

    def predict_cases(self, cases: Sequence[Case], sink: CaseSink | None, options: OutputOptions) -> RunOutcome:
        """Predicts cases and passes each result to `sink`; None keeps the results in the outcome."""
        pace = Pace(
            passes_per_case=self.passes_per_case,
            prepare_ahead=options.prepare_ahead and self.options.max_memory is None,  # one case at a time
            write_behind=options.write_behind and self.options.max_memory is None,
            show_progress=self.options.allow_tqdm,
        )

        def predict(case: Case, prepared: list[PreparedCase], progress: tqdm) -> CasePrediction:
            return self.predict_case(case.name, prepared, options, progress)

        return run_cases(cases, self.prepare, predict, sink, pace)

    def prepare(self, case: Case) -> list[PreparedCase]:
        """Checks a case's files and preprocesses them for every model; see `prepare_case`."""
        return prepare_case(case, self.models, self.options)

    def predict_case(
        self,
        name: str,
        prepared: Sequence[PreparedCase],
        options: OutputOptions | None = None,
        progress: tqdm | None = None,
    ) -> CasePrediction:
        """Runs all members over one case.

        Args:
            name: the case's name.
            prepared: the case after each model's preprocessing, in the models' order.
            options: which maps to compute, and whether to keep probabilities and the members' own segmentations.
            progress: progress bar, advanced by one per pass.

        Raises:
            CaseTooLargeError: if the case cannot fit into memory.
        """
        options = with_memory_maps(options or OutputOptions(), self.models)

        def predict_on(device: torch.device) -> CasePrediction:
            plan = self.memory.plan(name, prepared, options) if device.type == "cpu" else MemoryPlan()
            room = plan.room()
            on_device = all_to(prepared, device, room)
            adaptation = CaseAdaptation(name, self.options.adapt)
            loop = replace(self.loop, runners=adaptation.runners(self.runners), kind_of_sums=plan.sums)
            compiled = device.type == "cuda" and self.options.runtime == "auto" and compilation() != "unwanted"
            wanted = replace(sum_options(self.options, options), compiled=compiled)
            sums, fold_rows = loop.sum_up(on_device, wanted, progress)
            stages = [*stages_for(options, self.calibration, self.postprocess), adaptation.describe]
            return finish(name, sums, self.structures, stages, options, fold_rows=fold_rows)

        return where_it_fits(predict_on, self.device, name, progress)

    @property
    def passes_per_case(self) -> int:
        """The number of members that predict a case; each transform counts as one with `tta_members`."""
        return sum(len(passes) for passes in self.passes)

    def writer(self, folder: Path, options: OutputOptions, arguments: dict[str, Any]) -> CaseWriter:
        """What writes the ensemble's cases into a folder, which it locks; raises what `CaseWriter` raises."""
        first, calibration = self.models[0], self.calibration
        contents = CaseContents(
            options,
            member_names=segmented_names(self.passes, self.models) if options.save_members else (),
            covering_mask=calibration is not None and calibration.mask is not None,
            verdict=calibration is not None,
        )
        members = [member.record() for model in self.models for member in model.members]
        record = RunRecord(arguments, members, self.provenance, first.dataset_json, first.plans.plans)
        return CaseWriter(folder, contents, record, first.plans.image_reader_writer_class())


def device_of(options: EnsembleOptions) -> torch.device:
    """The device of an ensemble: the one in its options, or the fastest that is available.

    Raises:
        ValueError: if CUDA is requested and torch finds no CUDA device.
    """
    return fastest_device() if options.device is None else usable_device(torch.device(options.device))


def open_models(folders: Sequence[Path], options: EnsembleOptions) -> list[Model]:
    """Loads the model folders of an ensemble; raises what `load_model` raises."""
    device = device_of(options)
    load = partial(
        load_model,
        folds=options.fold_list,
        rule=MemberRule.parse(options.members),
        device=device,
        trust=options.trust_checkpoints,
        weights_dtype=arithmetic_for(options.precision, device).weights,
    )
    return [load(folder) for folder in folders]


def sum_options(ensemble: EnsembleOptions, output: OutputOptions) -> SumOptions:
    """What is accumulated over the members of a case.

    Raises:
        ValueError: if the members' own segmentations or the variance between their transforms are requested together
            with early exit.
    """
    whole = [("--save_members", output.save_members), ("--maps tta_variance", "tta_variance" in output.maps)]
    for flag, asked_for in whole:
        if asked_for and ensemble.early_exit:
            raise ValueError(
                f"{flag} needs every member to run over the whole image, which --early-exit avoids; found both. "
                f"Leave out one of them."
            )
    return SumOptions(
        average=ensemble.average,
        with_variance="variance" in output.maps,
        keep_members=output.save_members,
        fast_resampling=ensemble.fast_resampling,
        with_transform_variance="tta_variance" in output.maps,
        maps=tuple(name for name in output.maps if name in MAPS),
        with_memory=any(name.startswith(MEMORY_MAPS) for name in output.maps),
    )
