"""The stage that post-processes the segmentation, before it is described."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.postprocessing.chain import FILE_NAME, PostProcessing
from nnunet_ext.postprocessing.step import SegmentedCase
from nnunet_ext.postprocessing.stock_file import is_stock_file, read_stock_steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Postprocess:
    """Replaces the segmentation by the post-processed one; row and verdict then describe what is written.

    Probabilities, maps and the members' own segmentations are unchanged. So where a label changed, it is no longer
    that of the largest probability.

    Attributes:
        chosen: the steps.
    """

    chosen: PostProcessing

    def __call__(self, result: CaseResult) -> CaseResult:
        """The result with the post-processed segmentation."""
        probabilities = result.all_probabilities().cpu().numpy() if self.chosen.needs_probabilities else None
        case = SegmentedCase(result.segmentation, result.frame.properties["spacing"], probabilities)
        return replace(result, segmentation=self.chosen.apply(case))


def postprocess_stage(
    chosen: Path | Literal[True] | None, folders: Sequence[Path], dataset_json: Mapping[str, Any]
) -> Postprocess | None:
    """The stage of an ensemble; None without post-processing.

    Args:
        chosen: see `EnsembleOptions.postprocess`.
        folders: the model folders.
        dataset_json: of the first model.

    Raises:
        PostProcessingError: if the file is missing, damaged, or for other labels.
        ValueError: if there are several model folders and no file was chosen.
    """
    if chosen is None:
        return None
    file = postprocessing_file(chosen, folders)
    found = PostProcessing(read_stock_steps(file)) if is_stock_file(file) else PostProcessing.load(file)
    found.require_labels(dataset_json)
    return Postprocess(found)


def postprocessing_file(chosen: Path | Literal[True], folders: Sequence[Path]) -> Path:
    """The chosen file, or `postprocess.json` in the one model folder.

    Raises:
        ValueError: if there are several model folders and no file was chosen.
    """
    if isinstance(chosen, Path):
        return chosen
    if len(folders) > 1:
        raise ValueError(
            f"The post-processing of several model folders needs a file name; found {len(folders)} folders and no "
            f"file. Give one: postprocess -o FILE.json, then predict --postprocess FILE.json."
        )
    return folders[0] / FILE_NAME


def warn_of_other_ensemble(stage: Postprocess | None, settings: Mapping[str, Any]) -> None:
    """Warns if the steps were chosen on predictions of an ensemble that was put together differently."""
    fitted = {} if stage is None else stage.chosen.settings
    differing = [name for name, value in fitted.items() if settings.get(name) != value]
    if differing:
        logger.warning(
            "The post-processing was chosen for an ensemble with other settings (%s). Run nnunet_ext postprocess "
            "with these flags.",
            "; ".join(f"{name}: {fitted[name]!r} there, {settings.get(name)!r} here" for name in differing),
        )
