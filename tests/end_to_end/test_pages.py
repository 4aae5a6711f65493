"""Every command of README, of getting started and of the how-to pages runs, as it stands on the page.

The pages are about dataset 123 with five folds and long trainings. Here it is a phantom of six cases, the networks
are tiny, and the tables below are all that is changed in what a page says. A training that stands on several pages
runs once.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from unittest import mock

import pytest
from conftest import nnunet_in_this_process
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from readers_desk import make_heart, set_desk
from shell_blocks import Call, blocks_to_run, code_blocks, run_in_bash
from tiny_datasets import Dataset

from nnunet_ext import cli, discovery
from nnunet_ext.cli.train import train_options
from nnunet_ext.commands.train import trainings

ROOT = Path(__file__).parent.parent.parent
PATHS = [ROOT / "README.md", ROOT / "docs" / "getting-started.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}

# What a page says, and what it is called with here.
LENGTHS = {"Cyclical": "_3epochs_1iters", "": "_1epochs_1iters"}  # of trainers whose name holds the word
OTHER_WORDS = {
    "990": "123",
    "-f 0 1 2 3 4": "-f 0 1",
    "-p nnUNetPlansSmall": "-p nnUNetPlans",
    "1:3 2:2 3:1": "1:2 2:1",  # the phantom has two labels
}
OTHER_TEXT = {"Dataset990_PhantomHeart": "Dataset123_Heart"}

# Programs that are not run, and why.
NOT_RUN = {
    "pip": "downloads packages; CI installs this one",
    "python3": "makes an environment",
    "make": "demo, test and lint; CI runs them",
    "lint-imports": "checks the package itself; CI runs it",
    "deptry": "checks the package itself; CI runs it",
    "git": "downloads",
    "sbatch": "needs a cluster with SLURM",
    "apptainer": "needs a container",
    "docker": "needs a container",
    "openssl": "makes a random token",
    "curl": "asks a server, which no page leaves running",
    "unzip": "unpacks what the server answers",
    "id": "gives a container the number of its user",
    "nnUNetv2_plan_and_preprocess": "was done, with plans for tiny networks, by the fixture `heart`",
    "nnUNetv2_find_best_configuration": "is nnU-Net's alone, and wants five folds",
    "nnUNetv2_apply_postprocessing": "is nnU-Net's alone, and wants what the one above writes",
}
NOT_RUN_CALLS = {
    ("nnunet_ext", "demo"): "takes minutes; `make demo` runs it",
    ("nnunet_ext", "serve"): "runs until it is stopped; its own tests do both",
    ("python", "predict.py"): "runs on another machine; its own tests run it",
    ("python", "-m"): "pip, and the checks of the package itself; CI runs them",
}
NOT_RUN_FLAGS = {
    "--submit": "needs a cluster with SLURM; its own tests submit to this machine",
    "--cluster": "needs a Ray cluster; its own tests start one",
}
ONCE = {"nnUNetv2_train", "train"}  # what they write lies in nnU-Net's folders, for all pages

pytestmark = pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="the pages' commands are of bash")


@pytest.fixture(scope="module")
def heart(variables, plan_here, train_here) -> Dataset:
    return make_heart(variables, plan_here, train_here)


@pytest.fixture(scope="module")
def earlier(heart, run_here, predict_here, tmp_path_factory) -> Path:
    """Results and an evaluation from before; the 3D model is calibrated, as a page does it that others build on."""
    folder = tmp_path_factory.mktemp("earlier")
    model = heart.model("nnUNetTrainer", "3d_fullres")
    assert run_here("calibrate", "-m", model, "-device", "cpu", "--patients", r"(patient\d+)_") == 0
    results = predict_here(heart.images, folder / "results", "-m", model)
    assert run_here("evaluate", heart.raw / "labelsTs", results, "-o", folder / "evaluation", "-np", 1) == 0
    return folder


@pytest.fixture
def desk(heart, variables, earlier, tmp_path) -> Path:
    """Where the reader of a page stands; trainers that pages have them write are in `home/my_trainers`."""
    set_desk(tmp_path, heart, variables, earlier)
    trainers = tmp_path / "home" / "my_trainers"
    trainers.mkdir()
    for language, code in (block for page in PAGES.values() for block in code_blocks(page)):
        if language == "python" and (name := re.search(r"^class (nnUNetTrainer\w+)", code, flags=re.MULTILINE)):
            (trainers / f"{name[1]}.py").write_text(shortened(code), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def program(variables) -> Callable[[Call], tuple[int, str]]:
    """Runs a call of a page; a training that was run before is not run again."""
    done: dict[tuple[str, ...], tuple[int, str]] = {}

    def run(call: Call) -> tuple[int, str]:
        words = called_here(call.words)
        if words[0] in NOT_RUN or words[:2] in NOT_RUN_CALLS or NOT_RUN_FLAGS.keys() & {*words}:
            return 0, ""
        if ONCE.isdisjoint(words[:2]):
            return run_in_this_process(words, call, variables)
        if words not in done:
            done[words] = run_in_this_process(words, call, variables)
        return done[words]

    return run


def called_here(words: tuple[str, ...]) -> tuple[str, ...]:
    """A call of a page with the tables' words."""
    line = "\0".join(["", *words, ""])
    for phrase, other in OTHER_WORDS.items():
        line = line.replace(*("\0".join(["", *text.split(), ""]) for text in (phrase, other)))
    for text, other in OTHER_TEXT.items():
        line = line.replace(text, other)
    return tuple(shortened(line).split("\0")[1:-1])


