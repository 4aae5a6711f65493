"""The pages of docs/extend: their files are imported under the names that they give, their rows are added to the
tables, and their tests are run.

It stands here for the fixtures of tiny trainers.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.evaluation.case_metrics import Judgement, evaluate_case
from nnunet_ext.evaluation.label_maps import LabelMapPair
from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.evaluation.summary import own_summary, write_metrics_csv
from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.finish import finish, stages_for
from nnunet_ext.inference.passes import passes_of
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.runtimes.choice import RUNTIMES
from nnunet_ext.inference.sliding_window import sliding_window_logits, tile_image
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS
from nnunet_ext.labels import regions_of
from nnunet_ext.options import EnsembleOptions, MetricOptions, OutputOptions
from nnunet_ext.trainers.compatibility import TrainerNameError
from nnunet_ext.trainers.names import build_trainer_class
from nnunet_ext.trainers.own_steps import CannotSegmentError
from nnunet_ext.trainers.parts import PARTS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.stem: page for page in sorted((DOCS / "extend").glob("*.md"))}
OPTIONS = EnsembleOptions(device="cpu", allow_tqdm=False)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """What the first line of each block of code says, and the block."""
    for code in re.findall(
        r"^```(?:python)?\n(# .*?)```$", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    ):
        yield code.partition("\n")[0].removeprefix("# "), code


def block(page: str, pattern: str) -> tuple[str, str]:
    """The one block whose first line looks like this."""
    (found,) = (pair for pair in blocks(page) if re.fullmatch(pattern, pair[0]))
    return found


def names_of_tests(page: str) -> list[str]:
    """The names of the tests on a page."""
    _, code = block(page, r"tests/.*\.py")
    return [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and "test" in node.name]


def parametrized(test: Any) -> list[dict[str, Any]]:
    """What `pytest.mark.parametrize` would call a test with; once with nothing if it has no such mark."""
    if not hasattr(test, "pytestmark"):
        return [{}]
    ((names, rows),) = (mark.args for mark in test.pytestmark)
    return [{names: row} if isinstance(names, str) else dict(zip(names, row, strict=True)) for row in rows]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`example(page)`: the page's new file, imported as the module that it is to be."""

    def imported(page: str) -> Any:
        path, code = block(page, r"nnunet_ext/.*\.py")
        name = path.removesuffix(".py").replace("/", ".")
        file = tmp_path / Path(path).name
        file.write_text(code, encoding="utf-8")
        spec: Any = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return imported


def extended(page: str, module: Any, table: Any) -> Any:
    """A table with the page's row at the place that the page says; the module's names are imported."""
    header, code = block(page, r"nnunet_ext/.*\.py, (first|last)? ?in \w+")
    path, _, place = header.partition(".py, ")
    names = {**vars(importlib.import_module(path.replace("/", "."))), **vars(module)}
    if isinstance(table, dict):
        return {**table, **eval(f"{{{code}}}", names)}
    rows = eval(f"(\n{code})", names)
    return type(table)([*rows, *table] if place.startswith("first") else [*table, *rows])


def trainer_of(page: str, module: Any, name: str) -> Any:
    return build_trainer_class(name, extended(page, module, PARTS))


# --- what is on every page ---


def test_the_index_has_all_pages():
    linked = re.findall(r"\]\(extend/([\w-]+)\.md\)", (DOCS / "extend.md").read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(PAGES)


@pytest.mark.parametrize(("page", "name"), [(page, name) for page in PAGES for name in names_of_tests(page)])
def test_the_tests_of_a_page_pass(page, name, example, request):
    example(page)
    path, code = block(page, r"tests/.*\.py")
    names: dict[str, Any] = {"__name__": path}
    exec(compile(code, path, "exec"), names)
    for given in parametrized(names[name]):
        fixtures = inspect.signature(names[name]).parameters.keys() - given.keys()
        names[name](**given, **{fixture: request.getfixturevalue(fixture) for fixture in fixtures})


# --- the rows ---


def test_a_loss_term_is_part_of_a_name(example, make_trainer_of, random_batch, run_epochs):
    """Of five epochs the first two, up to 20 %, are without the term; from 40 % on it has its whole weight."""
    module = example("loss-term")
    trainer = make_trainer_of(trainer_of("loss-term", module, "nnUNetTrainerDiceFocal_Brier_5epochs"))
    run_epochs(trainer, 3)
    assert np.isnan(trainer.logger.get_value("loss term Brier", step=None)).tolist() == [True, True, False]
    assert trainer.loss_with_terms.weights.tolist() == [1]


def test_a_network_is_part_of_a_name(example, make_trainer_of):
    module = example("network")
    alone = make_trainer_of(trainer_of("network", module, "nnUNetTrainerDilated_NoDeepSupervision"))
    assert isinstance(alone.plain_network, module.DilatedNetwork)
    assert type(alone).network_parts == ("Dilated",)
    mixture = make_trainer_of(trainer_of("network", module, "nnUNetTrainerStreaming_Dilated"))
    assert [type(network) for network in mixture.plain_network.classifiers] == [module.DilatedNetwork] * 2
    with pytest.raises(TrainerNameError, match="DSD needs a U-Net"):
        trainer_of("network", module, "nnUNetTrainerDSD_Dilated")


def test_a_training_that_owns_its_steps_is_part_of_a_name(example, make_trainer_of):
    """It trains the network of another part, and stands before it when a predictor asks."""
    module = example("own-steps")
    kind = trainer_of("own-steps", module, "nnUNetTrainerDenoise_DeepLab")
    trainer = make_trainer_of(kind)
    assert isinstance(trainer.plain_network, DeepLabV3Plus)
    assert np.isfinite(trainer.train_step({"data": torch.randn(2, 1, 32, 32)})["loss"])
    with pytest.raises(CannotSegmentError):
        kind.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 3)
    with pytest.raises(TrainerNameError, match="both set the loss"):
        trainer_of("own-steps", module, "nnUNetTrainerDenoise_DiceFocal")
    both = extended("loss-term", example("loss-term"), extended("own-steps", module, PARTS))
    with pytest.raises(TrainerNameError, match="Brier needs a training on labels, which Denoise does not"):
        build_trainer_class("nnUNetTrainerDenoise_Brier", both)


