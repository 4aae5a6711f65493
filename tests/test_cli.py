"""The command line: help, exit statuses, and flags that contradict each other. No network runs here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nnunet_ext
from nnunet_ext import discovery
from nnunet_ext.cli import COMMANDS, build_parser, main
from nnunet_ext.cli.ensemble_flags import member_rule
from nnunet_ext.cli.model_flags import model_choice
from nnunet_ext.cli.predict import predict_options, requested_maps
from nnunet_ext.cli.weights_flag import model_weights
from nnunet_ext.doctor import Diagnosis
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import AdaptOptions, EnsembleOptions, ModelChoice, OutputOptions, PredictOptions, recorded

SUBCOMMANDS = [command.name for command in COMMANDS]


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts back what `nnunet_ext train` sets for nnU-Net."""
    monkeypatch.setattr(sys, "argv", ["nnunet_ext"])
    monkeypatch.setenv(discovery.VARIABLE, "elsewhere")
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")


def exit_status(*arguments: str) -> int:
    """Of a call that leaves by argparse."""
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    return int(leaving.value.code or 0)


# --- help and overview ---


def test_the_overview_names_every_subcommand(capsys):
    assert exit_status("--help") == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in text
        assert command.summary[:30] in text


@pytest.mark.parametrize("name", SUBCOMMANDS)
@pytest.mark.usefixtures("as_before")
def test_help_of_every_subcommand_shows_an_example(name, capsys):
    assert exit_status(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"$ nnunet_ext {name}" in text


@pytest.mark.usefixtures("as_before")
def test_help_of_train_has_the_flags_of_nnunet(capsys):
    assert exit_status("train", "--help") == 0
    text = capsys.readouterr().out
    assert "nnUNetv2_train" in text
    assert "--val_best" in text
    assert os.environ[discovery.VARIABLE].split(os.pathsep) == ["elsewhere", discovery.path()]


def test_the_version_is_told(capsys):
    assert exit_status("--version") == 0
    assert capsys.readouterr().out.strip() == f"nnunet_ext {nnunet_ext.__version__}"


@pytest.mark.parametrize("arguments", [[], ["prediction"], ["predict"], ["env", "--shell", "fish"]])
def test_a_command_line_that_cannot_be_read_has_status_2(arguments, capsys):
    assert exit_status(*arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_importing_the_command_imports_no_torch():
    code = (
        "import sys, nnunet_ext.cli as cli; cli.build_parser(); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["False", "False"]


def test_the_installed_program_and_the_module_are_the_same_command():
    finished = subprocess.run(
        [sys.executable, "-m", "nnunet_ext", "env", "--shell", "sh"], capture_output=True, text=True, check=True
    )
    assert discovery.path() in finished.stdout


# --- env ---


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", 'export nnUNet_extTrainer="{}"'),
        ("powershell", '$env:nnUNet_extTrainer = "{}"'),
        ("cmd", 'set "nnUNet_extTrainer={}"'),
    ],
)
def test_env_prints_the_line_of_each_shell(shell, line, capsys, monkeypatch):
    monkeypatch.delenv(discovery.VARIABLE, raising=False)
    assert main(["env", "--shell", shell]) == 0
    folder = str(Path(nnunet_ext.__file__).parent / "discovery")
    assert capsys.readouterr().out == line.format(folder) + "\n"


def test_env_keeps_the_folders_that_are_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(discovery.VARIABLE, str(tmp_path))
    assert main(["env", "--shell", "sh"]) == 0
    assert f'"{tmp_path}{os.pathsep}{discovery.path()}"' in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_the_line_of_sh_sets_the_variable(capsys, monkeypatch):
    monkeypatch.delenv(discovery.VARIABLE, raising=False)
    main(["env", "--shell", "sh"])
    script = capsys.readouterr().out + f'printf "%s" "${discovery.VARIABLE}"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == discovery.path()


# --- trainers and doctor ---


def test_trainers_prints_every_part_and_an_example_below_it(capsys):
    assert main(["trainers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines[: lines.index("")] if line.startswith(" ")]
    parts, examples = table[::2], table[1::2]
    assert all(example.strip().startswith("-tr nnUNetTrainer") for example in examples)
    [cyclical] = [part for part in parts if part.split()[0] == "Cyclical"]
    assert "three learning-rate cycles" in cyclical
    assert cyclical.endswith("(arXiv 2212.06278)")
    assert not any("posterior" in part.split()[0] for part in parts)  # internal
    assert max(map(len, table)) <= 130
    assert [line for line in lines if line.endswith(":")][:3] == ["length:", "seed:", "schedule:"]


@pytest.mark.parametrize(("remedy", "status"), [("", 0), ("mend it", 1)])
def test_doctor_has_status_1_if_something_is_wrong(remedy, status, capsys, monkeypatch):
    monkeypatch.setattr(
        "nnunet_ext.doctor.examine", lambda: [Diagnosis("python", "3.12"), Diagnosis("x", "y", remedy)]
    )
    assert main(["doctor"]) == status
    assert capsys.readouterr().out.startswith("ok       python")


# --- predict: exit statuses ---


def flags(*more: str, out: str = "out") -> list[str]:
    return ["predict", "-i", "images", "-o", out, "-device", "cpu", *more]


@pytest.mark.parametrize(
    ("report", "status", "line"),
    [
        (RunOutcome(predicted=["a", "b"]), 0, "2 predicted, 0 failed: out"),
        (RunOutcome(predicted=["a"], skipped=["b"]), 0, "1 predicted, 1 complete before, 0 failed: out"),
        (RunOutcome(predicted=["a"], failed={"b": "is cut"}), 1, "1 predicted, 1 failed: out"),
    ],
)
def test_predict_has_status_0_only_if_every_case_was_predicted(report, status, line, capsys, monkeypatch):
    monkeypatch.setattr("nnunet_ext.commands.predict.predict_folder", lambda arguments: report)
    assert main(flags("-m", "model")) == status
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == [line]  # below where the networks ran
    assert printed.err.strip() == ("b: is cut" if status else "")


def refusal(capsys: Any, *more: str) -> str:
    """The message of a run that is refused."""
    assert main(flags(*more)) == 1
    message = capsys.readouterr().err
    assert message.startswith("nnunet_ext predict: ")
    return message


def test_a_folder_that_is_no_model_is_named(capsys, tmp_path):
    message = refusal(capsys, "-m", str(tmp_path))
    assert str(tmp_path / "plans.json") in message
    assert "does not exist" in message


def test_cuda_without_a_gpu_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*flags("-m", "model"), "-device", "cuda"]) == 1
    assert "-device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["predict", "-i", "images", "-o", "out"], ["calibrate"]])
def test_without_a_device_the_command_takes_what_is_there_and_says_so(command, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert main([*command, "-m", "no model"]) == 1
    assert capsys.readouterr().out == "on the CPU: PyTorch finds no GPU\n"


@pytest.mark.parametrize("dataset", ["27", "Dataset027_ACDC"])
def test_a_dataset_that_cannot_be_found_is_refused_without_a_traceback(dataset, capsys, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    assert "nnUNet_results" in refusal(capsys, "-d", dataset, "-c", "2d")


# --- predict: flags ---


def options_of(*more: str) -> PredictOptions:
    return predict_options(build_parser().parse_args(flags(*more)))


def test_without_flags_the_options_have_their_defaults():
    assert options_of("-m", "a") == PredictOptions(
        images=Path("images"),
        results=Path("out"),
        model=ModelChoice(folders=(Path("a"),)),
        ensemble=EnsembleOptions(device="cpu"),
        output=OutputOptions(maps=["entropy"]),
    )


@pytest.mark.parametrize(
    ("flags", "tta"),
    [("", "flips"), ("--tta full", "full"), ("--tta none", "none"), ("--disable_tta", "none"),
     ("--tta none --disable_tta", "none")],
)  # fmt: skip
def test_stocks_flag_is_the_set_without_transforms(flags, tta):
    assert options_of("-m", "a", *flags.split()).ensemble.tta == tta


def test_stocks_flag_contradicts_another_set():
    with pytest.raises(ValueError, match="--disable_tta is --tta none; found it together with --tta rot90"):
        options_of("-m", "a", "--tta", "rot90", "--disable_tta")


def test_every_flag_becomes_an_option():
    more = "-f 0 all --members samples:3 --weights 2 1 --tta-members --disable_tta -step_size 0.75 --precision fp32"
    more += " --trust-checkpoints --maps variance --save_probabilities --save_members -npp 0 -nps 0"
    more += " --continue_prediction -prev_stage_predictions low -num_parts 3 -part_id 2 --disable_progress_bar"
    more += " --early-exit --fast-resampling --map-dtype uint8 --calibrated fit.json"
    assert options_of("-m", "a", "-m", "b", *more.split()) == PredictOptions(
        images=Path("images"),
        results=Path("out"),
        model=ModelChoice(folders=(Path("a"), Path("b"))),
        ensemble=EnsembleOptions(
            folds=[0, "all"],
            members="samples:3",
            device="cpu",
            model_weights=[2, 1],
            tta_members=True,
            trust_checkpoints=True,
            tile_step_size=0.75,
            tta="none",
            precision="fp32",
            early_exit="label",
            fast_resampling=True,
            allow_tqdm=False,
        ),
        output=OutputOptions(
            maps=["variance"],
            map_type="uint8",
            save_probabilities=True,
            save_members=True,
            continue_prediction=True,
            previous_stage=Path("low"),
            num_parts=3,
            part_id=2,
            prepare_ahead=False,
            write_behind=False,
        ),
        calibration=Path("fit.json"),
    )
    assert options_of("-m", "a", "--average", "logits").ensemble.average == "logits"
    assert options_of("-m", "a", "--adapt").ensemble.adapt == AdaptOptions()
    assert options_of("-m", "a", "--calibrated").calibration is True


def test_the_options_are_recorded_on_one_level_under_the_names_of_their_flags():
    content = json.loads(
        json.dumps(recorded(options_of("-m", "a", "-step_size", "0.75", "--calibrated")), default=str)
    )
    here = Path.cwd()  # paths can be followed from any folder
    assert (content["i"], content["o"], content["calibrated"]) == (str(here / "images"), str(here / "out"), True)
    assert (content["tile_step_size"], content["maps"], content["folders"]) == (0.75, ["entropy"], [str(here / "a")])
    assert not any(isinstance(value, dict) for value in content.values())


@pytest.mark.parametrize("flag", ["--early-exit", "--fast-resampling"])
def test_what_needs_the_mean_of_probabilities_is_refused_with_averaged_logits(flag):
    with pytest.raises(ValueError, match=f"averaged logits. Leave out {flag} or --average logits"):
        options_of("-m", "a", "--average", "logits", flag)


# --- predict: flags that contradict each other ---


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="no model at all"),
        pytest.param(["-m", "model", "-d", "27", "-c", "2d"], id="both ways"),
        pytest.param(["-m", "model", "-c", "2d"], id="a folder and a configuration"),
        pytest.param(["-d", "27"], id="no configuration"),
        pytest.param(["-c", "2d"], id="no dataset"),
    ],
)
def test_the_model_is_named_in_one_of_two_ways(capsys, more):
    assert "either by -m FOLDER or by -d DATASET and -c CONFIGURATION" in refusal(capsys, *more)