def shortened(text: str) -> str:
    """Words or code with the trainings in them as short as a test needs."""
    return re.sub(r"nnUNetTrainer(?!HalfSamples)(?:[A-Za-z0-9]|_(?!_))+", lambda name: with_length(name[0]), text)


def with_length(trainer: str) -> str:
    length = next(length for word, length in LENGTHS.items() if word in trainer)
    return re.sub(r"_\d+(epochs|iters)", "", trainer) + length


def run_in_this_process(words: tuple[str, ...], call: Call, variables: dict[str, str]) -> tuple[int, str]:
    """Exit status and what was printed; an error that a program does not answer fails the test."""
    program, *arguments = words
    own = {name: call.variables[name] for name in (discovery.VARIABLE,) if name in call.variables}
    output = io.StringIO()
    with standing_in(call.folder), nnunet_in_this_process(variables | own, trainers=False), redirect_stdout(output):
        try:
            status = RUN[program](arguments, call.script)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else bool(end.code)
    return int(status), output.getvalue()


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """`contextlib.chdir`, which Python 3.10 lacks."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_own(arguments: list[str], _script: str) -> int:
    if arguments[0] == "train":
        each = trainings(train_options(arguments[1:], members=None))
        return max(run_train([*training.words[1:]], "") for training in each)
    if arguments[0] == "splits" and "--check" not in arguments:
        return before_training(lambda: cli.main(arguments))
    in_line = {"evaluate": ["-np", "1"], "report": ["-np", "1"], "pretrain": ["-npp", "1"]}
    return cli.main([*arguments, *in_line.get(arguments[0], [])])


def before_training(run: Callable[[], int]) -> int:
    """Runs what writes splits where there are none yet."""
    (splits,) = Path(os.environ["nnUNet_preprocessed"]).glob("Dataset123_*/splits_final.json")  # noqa: SIM112
    content = splits.read_bytes()
    splits.unlink()
    status = run()
    splits.write_bytes(content)
    return status


def run_train(arguments: list[str], _script: str) -> int:
    """`nnUNetv2_train` without its final validation, which predicts cases for seconds."""
    with mock.patch.object(nnUNetTrainer, "perform_actual_validation"):
        return run_stock("nnUNetv2_train", *arguments, "-device", "cpu")


def run_predict(arguments: list[str], _script: str) -> int:
    """`nnUNetv2_predict` in line."""
    return run_stock("nnUNetv2_predict", *arguments, "-device", "cpu", "-npp", "0", "-nps", "0")


def run_evaluate(arguments: list[str], _script: str) -> int:
    return run_stock("nnUNetv2_evaluate_folder", *arguments, "-np", "1")


def run_stock(program: str, *arguments: str) -> int:
    (entry,) = entry_points(group="console_scripts", name=program)
    sys.argv = [program, *arguments]  # as it was after `nnunet_in_this_process`
    entry.load()()
    return 0


def run_python(arguments: list[str], script: str) -> int:
    """`python -c CODE` and `python -` with the code behind it."""
    exec(arguments[1] if arguments[0] == "-c" else script, {"__name__": "__main__"})
    return 0


RUN = {
    "nnunet_ext": run_own,
    "nnUNetv2_train": run_train,
    "nnUNetv2_predict": run_predict,
    "nnUNetv2_evaluate_folder": run_evaluate,
    "python": run_python,
}
PROGRAMS = (*RUN, *NOT_RUN)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(page, desk, program, variables, capsys):
    environment = {
        **variables,
        "HOME": str(desk / "home"),
        discovery.VARIABLE: discovery.path(),
    }
    problems = []
    for block in blocks_to_run(PAGES[page], PROGRAMS):
        status, errors = run_in_bash(block, desk, environment, PROGRAMS, program)
        if status or errors:
            problems.append(f"{block}ended with status {status}: {errors}{capsys.readouterr().err[-2000:]}")
        capsys.readouterr()
    assert not problems, "\n".join(problems)
