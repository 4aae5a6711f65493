"""Several members and folds of `nnunet_ext train`: which trainings they are, and as which jobs."""

from __future__ import annotations

import pytest

from nnunet_ext.cli.train import train_options
from nnunet_ext.cluster.submission import SubmissionError
from nnunet_ext.commands.train import train_one_after_another, training_jobs, trainings
from nnunet_ext.trainers.names import TrainerNameError

HEART = "Dataset123_Heart"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """nnU-Net's folder of results; the dataset has splits."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name / HEART).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_preprocessed" / HEART / "splits_final.json").write_text("[]", encoding="utf-8")
    return tmp_path / "nnUNet_results" / HEART


def planned(line: str, members: int | None = None):
    return trainings(train_options(line.split(), members))


def test_every_fold_of_every_member_is_a_training():
    lines = [" ".join(training.words) for training in planned("123 2d 0 1 -tr nnUNetTrainer_250epochs", members=2)]
    assert lines == [
        "train 123 2d 0 -tr nnUNetTrainer_250epochs_member0 -p nnUNetPlans",
        "train 123 2d 1 -tr nnUNetTrainer_250epochs_member0 -p nnUNetPlans",
        "train 123 2d 0 -tr nnUNetTrainer_250epochs_member1 -p nnUNetPlans",
        "train 123 2d 1 -tr nnUNetTrainer_250epochs_member1 -p nnUNetPlans",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "123 2d 0 all -tr nnUNetTrainerDSD -p Plans -num_gpus 2 --npz",
        "-tr nnUNetTrainerDSD 123 2d 0 all --npz -p Plans -num_gpus 2",
        "123 2d --npz 0 all -num_gpus 2 -tr nnUNetTrainerDSD -p Plans",
    ],
)
def test_flags_of_nnunet_may_stand_anywhere(line):
    words = [training.words for training in planned(line)]
    begin, end = ("train", "123", "2d"), ("-tr", "nnUNetTrainerDSD", "-p", "Plans", "-num_gpus", "2", "--npz")
    assert words == [(*begin, "0", *end), (*begin, "all", *end)]


def test_a_training_continues_from_its_checkpoint_without_the_weights_that_it_began_with():
    (training,) = planned("123 2d 0 -pretrained_weights start.pth --npz")
    begin = ("train", "123", "2d", "0", "-tr", "nnUNetTrainer", "-p", "nnUNetPlans", "--npz")
    assert training.words == (*begin, "-pretrained_weights", "start.pth")
    assert training.continuing == (*begin, "--c")


def test_folds_without_a_checkpoint_begin_with_the_weights_that_the_others_began_with(results):
    """nnU-Net's `--c` would begin them with random ones, and refuses both flags together."""
    fold = results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    begun, new = planned(f"{HEART} 2d 0 1 -pretrained_weights start.pth --c")
    assert begun.words[-1] == "--c"
    assert "-pretrained_weights" not in begun.words
    assert new.words[-2:] == ("-pretrained_weights", "start.pth")
    assert "--c" not in new.words


def test_a_validation_is_repeated_as_it_is():
    (training,) = planned("123 2d 0 --val")
    assert training.continuing == training.words


def test_a_trainer_of_the_user_may_train_several_folds():
    assert [training.fold for training in planned("123 2d 0 1 -tr nnUNetTrainerXyzzy")] == ["0", "1"]


@pytest.mark.parametrize("trainer", ["nnUNetTrainerCyclica", "nnUNetTrainer_member3", "nnUNetTrainerXyzzy"])
def test_a_trainer_that_cannot_have_members_is_refused(trainer):
    with pytest.raises(TrainerNameError):
        planned(f"123 2d 0 -tr {trainer}", members=2)


@pytest.mark.parametrize(
    ("line", "members", "said"),
    [
        ("123 2d", 2, "found 123 2d"),
        ("123 2d 0 0", None, "each once; found 0 0"),
        ("123 2d 0 one", None, "found 0 one"),
        ("123 2d 0", 0, "--members must be at least 1; found 0"),
    ],
)
def test_what_is_no_training_is_refused(line, members, said):
    with pytest.raises(ValueError, match=said):
        train_options(line.split(), members)


def test_a_training_that_fails_is_named_after_the_others():
    failing = planned("Dataset999_NotThere 2d 0 -device cpu")
    assert train_one_after_another(failing) == failing


# --- as jobs ---


def jobs_of(line: str):
    return training_jobs(planned(line), cpus=3)


def test_each_training_is_a_job_that_continues_where_its_checkpoints_are(results):
    first, second = jobs_of(f"{HEART} 2d 0 1 -tr nnUNetTrainerDSD")
    assert second.words[:4] == ("train", HEART, "2d", "1")
    assert second.continuing == (*second.words, "--c")
    assert second.checkpoints == results / "nnUNetTrainerDSD__nnUNetPlans__2d" / "fold_1"
    assert first.cpus == 3


def test_a_job_does_not_train_over_checkpoints(results):
    fold = results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_1"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    with pytest.raises(SubmissionError, match=r"fold_1 holds checkpoints. Add --c"):
        jobs_of(f"{HEART} 2d 0 1")
    assert len(jobs_of(f"{HEART} 2d 0 1 --c")) == 2


def test_folds_that_start_together_need_splits(results):
    (results.parent.parent / "nnUNet_preprocessed" / HEART / "splits_final.json").unlink()
    with pytest.raises(SubmissionError, match=r"splits_final.json does not exist. Write it first"):
        jobs_of(f"{HEART} 2d 0 1")
    assert len(jobs_of(f"{HEART} 2d 0")) == 1
    assert len(jobs_of(f"{HEART} 2d all")) == 1
