"""What a study compares, on which data and for how long: read from two TOML files, and told apart by a hash."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent


@dataclass(frozen=True)
class ImageSet:
    """Images to predict that no training saw.

    Attributes:
        name: as the tables show it.
        dataset: raw dataset whose patients they are; the study's own, of which patients are held out, if empty.
        patients: pattern whose group is the patient in a case's name.
        every: 2 takes every second patient.
        corrupted: each image is corrupted in one of several ways, see `corruptions.py`.
        fold: the validation cases of this fold of the training patients, instead of held-out patients.
    """

    name: str
    dataset: str = ""
    patients: str = ""
    every: int = 1
    corrupted: bool = False
    fold: int | None = None


@dataclass(frozen=True)
class Preset:
    """The data, the network and the length of all trainings.

    Attributes:
        dataset: raw dataset to train with.
        configuration: of nnU-Net.
        patients: pattern whose group is the patient in a case's name.
        held_out_every: 4 holds out every fourth patient for the tests.
        folds: of the patients that are left.
        length: the end of every trainer's name, such as `24epochs_100iters`.
        seeds: a cell is one method with one of these.
        network: what differs from nnU-Net's own plans: patch_size, batch_size, features, spacing.
        planner: class of nnU-Net that plans; its default one if empty.
        regions: name to labels of each region to train on instead of the labels, from the outermost inwards; their
            voxels get the labels 1, 2, ... in this order.
        reference: preset whose `stock` the methods are compared with; this one's own if empty.
        tests: sets of images to predict.
        methods: those of methods.toml to run, all if empty.
        about: what a reader of the results has to know of the data.
        curves: methods whose curves are drawn; those that no other beats if empty.
        crop: voxels along the first axes of the images, of training and tests, that are kept around their middle.
        device: of training and prediction.
    """

    dataset: str
    configuration: str
    patients: str
    held_out_every: int
    folds: int
    length: str
    seeds: tuple[int, ...]
    network: dict[str, Any]
    tests: tuple[ImageSet, ...]
    methods: tuple[str, ...] = ()
    crop: tuple[int, ...] = ()
    device: str = "cpu"
    planner: str = ""
    regions: dict[str, list[int]] = field(default_factory=dict)
    reference: str = ""
    about: str = ""
    curves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way from training to prediction.

    Attributes:
        name: as the tables show it.
        group: heading of its table.
        trainers: parts of the trainers' names, such as `Cyclical`; one model each.
        members: models of each trainer, with seeds that differ.
        folds: that are trained and predict together.
        ensemble: flags of `nnunet_ext predict`, and of what is fitted to its probabilities.
        fit: what is fitted to the folds' held-out cases: calibrate, weights or postprocess, to its flags.
        teacher: name of the method whose first seed teaches it.
        changes: name of the method of which it changes one thing, for a table of such differences.
        starts_from: name of the method whose training gives the weights to start from.
    """

    name: str
    group: str
    trainers: tuple[str, ...] = ("",)
    members: int = 1
    folds: tuple[int, ...] = (0,)
    ensemble: tuple[str, ...] = ("--tta", "none")
    fit: dict[str, list[str]] = field(default_factory=dict)
    teacher: str = ""
    changes: str = ""
    starts_from: str = ""


@dataclass(frozen=True)
class Study:
    """A preset and its methods.

    Attributes:
        name: of the preset's file.
        preset: its settings.
        methods: in the order of methods.toml.
    """

    name: str
    preset: Preset
    methods: tuple[Method, ...]

    def method(self, name: str) -> Method:
        """The method of that name, which the preset must have."""
        (method,) = (method for method in self.methods if method.name == name)
        return method

    def settings_hash(self, method: Method) -> str:
        """Of all settings that decide a result of this method; not of what its preset compares or shows.

        The code of package and study is not in it: a result names its commit.
        """
        compares = ("methods", "seeds", "reference", "about", "curves", "changes", "group")
        text = json.dumps([said(self.preset, compares), said(method, compares)], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def said(settings: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, that differ from their defaults.

    A field that comes later, with a default that keeps what was before, so changes no hash of a result.
    """
    found = {each.name: getattr(settings, each.name) for each in fields(settings) if each.name not in leave_out}
    defaults = {each.name: default_of(each) for each in fields(settings)}
    return {
        name: [said(each) for each in value] if name == "tests" else value
        for name, value in found.items()
        if value != defaults[name]
    }


def default_of(each: Field[Any]) -> Any:
    """The default of a dataclass's field; MISSING without one."""
    return each.default_factory() if each.default_factory is not MISSING else each.default


def read_study(name: str) -> Study:
    """Reads presets/NAME.toml and methods.toml.

    Raises:
        ValueError: if the preset names a method that methods.toml lacks.
    """
    settings = settings_of(name)
    tests = tuple(ImageSet(**test) for test in settings.pop("test"))
    lists = {key: tuple(settings.pop(key, ())) for key in ("seeds", "methods", "crop", "curves")}
    preset = Preset(**settings, tests=tests, **lists)
    methods = {method.name: method for method in read_methods()}
    missing = ", ".join(sorted(set(preset.methods) - set(methods)))
    if missing:
        raise ValueError(f"Methods of {name}.toml must be in methods.toml; these are not: {missing}.")
    chosen = tuple(method for method in methods.values() if not preset.methods or method.name in preset.methods)
    return Study(name, preset, chosen)


def settings_of(name: str) -> dict[str, Any]:
    """What a preset's file says, and where it says nothing the file that it names as `base`."""
    own = read_toml(f"presets/{name}.toml")
    return settings_of(own.pop("base")) | own if "base" in own else own


def read_methods() -> list[Method]:
    """The methods of methods.toml, in its order."""
    found = read_toml("methods.toml")["method"]
    return [Method(**{key: tuple(v) if isinstance(v, list) else v for key, v in method.items()}) for method in found]


def read_toml(name: str) -> dict[str, Any]:
    """What a file of this folder says."""
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))
