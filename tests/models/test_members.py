"""Which checkpoints are members, and which are refused."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ext.files.checkpoints import CheckpointError
from nnunet_ext.models.members import MemberError, MemberRule, find_members
from nnunet_ext.models.model import load_model

FINAL = MemberRule.parse("final")
SAMPLES = [(0, 7), (0, 8), (0, 9), (1, 17), (1, 18), (1, 19)]  # (cycle, epoch): two cycles of ten epochs


def sample_name(cycle: int, epoch: int) -> str:
    return f"checkpoint_c{cycle}_e{epoch:04d}.pth"


@pytest.fixture
def fold_of_a_cyclical_training(tmp_path: Path) -> Path:
    """The files of a fold; empty, because rules go by names and the manifest only."""
    entries = [
        {
            "file": sample_name(cycle, epoch),
            "cycle": cycle,
            "epoch": epoch,
            "epoch_in_cycle": epoch % 10,
            "learning_rate": 0.01,
            "pseudo_dice": None,
            "sha256": "",
        }
        for cycle, epoch in SAMPLES
    ]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": entries}), encoding="utf-8")
    others = ("final", "best", "latest", "posterior")
    names = [*(entry["file"] for entry in entries), *(f"checkpoint_{word}.pth" for word in others)]
    names += [".partial-checkpoint_final.pth", ".partial-checkpoint_c1_e0020.pth", "progress.png"]
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def chosen(fold: Path, rule: str) -> list[str]:
    return [path.name for path in MemberRule.parse(rule).files_in(fold)]


# --- rules ---


@pytest.mark.parametrize(
    ("rule", "epochs"),
    [
        ("samples", [7, 8, 9, 17, 18, 19]),
        ("samples:4", [8, 9, 18, 19]),
        ("samples:3", [9, 18, 19]),  # one per cycle, the remainder goes to the latest
        ("samples:3:2", [9, 17, 19]),  # counted back from each cycle's end
        ("samples:1", [19]),
        ("last-cycle", [17, 18, 19]),
        ("last-cycle:2", [18, 19]),
        ("last-cycle:2:2", [17, 19]),
        ("checkpoint_c*.pth", [7, 8, 9, 17, 18, 19]),
        ("checkpoint_c*.pth:2", [18, 19]),
        ("checkpoint_c*.pth:2:3", [9, 19]),
        ("checkpoint_c0_*.pth:9", [7, 8, 9]),  # at most nine
    ],
)
def test_rules_choose_samples_in_the_order_of_training(fold_of_a_cyclical_training, rule, epochs):
    expected = [sample_name(cycle, epoch) for cycle, epoch in SAMPLES if epoch in epochs]
    assert chosen(fold_of_a_cyclical_training, rule) == expected


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("final", "checkpoint_final.pth"),
        ("best", "checkpoint_best.pth"),
        ("checkpoint_latest.pth", "checkpoint_latest.pth"),
        ("checkpoint_posterior.pth", "checkpoint_posterior.pth"),  # asked for by its name
    ],
)
def test_rules_that_name_one_file(fold_of_a_cyclical_training, rule, name):
    assert chosen(fold_of_a_cyclical_training, rule) == [name]


@pytest.mark.parametrize("rule", ["*.pth", "checkpoint_*.pth", "checkpoint_p*.pth"])
def test_wildcards_leave_out_the_posterior_and_half_written_files(fold_of_a_cyclical_training, rule):
    names = chosen(fold_of_a_cyclical_training, rule)
    assert "checkpoint_posterior.pth" not in names
    assert not [name for name in names if name.startswith(".")]
    assert len(names) == (0 if "_p" in rule else len(SAMPLES) + 3)


def test_a_fold_without_a_manifest_has_no_samples(tmp_path):
    (tmp_path / sample_name(0, 9)).touch()
    assert chosen(tmp_path, "samples") == []


@pytest.mark.parametrize(
    "rule", ["", "sample", "final:0", "final:-1", "final:x", "samples:1:2:3", "samples:", "checkpoint_*", "final.pt"]
)
def test_a_rule_of_another_form_is_refused_with_the_possible_ones(rule):
    with pytest.raises(MemberError, match=r"final, best, samples, last-cycle or a file pattern") as refusal:
        MemberRule.parse(rule)
    assert repr(rule) in str(refusal.value)


# --- members of a model folder ---


def test_a_member_is_identified_by_its_checkpoint(make_model_folder):
    folder = make_model_folder(configuration="3d_fullres", mirror_axes=(0, 2))
    (member,) = find_members(folder, None, FINAL)
    assert member.name == "fold_0/checkpoint_final"
    assert member.path == folder / "fold_0" / "checkpoint_final.pth"
    assert member.sha256 == hashlib.sha256(member.path.read_bytes()).hexdigest()
    assert (member.trainer_name, member.configuration) == ("nnUNetTrainer", "3d_fullres")
    assert member.mirror_axes == (0, 2)


def test_members_come_fold_by_fold_as_asked_for_and_by_training_within(make_model_folder, write_checkpoint):
    folder = make_model_folder(folds=(0, 1))
    for fold in (0, 1):
        for cycle, epoch in SAMPLES[:2]:
            write_checkpoint(folder, fold, sample_name(cycle, epoch), seed=10 * fold + epoch)
    members = find_members(folder, [1, 0], MemberRule.parse("checkpoint_c*.pth"))
    assert [member.name for member in members] == [
        "fold_1/checkpoint_c0_e0007",
        "fold_1/checkpoint_c0_e0008",
        "fold_0/checkpoint_c0_e0007",
        "fold_0/checkpoint_c0_e0008",
    ]


def test_weights_are_single_precision_also_from_a_half_precision_file(make_model_folder, write_checkpoint):
    def halve(checkpoint: dict[str, Any]) -> None:
        checkpoint["network_weights"] = {name: t.half() for name, t in checkpoint["network_weights"].items()}

    folder = make_model_folder(folds=())
    path = write_checkpoint(folder, 0, edit=halve)
    (member,) = find_members(folder, None, FINAL)
    stored = torch.load(path, weights_only=False)["network_weights"]
    weights = member.weights()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(torch.equal(weights[name], stored[name].float()) for name in stored)


def test_folds_without_members_are_left_out_unless_they_are_named(make_model_folder):
    folder = make_model_folder(folds=(0, 2))
    (folder / "fold_1").mkdir()  # still training
    assert [member.path.parent.name for member in find_members(folder, None, FINAL)] == ["fold_0", "fold_2"]
    with pytest.raises(MemberError, match=r"fold_1 has no checkpoint_final\.pth"):
        find_members(folder, [0, 1, 2], FINAL)
    with pytest.raises(MemberError, match=r"fold_7 has no checkpoint_final\.pth"):
        find_members(folder, [7], FINAL)


def test_fold_all_is_taken_only_alone(make_model_folder):
    folder = make_model_folder(folds=("all",))
    assert [member.name for member in find_members(folder, None, FINAL)] == ["fold_all/checkpoint_final"]
    shutil.copytree(folder / "fold_all", folder / "fold_0")
    assert [member.name for member in find_members(folder, None, FINAL)] == ["fold_0/checkpoint_final"]
    assert [member.name for member in find_members(folder, ["all"], FINAL)] == ["fold_all/checkpoint_final"]


def test_a_folder_without_any_member_says_what_it_has(make_model_folder):
    folder = make_model_folder(folds=(0, 3))
    with pytest.raises(MemberError, match=r"checkpoint_best\.pth.*has fold_0, fold_3"):
        find_members(folder, None, MemberRule.parse("best"))
    with pytest.raises(MemberError, match=r"samples\.json"):
        find_members(folder, None, MemberRule.parse("samples"))
    with pytest.raises(MemberError, match="no folds"):
        find_members(folder / "fold_0", None, FINAL)


def test_an_empty_choice_of_folds_is_refused(make_model_folder):
    with pytest.raises(MemberError):
        find_members(make_model_folder(), [], FINAL)


def test_a_posterior_says_that_its_samples_are_one_member_here(make_model_folder, write_checkpoint, caplog):
    folder = make_model_folder()
    write_checkpoint(folder, 0, "checkpoint_posterior.pth")
    find_members(folder, None, MemberRule.parse("*.pth"))  # leaves it out
    assert not caplog.records
    (member,) = find_members(folder, None, MemberRule.parse("checkpoint_posterior.pth"))
    assert member.name == "fold_0/checkpoint_posterior"
    (record,) = caplog.records
    assert "checkpoint_posterior.pth" in record.getMessage()
    assert "--members samples" in record.getMessage()


def test_a_sample_of_the_manifest_that_is_gone_is_named(make_model_folder):
    folder = make_model_folder()
    entry = {"cycle": 0, "epoch": 9, "epoch_in_cycle": 9, "learning_rate": 0.01, "pseudo_dice": 0.5, "sha256": ""}
    manifest = {"samples": [{"file": sample_name(0, 9), **entry}]}
    (folder / "fold_0" / "samples.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"checkpoint_c0_e0009\.pth"):
        find_members(folder, None, MemberRule.parse("samples"))


def test_the_same_file_twice_is_warned_about(make_model_folder, caplog):
    folder = make_model_folder(folds=(0,))
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    with caplog.at_level(logging.WARNING):
        assert len(find_members(folder, None, FINAL)) == 2
    assert "fold_0" in caplog.text
    assert "fold_1" in caplog.text
    assert "count twice in the ensemble" in caplog.text


# --- members that are refused ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trainer_name": "nnUNetTrainerNoMirroring"}, "same trainer"),
        ({"mirror_axes": (0,)}, "same mirror axes"),
        ({"mirror_axes": None}, "same mirror axes"),
        ({"edit": lambda checkpoint: checkpoint["init_args"].update(configuration="3d")}, "same configuration"),
    ],
)
def test_members_of_different_trainings_are_refused_by_name(make_model_folder, write_checkpoint, change, words):
    folder = make_model_folder(folds=(0, 1))
    write_checkpoint(folder, 2, **change)
    with pytest.raises(MemberError, match=words) as refusal:
        find_members(folder, None, FINAL)
    assert str(folder / "fold_0" / "checkpoint_final.pth") in str(refusal.value)
    assert str(folder / "fold_2" / "checkpoint_final.pth") in str(refusal.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(make_model_folder, write_checkpoint, value):
    def diverge(checkpoint: dict[str, Any]) -> None:
        checkpoint["network_weights"]["decoder.seg_layers.1.bias"][0] = value

    folder = make_model_folder(folds=(0,))
    path = write_checkpoint(folder, 1, edit=diverge)
    with pytest.raises(CheckpointError, match=r"finite.*decoder\.seg_layers\.1\.bias") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


class RunsCode:
    """Pickles to a call that creates the file `path`, as a malicious checkpoint would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return shutil.copyfile, (__file__, str(self.path))


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(make_model_folder, write_checkpoint, tmp_path):
    folder, trap = make_model_folder(folds=()), tmp_path / "code ran"
    path = write_checkpoint(folder, 0, edit=lambda checkpoint: checkpoint.update(logging=RunsCode(trap)))
    with pytest.raises(CheckpointError, match="--trust-checkpoints") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)
    assert not trap.exists()