def test_members_and_checkpoint_are_the_same_flag_twice(capsys):
    message = refusal(capsys, "-m", "model", "--members", "samples", "-chk", "checkpoint_best.pth")
    assert "--members or by -chk" in message


@pytest.mark.parametrize(
    ("members", "checkpoint", "rule"),
    [
        (None, None, "final"),
        ("samples:30", None, "samples:30"),
        (None, "checkpoint_best.pth", "checkpoint_best.pth"),
    ],
)
def test_the_rule_for_members(members, checkpoint, rule):
    assert member_rule(members, checkpoint) == rule


def test_maps_none_stands_alone():
    assert requested_maps(["none"]) == []
    assert requested_maps(["entropy", "variance", "entropy"]) == ["entropy", "variance"]
    with pytest.raises(ValueError, match="none cannot be combined"):
        requested_maps(["none", "entropy"])


def test_an_unknown_map_is_refused_by_the_parser(capsys):
    assert exit_status(*flags("-m", "model", "--maps", "sharpness")) == 2
    assert "mutual_information" in capsys.readouterr().err


def test_a_dataset_leads_to_the_folder_of_stock_nnunet(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    choice = ModelChoice(dataset="Dataset027_ACDC", configuration="2d")
    assert chosen_model_folders(choice) == [tmp_path / "Dataset027_ACDC" / "nnUNetTrainer__nnUNetPlans__2d"]


def test_several_model_folders_are_given_one_by_one():
    parsed = build_parser().parse_args(flags("-m", "a", "-m", "b", "--weights", "1", "2"))
    assert chosen_model_folders(model_choice(parsed)) == [Path.cwd() / "a", Path.cwd() / "b"]
    assert model_weights(parsed.weights, ["a", "b"]) == [1, 2]


@pytest.mark.parametrize(
    "content", [[0.25, 0.75], {"b": 0.75, "a": 0.25}], ids=["in the order of -m", "by the name of the folder"]
)
def test_weights_may_come_from_a_file(content, tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert model_weights([str(file)], ["a", "b"]) == [0.25, 0.75]


def test_weights_that_are_missing_or_no_numbers_are_refused(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"a": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks b"):
        model_weights([str(file)], ["a", "b"])
    with pytest.raises(ValueError, match="must be numbers"):
        model_weights(["nowhere.json"], ["a"])
    assert model_weights(None, ["a"]) is None


# --- patterns ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["calibrate", "-m", "nowhere", "-device", "cpu"],
        ["evaluate", "nowhere", "nowhere"],
        ["compare", "nowhere", "elsewhere"],
        ["splits", "-d", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_pattern_of_patients_is_checked_before_any_work(arguments, capsys):
    assert main([*arguments, "--patients", "(patient"]) == 1
    assert "must be a regular expression" in capsys.readouterr().err


# --- near misses ---


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--device", "-device"), ("--save-probabilities", "--save_probabilities"), ("--disable-tta", "--disable_tta"),
     ("--step-size", "-step_size")],
)  # fmt: skip
def test_a_flag_that_is_nearly_right_is_answered_with_the_one_that_was_meant(flag, meant, capsys):
    assert exit_status(*flags("-m", "model", flag, "cpu")) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: nnunet_ext predict")
    assert f"Did you mean {meant}" in error


def test_a_flag_that_resembles_nothing_gets_no_hint(capsys):
    assert exit_status(*flags("-m", "model", "--xyzzy")) == 2
    assert "Did you mean" not in capsys.readouterr().err
