"""`nnunet_ext trainers --cost`, from flags to the table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.cli import main
from nnunet_ext.commands.trainer_costs import cost_of

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 2]],
        "n_conv_per_stage": [1] * 3,
        "n_conv_per_stage_decoder": [1] * 2,
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    },
    "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
}
PLANS = {
    "dataset_name": "Dataset996_Hearts",
    "plans_name": "nnUNetPlans",
    "label_manager": "LabelManager",
    "configurations": {"2d": {"patch_size": [32, 32], "architecture": ARCHITECTURE}},
}
DATASET = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}

# By hand: convolutions 9 * 1 * 4 + 4 = 40, 9 * 4 * 8 + 8 = 296 and 9 * 8 * 8 + 8 = 584; transposed ones
# 4 * 8 * 8 + 8 = 264 and 4 * 8 * 4 + 4 = 132; decoder 9 * 16 * 8 + 8 = 1160 and 9 * 8 * 4 + 4 = 292; norms of 4, 8,
# 8, 8 and 4 channels 2 * 32 = 64; outputs for deep supervision 2 * (8 + 1) + 2 * (4 + 1) = 28.
PARAMETERS = 40 + 296 + 584 + 264 + 132 + 1160 + 292 + 64 + 28
# Twice the weights of each convolution for each of the 1024, 256 or 64 positions of its output (a transposed one: of
# its input), and of the one output at full resolution.
OPERATIONS = 2 * (1024 * 36 + 256 * 288 + 64 * 576 + 64 * 256 + 256 * 1152 + 256 * 128 + 1024 * 288 + 1024 * 8)


@pytest.fixture
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Runs the command for a planned dataset; returns its exit status, the rows of the table, and the messages."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / "nnUNet_preprocessed" / PLANS["dataset_name"]
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))

    def run(*flags: str) -> tuple[int, list[list[str]], str]:
        status = main(["trainers", "--cost", *flags])
        printed = capsys.readouterr()
        return status, [line.split() for line in printed.out.splitlines()], printed.out + printed.err

    return run


def test_parameters_and_operations_are_those_of_a_sum_by_hand(costs):
    # the table has operations in units of 10^9 with one digit; two classifiers cost twice as much
    status, rows, _ = costs("-d", "996", "-c", "2d", "-tr", "nnUNetTrainer", "nnUNetTrainerStreaming")
    assert status == 0
    assert rows[1][:4] == ["nnUNetTrainer", f"{PARAMETERS:,}", "x", "1.00"]
    assert rows[2] == ["nnUNetTrainerStreaming", f"{2 * PARAMETERS:,}", "x", "2.00", "0.0", "x", "2.00"]


def test_operations_of_the_planned_network_by_hand():
    found = cost_of("nnUNetTrainer", PlansManager(PLANS), "2d", DATASET).cost
    assert (found.parameters, found.operations) == (PARAMETERS, OPERATIONS)


def test_every_part_that_changes_the_network_has_a_row_and_reasons_stand_below(costs):
    status, rows, printed = costs("-d", "996", "-c", "2d")
    assert status == 0
    names = [row[0] for row in rows]
    assert {"nnUNetTrainerDeepLab", "nnUNetTrainerVNet", "nnUNetTrainerMCDropout"} <= set(names)
    assert ["nnUNetTrainerSwinUNETR", "-", "-"] in rows
    assert "nnUNetTrainerSwinUNETR: SwinUNETR reduces every axis by 32" in printed


def test_a_named_trainer_that_cannot_be_built_has_status_1(costs):
    status, _, printed = costs("-d", "996", "-c", "2d", "-tr", "nnUNetTrainer_DSD_MAE")
    assert status == 1
    assert "DSD and MAE both set what the network returns in training" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-d", "996", "-c", "3d_fullres"], "-c must be a configuration of .*: 2d; found '3d_fullres'"),
        (["-d", "996", "-c", "2d", "-p", "Other"], "Other.json does not exist. Run nnUNetv2_plan_and_preprocess"),
        (["-d", "996"], "--cost needs -d DATASET and -c CONFIG"),
    ],
)
def test_what_cannot_be_counted_is_refused(costs, flags, message):
    status, _, printed = costs(*flags)
    assert status == 1
    assert re.search(message, printed)


def test_flags_of_costs_without_the_flag_are_refused(capsys):
    assert main(["trainers", "-d", "4"]) == 1
    assert "Add --cost" in capsys.readouterr().err
