"""What `nnunet_ext predict` does with its flags."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.calibration.model_calibration import FILE_NAME, Calibration
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.run import PredictionReport
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.models.named_folders import model_folders


def predict_folder(arguments: argparse.Namespace) -> PredictionReport:
    """Predicts the images of a folder.

    Args:
        arguments: the flags of `nnunet_ext predict`.

    Raises:
        ValueError: if the flags do not say which model, or contradict each other.
    """
    prepare_process_for(arguments.device)
    folders = model_folders(arguments)
    predictor = EnsembleEngine.from_model_folders(
        folders, folds=chosen_folds(arguments.f), **ensemble_options(arguments, folders)
    )
    if arguments.calibrated:
        predictor.use_calibration(Calibration.load(calibration_file(arguments.calibrated, folders)))
    return predictor.predict_from_files(
        arguments.i,
        arguments.o,
        save_probabilities=arguments.save_probabilities,
        overwrite=not arguments.continue_prediction,
        num_processes_preprocessing=arguments.npp,
        num_processes_segmentation_export=arguments.nps,
        folder_with_segs_from_prev_stage=arguments.prev_stage_predictions,
        num_parts=arguments.num_parts,
        part_id=arguments.part_id,
        maps=requested_maps(arguments.maps),
        map_type=arguments.map_dtype,
        save_members=arguments.save_members,
        arguments=recorded(arguments),
    )


def ensemble_options(arguments: argparse.Namespace, folders: Sequence[Path]) -> dict[str, Any]:
    """How the members are chosen, run and averaged, as `EnsembleEngine.from_model_folders` takes it."""
    return {
        "members": member_rule(arguments.members, arguments.chk),
        "device": arguments.device,
        "average": arguments.average,
        "weights": model_weights(arguments.weights, folders),
        "tta_members": arguments.tta_members,
        "trust_checkpoints": arguments.trust_checkpoints,
        "tile_step_size": arguments.step_size,
        "use_mirroring": not arguments.disable_tta,
        "allow_tqdm": not arguments.disable_progress_bar,
        "precision": arguments.precision,
        "early_exit": arguments.early_exit,
        "fast_resampling": arguments.fast_resampling,
    }


def calibration_file(chosen: str | bool | None, folders: Sequence[Path]) -> Path:
    """The file of a calibration: the chosen one, or `calibration.json` in the one model folder.

    Raises:
        ValueError: if there are several model folders and no file was chosen.
    """
    if isinstance(chosen, str):
        return Path(chosen)
    if len(folders) > 1:
        raise ValueError(
            f"An ensemble of several model folders needs a file of its own for its calibration; found {len(folders)} "
            f"folders and no file. Give one: calibrate -o FILE.json, then predict --calibrated FILE.json."
        )
    return folders[0] / FILE_NAME


def chosen_folds(texts: Sequence[str] | None) -> list[int | str] | None:
    """`-f` as numbers and "all"; None takes all that have members.

    Raises:
        ValueError: if a fold is something else.
    """
    if not texts:
        return None
    wrong = [text for text in texts if text != "all" and not text.isdecimal()]
    if wrong:
        raise ValueError(f"-f takes numbers of folds, or all; found {' '.join(wrong)}.")
    return [text if text == "all" else int(text) for text in texts]


def member_rule(members: str | None, checkpoint: str | None) -> str:
    """`--members`, or `-chk` as stock spells a file's name; "final" without either."""
    if members and checkpoint:
        raise ValueError(f"Members are chosen by --members or by -chk; found {members!r} and {checkpoint!r}.")
    return members or checkpoint or "final"


def model_weights(texts: Sequence[str] | None, folders: Sequence[Path]) -> list[float] | None:
    """`--weights` as numbers: given as such, or as one JSON file with a list or a folder-to-number table.

    Raises:
        ValueError: if it is neither.
    """
    if texts is None:
        return None
    if len(texts) == 1 and Path(texts[0]).is_file():
        content = json.loads(Path(texts[0]).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            missing = [str(folder) for folder in folders if str(folder) not in content]
            if missing:
                raise ValueError(f"{texts[0]} must have a weight for every -m folder; it lacks {', '.join(missing)}.")
            content = [content[str(folder)] for folder in folders]
        texts = content
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--weights must be numbers or a JSON file with numbers; found {texts}.") from error


def requested_maps(names: Sequence[str]) -> list[str]:
    """`--maps` without "none", which stands alone.

    Raises:
        ValueError: if "none" has company.
    """
    if "none" in names and len(names) > 1:
        raise ValueError(f"--maps none cannot be combined with other maps; found {' '.join(names)}.")
    return [name for name in dict.fromkeys(names) if name != "none"]


def prepare_process_for(device: str) -> None:
    """All cores and kept memory for a CPU; one core for a GPU, where threads do not help nnU-Net (as stock sets it).

    Raises:
        ValueError: if CUDA is asked for and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("-device cuda needs a CUDA device, and torch finds none. Use -device cpu.")
    torch.set_num_threads(usable_cores() if device == "cpu" else 1)
    if device == "cpu":
        keep_freed_memory()


def usable_cores() -> int:
    """Cores that this process may run on, which a batch system may have made fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def recorded(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags as they go into `predict_args.json`."""
    return {key: value for key, value in vars(arguments).items() if key not in ("run", "command")}
