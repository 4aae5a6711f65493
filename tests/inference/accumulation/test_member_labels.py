"""Members' segmentations: kept cropped, and fetched from a GPU without its waiting.

Tensors on torch's device "meta" have a shape and no values, so whatever would wait for a GPU's values raises there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.accumulation.member_labels import MOST_ON_THE_WAY, MemberLabels
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.sliding_window import sliding_window_logits
from nnunet_ext.prediction_folder.cases import Case

NO_VALUES = torch.device("meta")
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}


def test_a_single_member_is_also_kept_whole_until_a_second_comes():
    labels = MemberLabels()
    labels.add("first", torch.tensor([[0, 0, 0], [0, 2, 1]], dtype=torch.uint8))
    assert labels.only.tolist() == [[0, 0, 0], [0, 2, 1]]
    labels.add("second", torch.zeros(2, 3, dtype=torch.uint8))
    assert labels.only is None
    first, second = labels.cropped
    assert (first.start, first.labels.tolist()) == ((1, 1), [[2, 1]])
    assert second.labels.size == 0
    assert labels.whole == {}


def test_whole_segmentations_are_kept_on_request_and_with_those_that_are_no_member():
    labels = MemberLabels(embed=lambda box: np.pad(box, 1))
    labels.add("member", torch.ones(1, 1, dtype=torch.uint8))
    labels.keep_whole("its first classifier", torch.zeros(1, 1, dtype=torch.uint8))
    assert labels.whole["member"].sum() == 1
    assert {name: whole.shape for name, whole in labels.whole.items()} == {
        "member": (3, 3),
        "its first classifier": (3, 3),
    }
    assert len(labels.cropped) == 1


def test_more_labels_than_a_byte_holds_are_written_in_two():
    labels = MemberLabels()
    labels.add("member", torch.full((1, 1), 300, dtype=torch.int16))
    assert labels.only.dtype == np.uint16
    assert labels.only.item() == 300


@pytest.mark.parametrize("fast_resampling", [False, True])
@pytest.mark.parametrize(
    "description",
    [
        {},
        {
            "configuration": "3d_fullres",
            "mirror_axes": (0, 1, 2),
            "spacing_mm": (3, 1.5, 1),
            "transpose_forward": (1, 0, 2),
        },
        REGIONS,
    ],
    ids=["2d", "3d, resampled", "regions"],
)
def test_members_are_summed_up_without_a_wait_for_their_values(
    make_model_folder, make_image, tmp_path, description, fast_resampling
):
    """Not before the third member, by when the labels of the first have come."""
    engine = EnsembleEngine.from_model_folders(
        [make_model_folder(folds=(0, 1, 2), **description)], device="cpu", allow_tqdm=False
    )
    files = tuple(make_image(tmp_path / "images", "a").iterdir())
    (prepared,) = engine.prepare(Case("a", files))
    frame = CaseFrame(engine.models, [replace(prepared, tiled=prepared.tiled.to(NO_VALUES))])
    labels = engine.models[0].labels
    sums = CaseSums(frame, labels, SumOptions(with_variance=True, fast_resampling=fast_resampling))

    def run(patches):
        return patches.new_empty((len(patches), labels.num_segmentation_heads, *patches.shape[2:]))

    *first, last = engine.passes[0]
    assert len(first) == MOST_ON_THE_WAY
    for step in first:
        sums.add(
            0, step, sliding_window_logits(run, frame.prepared[0].tiled, step.transforms, batch_size=BatchSize(4))
        )
        sums.settle(weight_left=1.0)
    logits = sliding_window_logits(run, frame.prepared[0].tiled, last.transforms, batch_size=BatchSize(4))
    with pytest.raises(NotImplementedError, match="meta"):
        sums.add(0, last, logits)
    assert sums.moments.members == 3
