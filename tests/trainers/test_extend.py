"""The examples of docs/extend.md: each is written to a module of its own, imported, and used as the page says."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.over_volumes import over_volumes
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.inference.runtimes.precision import SINGLE
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS
from nnunet_ext.trainers.compatibility import TrainerNameError
from nnunet_ext.trainers.names import build_trainer_class
from nnunet_ext.trainers.own_steps import CannotSegmentError
from nnunet_ext.trainers.part import Part
from nnunet_ext.trainers.parts import PARTS

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
CPU = torch.device("cpu")


def blocks(section: str) -> list[str]:
    """The Python of a section of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`module_of(section)`: the section's file, imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def import_section(section: str) -> ModuleType:
        name = "extend_" + re.sub(r"\W", "_", section.lower())
        (tmp_path / f"{name}.py").write_text(blocks(section)[0], encoding="utf-8")
        return importlib.import_module(name)

    return import_section


def table_with(section: str, module: ModuleType) -> tuple[Part, ...]:
    """The table of parts with the section's row, whose class is found where the test has put it."""
    found: dict[str, Any] = {}
    exec(blocks(section)[1].replace("\nPart(", "\nrow = Part("), found)
    row: Part = found["row"]
    return (*PARTS, replace(row, mixin=f"{module.__name__}.{row.mixin.rpartition('.')[2]}"))


def test_a_loss_term(module_of, make_trainer_of, random_batch):
    module = module_of("A loss term")
    # p(foreground) is 1/2 in both voxels, and one of them is foreground: right on average; with none it is 1/2 off
    target = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert module.volume_error(torch.zeros(1, 2, 1, 2), target) == pytest.approx(0)
    assert module.volume_error(torch.zeros(1, 2, 1, 2), 0 * target) == pytest.approx(0.5)
    name = "nnUNetTrainerVolume"
    trainer = make_trainer_of(build_trainer_class(name, table_with("A loss term", module)))
    batch = random_batch(trainer, 0)
    output = trainer.network(batch["data"])
    loss, terms = trainer.loss, trainer.loss_with_terms
    assert torch.equal(loss(output, batch["target"]), terms.base(output, batch["target"]))  # weight 0 at first
    terms.set_epoch(600, 1000)
    error = module.volume_error(output[0].float(), batch["target"][0])
    expected = terms.base(output, batch["target"]) + 0.5 * error
    torch.testing.assert_close(loss(output, batch["target"]), expected)
    trainer.train_step(batch)


def test_a_network(module_of, make_trainer_of):
    module = module_of("A network")
    rows = table_with("A network", module)
    trainer = make_trainer_of(build_trainer_class("nnUNetTrainerShallow", rows))
    assert isinstance(trainer.plain_network, module.ShallowNetwork)
    mixture = make_trainer_of(build_trainer_class("nnUNetTrainerStreaming_Shallow", rows))
    assert [type(network) for network in mixture.plain_network.classifiers] == [module.ShallowNetwork] * 2
    with pytest.raises(TrainerNameError, match="DSD needs a U-Net"):
        build_trainer_class("nnUNetTrainerDSD_Shallow", rows)


def test_a_training_that_owns_its_steps(module_of, make_trainer_of):
    module = module_of("A training that owns its steps")
    trainer_class = build_trainer_class("nnUNetTrainerDenoise", table_with("A training that owns its steps", module))
    trainer = make_trainer_of(trainer_class)
    training, _ = trainer.get_dataloaders()
    first = [trainer.train_step(next(training))["loss"] for _ in range(8)]
    assert np.mean(first[-2:]) < np.mean(first[:2])
    with pytest.raises(CannotSegmentError):
        trainer_class.build_network_architecture(None, None, 1, 2)


def test_a_test_time_transform(module_of):
    shift = module_of("A test-time transform").Shift(2)
    volume, logits = torch.arange(5.0).reshape(1, 1, 5), torch.randn(3, 1, 5)
    assert shift.apply(volume).flatten().tolist() == [3, 4, 0, 1, 2]
    assert torch.equal(shift.undo(shift.apply(logits), volume), logits)
    assert shift.exact
    for transforms in TRANSFORM_SETS.values():
        assert transforms(SimpleNamespace(mirror_axes=(0, 1)))[0].name == "flip-none"


def test_a_stage(module_of):
    """Two voxels on the left, one on the right."""
    stage = module_of("A stage").largest_component
    segmentation = np.array([[[1, 1, 0, 2]]], dtype=np.uint8)
    nothing: Any = None
    result = CaseResult(nothing, {}, nothing, [], {}, nothing, segmentation)
    assert stage(result).segmentation.tolist() == [[[1, 1, 0, 0]]]
    empty = replace(result, segmentation=np.zeros_like(segmentation))
    assert stage(empty) is empty


def test_a_runtime(module_of):
    network = nn.Conv2d(1, 2, kernel_size=3, padding=1)
    model: Any = SimpleNamespace(network=network, volumes=over_volumes(network))
    patches = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = TorchRuntime(model, CPU, SINGLE).run(patches)
    found = module_of("A runtime").OneByOneRuntime(model, CPU, SINGLE).run(patches)
    torch.testing.assert_close(found, expected)


def test_a_metric(module_of):
    """Centres at voxels 0 and 3 along x, of 2 mm each: 6 mm."""
    distance = module_of("A metric").centroid_distance_mm
    prediction, truth = np.zeros((1, 1, 4), bool), np.zeros((1, 1, 4), bool)
    assert np.isnan(distance(prediction, truth, (5, 1, 2)))
    prediction[..., 0] = truth[..., 3] = True
    assert distance(prediction, truth, (5, 1, 2)) == pytest.approx(6)


def test_every_section_of_the_table_is_there():
    text = PAGE.read_text(encoding="utf-8")
    anchors = re.findall(r"\]\(#([\w-]+)\)", text)
    headings = {re.sub(r"\W", "-", heading.lower()) for heading in re.findall(r"^## (.+)$", text, flags=re.MULTILINE)}
    assert len(anchors) == 7
    assert headings >= set(anchors)