def test_a_set_of_transforms_is_averaged(example):
    """A network of single voxels says the same of an image that is transposed."""
    sets = extended("transform", example("transform"), {})
    configuration = SimpleNamespace(patch_size=[6, 6], spacing=[1.0, 1.0])
    model: Any = SimpleNamespace(
        folder=Path("model"), members=[SimpleNamespace(name="fold_0")], configuration=configuration
    )
    ((step,),) = passes_of([model], None, transforms=sets["transpose"], tta_members=False)
    torch.manual_seed(0)
    network, tiled = nn.Conv2d(1, 2, kernel_size=1), tile_image(torch.randn(1, 2, 8, 9), (6, 6))
    once, both = (
        sliding_window_logits(network, tiled, transforms, batch_size=BatchSize(8))
        for transforms in (step.transforms[:1], step.transforms)
    )
    torch.testing.assert_close(both, once)
    ((_, transposed),) = passes_of([model], None, transforms=sets["transpose"], tta_members=True)
    assert transposed.name == "fold_0+transpose"


@pytest.mark.parametrize(("organ", "expected"), [((1.0, -1.0, -1.0), 1), ((-1.0, 1.0, -1.0), 0)])
def test_a_stage_changes_what_is_written(example, make_model_folder, organ, expected):
    """Three slices of a voxel each; the organ's logit is above the background's, 0, in one of them."""
    (model,) = open_models([make_model_folder(labels={"background": 0, "organ": 1})], OPTIONS)
    shape = (3, 1, 1)
    properties = {
        "spacing": [4.0, 1.0, 1.0],
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
        "shape_after_cropping_and_before_resampling": shape,
    }
    prepared = PreparedCase(tile_image(torch.zeros(1, *shape), (1, 1)), properties)
    sums = CaseSums(CaseFrame([model], [prepared]), model.labels, SumOptions(), None)
    logits = torch.stack([torch.zeros(3), torch.tensor(organ)]).reshape(2, *shape)
    ((step,),) = passes_of([model], None, transforms=TRANSFORM_SETS["none"], tta_members=False)
    sums.add(0, step, logits)
    options = OutputOptions()
    stages = extended("stage", example("stage"), stages_for(options, None))
    prediction = finish("case", sums, regions_of(model.dataset_json), stages, options)
    assert prediction.row["cut_off"] == expected
    assert prediction.row["members"] == 1


def test_a_runtime_predicts_as_torch_does(example, make_model_folder, make_image, tmp_path):
    runtimes = extended("runtime", example("runtime"), RUNTIMES)
    models, images = (
        open_models([make_model_folder()], OPTIONS),
        make_image(tmp_path / "images", shape_zyx=(2, 16, 16)),
    )
    torch_case, double_case = (
        EnsembleEngine(models, OPTIONS, choose_runtime=runtimes[name]).predict_from_files(images, None).predictions[0]
        for name in ("torch", "double")
    )
    assert (double_case.segmentation == torch_case.segmentation).mean() > 0.99
    np.testing.assert_allclose(double_case.maps["entropy"], torch_case.maps["entropy"], atol=1e-3)


def test_a_metric_is_a_column(example, tmp_path):
    """The organ two voxels of 2 mm too far along x; the lesion is in neither map."""
    metrics = extended("metric", example("metric"), Judgement({}).structure_metrics)
    truth, prediction = np.zeros((2, 1, 4, 8), dtype=np.uint8)
    truth[0, 1, 1], prediction[0, 1, 3] = 1, 1
    columns = {}
    for rule in ("leave-out", "perfect"):
        judgement = Judgement(
            {"organ": (1,), "lesion": (2,)}, metrics=MetricOptions(absent=rule), structure_metrics=metrics
        )
        case = evaluate_case("case", LabelMapPair(truth, prediction, (5.0, 1.0, 2.0)), judgement)
        columns[rule] = [case.structures[name]["centre_distance_mm"] for name in ("organ", "lesion")]
    assert columns == {"leave-out": [4, pytest.approx(np.nan, nan_ok=True)], "perfect": [4, 0]}
    evaluation = FolderEvaluation(judgement.structures, [case])
    write_metrics_csv(evaluation, tmp_path / "metrics.csv")
    header, organ, _ = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert (header.split(",")[-1], organ.split(",")[-1]) == ("centre_distance_mm", "4")
    assert own_summary(evaluation)["structures"]["organ"]["centre_distance_mm"]["mean"] == 4
