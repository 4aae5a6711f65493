"""A case within a ceiling: the same bytes whatever is kept where, and refusals before the first member."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.risk_control import MaskThreshold
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.case_sums import SumOptions
from nnunet_ext.inference.accumulation.held_sums import HeldSums
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.memory_estimate import GIBIBYTE, CaseTooLargeError
from nnunet_ext.inference.memory_plan import MemoryPlan
from nnunet_ext.inference.transforms.flip import IDENTITY
from nnunet_ext.machine.available_memory import available_memory_bytes, free_memory_bytes, resident_bytes
from nnunet_ext.options import EnsembleOptions, OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import find_cases

MAPS = ("entropy", "mutual_information", "expected_entropy", "variance", "confidence")
PLANS = {"held": MemoryPlan(held=True), "on disk": MemoryPlan(held=True, on_disk=True)}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
TENTHS = tuple(number / 10 for number in range(11))

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what a process holds")


@dataclass(frozen=True)
class Always:
    """A planner that has decided already."""

    chosen: MemoryPlan

    def plan(self, *_: object) -> MemoryPlan:
        return self.chosen


def opened(folders: Path | Sequence[Path], **fields: Any) -> EnsembleEngine:
    return EnsembleEngine.from_model_folders(folders, device="cpu", allow_tqdm=False, **fields)


def predicted(engine: EnsembleEngine, images: Path, plan: MemoryPlan, **fields: Any) -> CasePrediction:
    engine.memory = Always(plan)  # type: ignore[assignment]
    outcome = engine.predict_from_files(images, None, **fields)
    assert outcome.failed == {}
    (case,) = outcome.predictions
    return case


def assert_same_bytes(one: CasePrediction, other: CasePrediction) -> None:
    np.testing.assert_array_equal(one.segmentation, other.segmentation)
    assert one.segmentation.dtype == other.segmentation.dtype
    assert str(one.row) == str(other.row)  # NaN as well
    for ours, others in ((one.maps, other.maps), (one.member_segmentations, other.member_segmentations)):
        assert list(ours) == list(others)
        for name, values in ours.items():
            np.testing.assert_array_equal(values, others[name], err_msg=name)
    if one.covering_mask is not None:
        np.testing.assert_array_equal(one.covering_mask, other.covering_mask)


def organs(classes: int) -> dict[str, int]:
    return {"background": 0, **{f"organ {number}": number for number in range(1, classes)}}


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    return make_image(tmp_path / "images", shape_zyx=(9, 41, 37))


@pytest.fixture
def deep(make_model_folder: Callable[..., Path]) -> Callable[..., Path]:
    """A 3D model of three folds, with a spacing to which images are resampled."""

    def make(name: str = "deep", **fields: Any) -> Path:
        return make_model_folder(
            name, configuration="3d_fullres", mirror_axes=(0, 1, 2), folds=(0, 1, 2), logit_scale=5.0, **fields
        )

    return make


# --- the same bytes ---


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(
    ("fields", "folds"),
    [
        ({}, (0, 1, 2)),
        ({}, (0,)),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, (0, 1, 2)),
        ({"transpose_forward": (1, 2, 0)}, (0, 1)),
    ],
    ids=["classes", "one member", "regions", "other axes"],
)
def test_everything_is_the_same(deep, images, plan, fields, folds):
    folder = deep(spacing_mm=(2.5, 1.7, 1.7), **fields)
    plain, ours = (
        predicted(opened(folder, folds=folds, tta="none"), images, each, maps=MAPS, save_members=True)
        for each in (MemoryPlan(), plan)
    )
    assert_same_bytes(ours, plain)


def test_members_that_do_not_see_every_voxel(make_model_folder, images):
    """Small rotations and scales count as members, each within its field of view."""
    folder = make_model_folder(patch_size=(16, 16), logit_scale=5.0)
    plain, ours = (
        predicted(opened(folder, tta="full", tta_members=True), images, each, maps=MAPS)
        for each in (MemoryPlan(), PLANS["on disk"])
    )
    assert len(opened(folder, tta="full", tta_members=True).passes[0]) > 4
    assert_same_bytes(ours, plain)


def test_a_calibration_that_describes_each_fold(deep, images):
    folder = deep()
    settings = opened(folder).settings
    calibration = Calibration(
        temperature=Temperature((1.7, 1.2, 1.5), False),
        confidence="pairwise_dice",
        quality=QualityMap(TENTHS, TENTHS, -0.1, 0.1, 0.9, 100, 50),
        threshold=Threshold(0.3, 0.2, 0.95, 0.2, 20, 100),
        mask=MaskThreshold(0.3, 0.1, 0.08, 40, 0),
        settings=settings,
        fitted_on={"members": []},
        figures={},
        cases=[],
    )
    plain, ours = (
        predicted(opened(folder, calibration=calibration), images, each, maps=("entropy", "confidence"))
        for each in (MemoryPlan(), PLANS["held"])
    )
    assert_same_bytes(ours, plain)


# --- which plan ---


def needs_of(engine: EnsembleEngine, images: Path, output: OutputOptions) -> Any:
    prepared = engine.prepare(find_cases(images, ".nii.gz")[0])
    return prepared, engine.memory.needs(CaseFrame(engine.models, prepared), output)


@pytest.fixture
def coarse(deep: Callable[..., Path], make_image: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A model at twice the spacing of an image; 20 classes."""
    return (
        deep(spacing_mm=(4.0, 4.0, 4.0), labels=organs(20)),
        make_image(tmp_path / "large", shape_zyx=(24, 160, 160), spacing_xyz=(2.0, 2.0, 2.0)),
    )