def test_a_trusted_checkpoint_may_hold_anything(make_model_folder, write_checkpoint):
    folder = make_model_folder(folds=())
    write_checkpoint(folder, 0, edit=lambda checkpoint: checkpoint.update(extra=Path("somewhere")))
    with pytest.raises(CheckpointError):
        find_members(folder, None, FINAL)
    (member,) = find_members(folder, None, FINAL, trust=True)
    assert member.weights()


@pytest.mark.parametrize("key", ["network_weights", "init_args", "trainer_name"])
def test_a_file_of_another_kind_is_refused_with_what_it_lacks(make_model_folder, write_checkpoint, key):
    folder = make_model_folder(folds=())
    path = write_checkpoint(folder, 0, edit=lambda checkpoint: checkpoint.pop(key))
    with pytest.raises(CheckpointError, match=f"lacks {key}") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        ({"network_weights": [1, 2]}, "network_weights must map names to tensors"),
        ({"network_weights": {"stem.weight": "heavy"}}, "network_weights must map names to tensors"),
        ({"init_args": "2d"}, "init_args must name the configuration"),
        ({"init_args": {"plans": {}}}, "init_args must name the configuration"),
        ({"trainer_name": 7}, "trainer_name must be a name"),
        (
            {"inference_allowed_mirroring_axes": "xy"},
            "inference_allowed_mirroring_axes must be a list of axes or None",
        ),
    ],
)
def test_a_file_whose_parts_have_another_form_is_refused(make_model_folder, write_checkpoint, part, rule):
    folder = make_model_folder(folds=())
    path = write_checkpoint(folder, 0, edit=lambda checkpoint: checkpoint.update(part))
    with pytest.raises(CheckpointError, match=f"its {rule}") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    "plans", [{}, {"configurations": {"2d": {"inherits_from": "2d"}}}, {"configurations": []}, 3]
)
def test_plans_of_a_checkpoint_that_nnunet_cannot_read_are_not_compared(make_model_folder, write_checkpoint, plans):
    folder = make_model_folder(folds=(0,))
    write_checkpoint(folder, 1, edit=lambda checkpoint: checkpoint["init_args"].update(plans=plans))
    assert len(find_members(folder, None, FINAL)) == 2


