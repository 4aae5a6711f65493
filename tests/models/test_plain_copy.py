import json

import pytest
import torch

from nnunet_ext.architectures.posterior import posterior_weights
from nnunet_ext.files.checkpoints import load_checkpoint
from nnunet_ext.models.members import MemberError
from nnunet_ext.models.plain_copy import PlainCopyError, copy_plain_model, plain_trainer_name
from nnunet_ext.options import PlainCopyOptions

PLANS_NAME = "nnUNetPlans"


def name_the_dataset(model_folder):
    """nnU-Net's plans name their dataset."""
    file = model_folder / "plans.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans |= {"dataset_name": "Dataset001_Sides", "plans_name": PLANS_NAME}
    file.write_text(json.dumps(plans), encoding="utf-8")


@pytest.fixture
def model_folder(make_model_folder, write_checkpoint):
    """A self-distilled model with two folds."""
    folder = make_model_folder("nnUNetTrainerDSD_250epochs__nnUNetPlans__2d", folds=())
    name_the_dataset(folder)
    for fold in (0, 1):
        write_checkpoint(folder, fold, trainer_name="nnUNetTrainerDSD_250epochs", seed=fold)
    return folder


@pytest.mark.parametrize(
    ("trainer", "plain"),
    [
        ("nnUNetTrainerDSD", "nnUNetTrainer"),
        ("nnUNetTrainerDSD_Cyclical_250epochs_member1", "nnUNetTrainer"),
        ("nnUNetTrainerDSD_BN", "nnUNetTrainerBN"),  # another network
        ("nnUNetTrainerDSD_NoMirroring", "nnUNetTrainer"),  # the same network, trained in another way
        ("nnUNetTrainerBN", "nnUNetTrainerBN"),  # stock's own
        ("nnUNetTrainerCyclical_PrimusM", "nnUNet_Primus_M_Trainer"),
    ],
)
def test_the_plain_trainer_is_the_stock_one_that_builds_the_same_network(trainer, plain):
    assert plain_trainer_name(trainer) == plain


def test_the_copy_lies_where_nnunet_looks_for_it(model_folder, tmp_path):
    copy = copy_plain_model(model_folder, PlainCopyOptions(tmp_path / "plain"))
    assert copy == tmp_path / "plain" / "Dataset001_Sides" / "nnUNetTrainer__nnUNetPlans__2d"
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()) == [
        "dataset.json",
        "fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
        "plans.json",
    ]


def test_the_copy_has_the_weights_and_the_stock_trainers_name(model_folder, tmp_path):
    copy = load_checkpoint(
        copy_plain_model(model_folder, PlainCopyOptions(tmp_path)) / "fold_1" / "checkpoint_final.pth"
    )
    original = load_checkpoint(model_folder / "fold_1" / "checkpoint_final.pth")
    assert set(copy) == {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
    assert copy["trainer_name"] == "nnUNetTrainer"
    assert copy["inference_allowed_mirroring_axes"] == (0, 1)
    assert copy["network_weights"].keys() == original["network_weights"].keys()
    for name, tensor in original["network_weights"].items():
        assert torch.equal(copy["network_weights"][name], tensor)


def test_one_fold_can_be_chosen(model_folder, tmp_path):
    copy = copy_plain_model(model_folder, PlainCopyOptions(tmp_path, folds=[1]))
    assert [path.name for path in copy.glob("fold_*")] == ["fold_1"]


def test_another_checkpoint_keeps_its_file_name(model_folder, write_checkpoint, tmp_path):
    write_checkpoint(model_folder, 0, "checkpoint_swa.pth", trainer_name="nnUNetTrainerDSD_250epochs")
    copy = copy_plain_model(model_folder, PlainCopyOptions(tmp_path, checkpoint="checkpoint_swa.pth"))
    assert [path.name for path in copy.rglob("*.pth")] == ["checkpoint_swa.pth"]


def test_an_existing_copy_is_not_overwritten(model_folder, tmp_path):
    copy_plain_model(model_folder, PlainCopyOptions(tmp_path))
    with pytest.raises(PlainCopyError, match=r"new folder; .*nnUNetTrainer__nnUNetPlans__2d exists"):
        copy_plain_model(model_folder, PlainCopyOptions(tmp_path))


def test_a_posterior_has_no_plain_form(model_folder, tmp_path):
    fold = model_folder / "fold_0"
    checkpoint = load_checkpoint(fold / "checkpoint_final.pth")
    weights = posterior_weights([checkpoint["network_weights"]], regions=False, mirror_axes=(0, 1))
    torch.save(
        {**checkpoint, "network_weights": weights, "trainer_name": "nnUNetTrainer_posterior1"},
        fold / "checkpoint_posterior.pth",
    )
    with pytest.raises(PlainCopyError, match=r"belong to another network\. Predict with nnunet_ext instead"):
        copy_plain_model(
            model_folder, PlainCopyOptions(tmp_path / "plain", folds=[0], checkpoint="checkpoint_posterior.pth")
        )
    assert not (tmp_path / "plain").exists()


def test_a_fold_without_the_checkpoint_is_named(model_folder, tmp_path):
    with pytest.raises(MemberError, match=r"fold_2 has no checkpoint_final\.pth"):
        copy_plain_model(model_folder, PlainCopyOptions(tmp_path, folds=[2]))


def test_one_classifier_of_a_mixture_becomes_a_plain_model(model_folder, tmp_path):
    fold = model_folder / "fold_0"
    weights = [
        load_checkpoint(model_folder / f"fold_{fold}" / "checkpoint_final.pth")["network_weights"] for fold in (0, 1)
    ]
    mixed = {f"classifiers.{index}.{name}": tensor for index in (0, 1) for name, tensor in weights[index].items()}
    torch.save(
        {
            **load_checkpoint(fold / "checkpoint_final.pth"),
            "network_weights": mixed | {"regions": torch.tensor(False)},
            "trainer_name": "nnUNetTrainerStreaming",
        },
        fold / "checkpoint_mixture.pth",
    )
    copy = copy_plain_model(
        model_folder,
        PlainCopyOptions(tmp_path / "plain", folds=[0], checkpoint="checkpoint_mixture.pth", classifier=1),
    )
    found = load_checkpoint(copy / "fold_0" / "checkpoint_mixture.pth")["network_weights"]
    assert found.keys() == weights[1].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights[1].items())
    with pytest.raises(PlainCopyError, match=r"copy one of its U-Nets with --classifier"):
        copy_plain_model(
            model_folder, PlainCopyOptions(tmp_path / "whole", folds=[0], checkpoint="checkpoint_mixture.pth")
        )


def test_a_pattern_copies_several_checkpoints_of_a_fold(model_folder, write_checkpoint, tmp_path):
    for epoch in (8, 9):
        write_checkpoint(model_folder, 0, f"checkpoint_c0_e{epoch}.pth", trainer_name="nnUNetTrainerDSD_250epochs")
    copy = copy_plain_model(model_folder, PlainCopyOptions(tmp_path, checkpoint="checkpoint_c0_*.pth"))
    assert sorted(path.name for path in copy.rglob("*.pth")) == ["checkpoint_c0_e8.pth", "checkpoint_c0_e9.pth"]