def test_the_fastest_plan_that_fits_is_taken(coarse):
    folder, images = coarse
    output = OutputOptions(maps=())
    engine = opened(folder, tta="none")
    prepared, needs = needs_of(engine, images, output)
    assert needs.on_disk < needs.held < needs.sums

    def plan_with(room_bytes: int) -> MemoryPlan:
        return engine.memory.fitting("c", prepared, output, room_bytes)

    assert plan_with(needs.sums) == MemoryPlan()
    assert plan_with(needs.held) == MemoryPlan(held=True)
    assert plan_with(needs.on_disk) == MemoryPlan(held=True, on_disk=True)
    with pytest.raises(CaseTooLargeError, match="A case must fit into memory") as refusal:
        plan_with(needs.on_disk - 1)
    assert "Use a machine or a job with more memory" in str(refusal.value)


@on_linux
@pytest.mark.parametrize(
    ("ensemble", "output", "named"),
    [
        ({"early_exit": "label"}, {}, "Leave out --early-exit"),
        ({"average": "logits"}, {}, "Leave out --average logits"),
        ({"fast_resampling": True}, {}, "Leave out --fast-resampling"),
        ({}, {"save_probabilities": True}, "Leave out --save_probabilities"),
    ],
)
def test_what_needs_the_sums_is_refused_by_name(coarse, ensemble, output, named):
    folder, images = coarse
    engine = opened(folder, tta="none", max_memory=(resident_bytes() / GIBIBYTE) + 0.05, **ensemble)
    outcome = engine.predict_from_files(images, None, OutputOptions(maps=(), **output))
    (message,) = outcome.failed.values()
    assert named in message
    assert "allow --max-memory" in message


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_the_limit_is_a_number_above_0(limit):
    with pytest.raises(ValueError, match="--max-memory must be a number of GiB above 0"):
        EnsembleOptions(max_memory=limit)


@on_linux
def test_only_the_case_that_is_too_large_fails(coarse, make_image, caplog):
    folder, images = coarse
    make_image(images, "small", shape_zyx=(8, 20, 20))
    limit = resident_bytes() / GIBIBYTE + 0.06
    outcome = opened(folder, tta="none", max_memory=limit).predict_from_files(images, None, save_probabilities=True)
    assert outcome.predicted == ["small"]
    assert "Leave out --save_probabilities, or allow --max-memory" in next(iter(outcome.failed.values()))
    assert "Traceback" not in caplog.text  # nothing is wrong with the program


def test_what_the_process_holds_is_not_free_for_a_case(coarse, tmp_path):
    """Of 10 parts the process holds 4. Sums need more than the 6 that are left, held logits just those."""
    folder, images = coarse
    engine, output = opened(folder, tta="none"), OutputOptions(maps=())
    prepared, needs = needs_of(engine, images, output)
    part = math.ceil(needs.held / 6 / 1024)  # KiB
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {6 * part} kB\n", encoding="utf-8")
    (tmp_path / "proc/self/status").write_text(f"VmRSS: {4 * part} kB\n", encoding="utf-8")
    assert needs.sums < available_memory_bytes(tmp_path) == 10 * part * 1024
    free_bytes = partial(free_memory_bytes, tmp_path)
    assert engine.memory.plan("c", prepared, output, free_bytes) == MemoryPlan(held=True)