def test_a_damaged_file_is_refused_by_name(make_model_folder):
    folder = make_model_folder(folds=(0, 1))
    path = folder / "fold_1" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a readable checkpoint") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_flipped_bit_is_noticed_by_the_checksum(make_model_folder, position):
    folder = make_model_folder(folds=(0, 1))
    path = folder / "fold_1" / "checkpoint_final.pth"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:  # a part with weights; between the parts there is padding
        part = max(archive.infolist(), key=lambda info: info.file_size)
    start = part.header_offset + 200  # behind the part's header, which torch pads to 64 bytes
    content[start + int(position * (part.file_size - 200))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a readable checkpoint \(.* fails its checksum") as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


# --- samples and their manifest ---


@pytest.fixture
def recorded_sample(make_model_folder, write_checkpoint) -> Callable[..., Path]:
    """`recorded_sample()`: a model folder with one sample, as its manifest records it."""

    def make() -> Path:
        folder = make_model_folder(folds=())
        path = write_checkpoint(folder, 0, sample_name(0, 9))
        entry = {"cycle": 0, "epoch": 9, "epoch_in_cycle": 9, "learning_rate": 0.01, "pseudo_dice": 0.5}
        entry |= {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        (path.parent / "samples.json").write_text(json.dumps({"samples": [entry]}), encoding="utf-8")
        return folder

    return make


def test_a_sample_that_was_exchanged_is_refused(recorded_sample, write_checkpoint):
    folder = recorded_sample()
    assert len(find_members(folder, None, MemberRule.parse("samples"))) == 1
    path = write_checkpoint(folder, 0, sample_name(0, 9), seed=1)  # whole, but not what the training wrote
    for rule in ("samples", "last-cycle"):
        with pytest.raises(CheckpointError, match=r"SHA-256 of .* is not that in samples\.json") as refusal:
            find_members(folder, None, MemberRule.parse(rule))
        assert str(path) in str(refusal.value)
    assert (
        len(find_members(folder, None, MemberRule.parse("checkpoint_c*.pth"))) == 1
    )  # the way that the message names


# --- what the members were trained with ---


def set_plan(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(checkpoint: dict[str, Any]) -> None:
        checkpoint["init_args"]["plans"]["configurations"]["2d"][name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (set_plan("spacing", [0.5, 0.5]), "spacing"),
        (set_plan("normalization_schemes", ["CTNormalization"]), "normalization_schemes"),
        (
            lambda checkpoint: checkpoint["init_args"]["plans"].update(transpose_forward=[0, 2, 1]),
            "transpose_forward",
        ),
        (
            lambda checkpoint: checkpoint["init_args"]["dataset_json"].update(
                labels={"background": 0, "left": 2, "right": 1}
            ),
            "labels",
        ),
    ],
)
def test_folds_of_other_plans_or_labels_are_refused_with_what_differs(
    make_model_folder, write_checkpoint, edit, named
):
    folder = make_model_folder(folds=(0, 1))
    path = write_checkpoint(folder, 2, edit=edit)
    with pytest.raises(
        MemberError, match=rf"trained with the same plans and labels; .* differ in .*{named}"
    ) as refusal:
        find_members(folder, None, FINAL)
    assert str(path) in str(refusal.value)


def test_plans_that_do_not_change_what_the_network_sees_may_differ(make_model_folder, write_checkpoint):
    def edit(checkpoint: dict[str, Any]) -> None:
        plans = checkpoint["init_args"]["plans"]
        plans["dataset_name"] = "Dataset999_Renamed"
        plans["configurations"]["2d"] |= {"batch_size": 7, "patch_size": [32, 32]}
        plans["foreground_intensity_properties_per_channel"] = {"0": {"mean": 7.0}}  # the z-score does without

    folder = make_model_folder(folds=(0,))
    write_checkpoint(folder, 1, edit=edit)
    assert len(find_members(folder, None, FINAL)) == 2


def test_the_intensities_of_a_ct_dataset_must_be_the_same(make_model_folder, write_checkpoint):
    def trained_with(mean: float) -> Callable[[dict[str, Any]], None]:
        def edit(checkpoint: dict[str, Any]) -> None:
            set_plan("normalization_schemes", ["CTNormalization"])(checkpoint)
            plans = checkpoint["init_args"]["plans"]
            plans["foreground_intensity_properties_per_channel"] = {"0": {"mean": mean, "std": 1.0}}

        return edit

    folder = make_model_folder(folds=())
    write_checkpoint(folder, 0, edit=trained_with(40.0))
    write_checkpoint(folder, 1, edit=trained_with(55.0))
    with pytest.raises(MemberError, match="differ in foreground_intensity_properties_per_channel"):
        find_members(folder, None, FINAL)


def test_a_folder_whose_plans_changed_since_the_training_is_warned_about(make_model_folder, caplog):
    folder = make_model_folder(folds=(0, 1))
    load_model(folder, None, FINAL, device=torch.device("cpu"))
    assert "other plans" not in caplog.text
    plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["2d"]["spacing"] = [2.0, 2.0]
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    load_model(folder, None, FINAL, device=torch.device("cpu"))
    assert caplog.text.count("was trained with other plans than those in") == 1
    assert f"{folder}, which are used: spacing differ" in caplog.text


def test_a_model_of_another_number_of_classes_does_not_fit(make_model_folder):
    folder = make_model_folder(folds=(0,))
    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    dataset_json["labels"]["third"] = 3
    (folder / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
    with pytest.raises(
        MemberError, match=r"(?s)does not fit the network of .*decoder.*: \(4, .* in the network, \(3, .* in the file"
    ) as refusal:
        load_model(folder, None, FINAL, device=torch.device("cpu"))
    assert str(folder / "fold_0" / "checkpoint_final.pth") in str(refusal.value)


# --- draws with dropout ---


@pytest.mark.parametrize(("text", "draws"), [("mc-dropout", 10), ("mc-dropout:3", 3)])  # 10: arXiv 2212.06278
def test_each_fold_has_as_many_dropout_draws(make_model_folder, text, draws):
    members = find_members(make_model_folder(folds=(0, 1)), None, MemberRule.parse(text))
    assert len(members) == 2 * draws
    assert [member.name for member in members[:2]] == ["fold_0/mc-dropout_00", "fold_0/mc-dropout_01"]
    assert [member.dropout_seed for member in members] == [*range(draws), *range(draws)]
    assert {member.path.name for member in members} == {"checkpoint_final.pth"}


def test_a_stride_of_dropout_draws_is_refused():
    with pytest.raises(MemberError, match=r"mc-dropout with an optional :COUNT; found 'mc-dropout:10:2'"):
        MemberRule.parse("mc-dropout:10:2")


def test_a_network_without_dropout_is_refused(make_model_folder):
    with pytest.raises(MemberError, match=r"needs a network with dropout layers; .*-tr nnUNetTrainerMCDropout"):
        load_model(make_model_folder(), None, MemberRule.parse("mc-dropout:3"), device=torch.device("cpu"))


def test_the_posterior_as_a_member_is_said_to_be_one_network(make_model_folder, write_checkpoint, caplog):
    folder = make_model_folder()
    write_checkpoint(folder, 0, "checkpoint_posterior.pth")
    find_members(folder, None, MemberRule.parse("final"))
    assert not caplog.records
    find_members(folder, None, MemberRule.parse("checkpoint_posterior.pth"))
    assert "--members samples" in caplog.text