@pytest.mark.parametrize(("before", "given_back"), [(0.5, 1), (1, 0)])
def test_freed_memory_that_the_process_keeps_is_given_back_where_a_case_needs_it(coarse, before, given_back):
    folder, images = coarse
    engine, output = opened(folder, tta="none"), OutputOptions(maps=())
    prepared, needs = needs_of(engine, images, output)
    free, calls = [int(before * needs.sums)], []

    def give_back() -> None:
        calls.append("given back")
        free[0] = needs.sums

    plan = engine.memory.plan("c", prepared, output, lambda: free[0], give_back)
    assert plan == MemoryPlan()
    assert len(calls) == given_back


def test_what_votes_count_is_kept_once_for_each_transform_that_interpolates(make_model_folder, images):
    """Two rotations and two scales of three folds: four volumes, wherever logits are. Sums have three at once."""
    folder = make_model_folder(patch_size=(16, 16), folds=(0, 1, 2))
    engine = opened(folder, tta="full", tta_members=True)
    assert len(engine.passes[0]) == 3 * (4 + 2 + 4)  # mirrored, turned by 90 degrees, interpolated
    (prepared,), needs = needs_of(engine, images, OutputOptions())
    frame = CaseFrame(engine.models, [prepared])
    seen = HeldSums(frame, engine.models[0].labels, SumOptions())
    logits = torch.zeros(3, *prepared.tiled.without_padding.shape[1:])
    for step in engine.passes[0]:
        seen.add(0, step, logits)
    views = [member.seen for member in seen._held if member.seen is not None]
    assert (len(views), len({view.data_ptr() for view in views})) == (3 * 4, 4)
    whole = replace(engine.memory, passes=[[replace(step, transforms=(IDENTITY,)) for step in engine.passes[0]]])
    without = whole.needs(frame, OutputOptions())
    volume = 4 * math.prod(frame.box_shape)
    assert needs.held - without.held == needs.on_disk - without.on_disk == 4 * volume
    assert needs.sums - without.sums == 3 * volume


# --- the ceiling holds ---

PEAK = """
import sys, torch
from pathlib import Path
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.machine.available_memory import resident_bytes
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.options import EnsembleOptions, OutputOptions

torch.set_num_threads(1)
prepare_process_for(torch.device("cpu"))
limit = resident_bytes() / 2**30 + 0.4
options = EnsembleOptions(device="cpu", allow_tqdm=False, tta="none", tile_step_size=1, max_memory=limit)
engine = EnsembleEngine.from_model_folders(sys.argv[1], options)
outcome = engine.predict_from_files(sys.argv[2], None, OutputOptions(maps=()))
assert not outcome.failed, outcome.failed
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 2**20, limit)
"""


@on_linux
def test_the_peak_of_the_process_stays_below_the_limit(make_model_folder, make_image, tmp_path):
    """The sums of 100 classes at 40 x 176 x 176 alone take 0.46 GiB; 0.4 are allowed for everything."""
    folder = make_model_folder(
        "many", configuration="3d_fullres", folds=(0, 1), labels=organs(100), spacing_mm=(4.0, 4.0, 4.0)
    )
    images = make_image(tmp_path / "images", "c0", shape_zyx=(40, 176, 176), spacing_xyz=(1.0, 1.0, 1.0))
    command = [sys.executable, "-c", PEAK, str(folder), str(images)]
    peak, limit = (float(word) for word in subprocess.check_output(command, text=True).split())
    assert peak < limit


# --- what is not known, or not there ---


def test_a_system_that_does_not_say_what_is_free_is_tried(coarse):
    folder, images = coarse
    engine = opened(folder, tta="none")
    prepared, _ = needs_of(engine, images, OutputOptions(maps=()))
    assert engine.memory.fitting("c", prepared, OutputOptions(maps=()), None) == MemoryPlan()


def test_a_disk_that_is_too_small_is_named_with_what_helps(coarse):
    folder, images = coarse
    output = OutputOptions(maps=())
    engine = opened(folder, tta="none")
    prepared, needs = needs_of(engine, images, output)
    room = (needs.on_disk + needs.held) // 2
    with pytest.raises(CaseTooLargeError, match="must fit on the disk") as refusal:
        engine.memory.fitting("c", prepared, output, room, free_disk=needs.disk - 1)
    assert "Set TMPDIR to a folder on a larger disk" in str(refusal.value)
    assert engine.memory.fitting("c", prepared, output, room, free_disk=needs.disk).on_disk
