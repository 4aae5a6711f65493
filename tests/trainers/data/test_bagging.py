"""Bootstrap samples: as many cases, drawn with replacement, the same for the same fold and member."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ext.trainers.data.bagging import bootstrap

CASES = [f"case_{number:02d}" for number in range(8)]
VALIDATION = ["case_20", "case_21"]


def with_split(trainer, training=CASES, validation=VALIDATION):
    """Writes nnU-Net's file of splits, of one fold."""
    file = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    file.write_text(json.dumps([{"train": list(training), "val": list(validation)}]))
    return trainer


def bagging(make_trainer, word="", **options):
    return with_split(make_trainer(f"nnUNetTrainerBagging{word}", initialize=False, **options))


def record(trainer):
    return json.loads((Path(trainer.output_folder) / "bootstrap.json").read_text())


# --- the sample ---


def test_a_bootstrap_has_as_many_keys_as_there_are_and_is_sorted():
    sample = bootstrap(CASES, 0)
    assert len(sample) == len(CASES)
    assert sample == sorted(sample)
    assert set(sample) <= set(CASES)


def test_one_key_is_drawn_and_none_gives_none():
    assert bootstrap(["only"], 3) == ["only"]
    assert bootstrap([], 3) == []


def test_the_sample_depends_on_the_seed_and_not_on_the_order_of_the_keys():
    assert bootstrap(reversed(CASES), 5) == bootstrap(CASES, 5)
    samples = {tuple(bootstrap(CASES, seed)) for seed in range(20)}
    assert len(samples) == 20


def test_the_sample_does_not_depend_on_the_global_generators():
    random.seed(1)
    np.random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()
    first = bootstrap(CASES, "fold 0, member 0")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    random.seed(2)
    np.random.seed(2)
    assert bootstrap(CASES, "fold 0, member 0") == first


def test_the_sample_is_the_same_on_every_machine():
    # random.Random("fold 0, member 0") begins with 0.623, 0.803, 0.188, 0.887,
    # 0.9, 0.169, 0.525, 0.699; eight times these, rounded down:
    drawn = [4, 6, 1, 7, 7, 1, 4, 5]
    assert bootstrap(CASES, "fold 0, member 0") == sorted(CASES[index] for index in drawn)


def test_about_63_percent_of_many_keys_are_in_a_sample():
    # 1 - (1 - 1/1000)^1000 = 0.632; the standard deviation of the share is about 0.01
    shares = [len(set(bootstrap(map(str, range(1000)), seed))) / 1000 for seed in range(10)]
    assert all(0.59 < share < 0.68 for share in shares)
    assert np.mean(shares) == pytest.approx(0.632, abs=0.01)


def test_every_key_is_drawn_equally_often():
    # 8 keys, 1000 samples of 8: each key 1000 times, standard deviation sqrt(8000 / 8 * 7 / 8) = 30
    counts = [sum(bootstrap(CASES, seed).count(key) for seed in range(1000)) for key in CASES]
    assert all(abs(count - 1000) < 150 for count in counts)


# --- the trainer ---


def test_training_cases_are_a_bootstrap_and_validation_cases_are_the_folds(make_trainer):
    training, validation = bagging(make_trainer).do_split()
    assert training == bootstrap(CASES, "fold 0, member 0")
    assert validation == VALIDATION


def test_members_and_folds_draw_different_samples(make_trainer):
    samples = [bagging(make_trainer, word).do_split()[0] for word in ("", "_member1", "_member2")]
    assert samples[0] == bagging(make_trainer, "_member0").do_split()[0]
    another_fold = bagging(make_trainer)
    another_fold.fold = "all"
    seeds = [bagging(make_trainer, word).bootstrap_seed for word in ("", "_member1", "_member2")]
    assert len({*seeds, another_fold.bootstrap_seed}) == 4
    assert len(set(map(tuple, samples))) == 3


def test_all_ranks_draw_the_same(make_trainer):
    assert bagging(make_trainer).do_split() == bagging(make_trainer, local_rank=1).do_split()


def test_splitting_again_gives_the_same_cases(make_trainer):
    # nnU-Net's validation after the training asks for the split again
    trainer = bagging(make_trainer)
    assert trainer.do_split() == trainer.do_split()


def test_fold_all_validates_on_all_cases(make_trainer):
    trainer = bagging(make_trainer)
    trainer.fold = "all"
    for case in CASES:
        (Path(trainer.preprocessed_dataset_folder) / f"{case}.b2nd").touch()
    training, validation = trainer.do_split()
    assert sorted(validation) == ["case", *CASES]  # the fixture's own one, too
    assert training == bootstrap(validation, "fold all, member 0")


def test_the_sample_is_written_once_training_loads_it(make_trainer):
    trainer = bagging(make_trainer, "_member2")
    trainer.do_split()
    assert not (Path(trainer.output_folder) / "bootstrap.json").exists()  # validation alone leaves no trace
    training, _ = trainer.get_tr_and_val_datasets()
    assert record(trainer) == {"seed": "fold 0, member 2", "training_cases": training.identifiers}


def test_a_resumed_training_gets_the_same_sample(make_trainer):
    interrupted, resumed = bagging(make_trainer, "_member2"), bagging(make_trainer, "_member2")
    interrupted.get_tr_and_val_datasets()
    before = record(interrupted)
    training, _ = resumed.get_tr_and_val_datasets()
    assert record(resumed) == before
    assert training.identifiers == before["training_cases"]


@pytest.mark.parametrize("options", [{"local_rank": 1}, {"disable_checkpointing": True}])
def test_only_a_process_that_writes_files_writes_the_sample(make_trainer, options):
    trainer = bagging(make_trainer, **options)
    trainer.get_tr_and_val_datasets()
    assert not (Path(trainer.output_folder) / "bootstrap.json").exists()


# --- nnU-Net's loader ---


def save_case(trainer, case, value):
    """A preprocessed case of one slice of 32 x 32 voxels of one value, an organ at one of them."""
    image = np.full((1, 1, 32, 32), value, np.float32)
    labels = np.zeros((1, 1, 32, 32), np.int8)
    labels[0, 0, 5, 5] = 1
    locations = {1: np.array([[0, 0, 5, 5]]), 2: np.zeros((0, 4), int)}
    file = Path(trainer.preprocessed_dataset_folder) / case
    shape = image.shape
    nnUNetDatasetBlosc2.save_case(
        image, labels, {"class_locations": locations}, str(file), chunks=shape, blocks=shape
    )


def test_nnunets_loader_draws_a_repeated_case_more_often(make_trainer):
    trainer = bagging(make_trainer)
    for value, case in enumerate(CASES):
        save_case(trainer, case, value)
    training, _ = trainer.get_tr_and_val_datasets()
    loader = nnUNetDataLoader(training, 2, (32, 32), (32, 32), trainer.label_manager, 0.33)
    np.random.seed(0)
    drawn = [key for _ in range(1000) for key in loader.get_indices()]
    for case in CASES:
        # 2000 draws; the standard deviation of a share is at most sqrt(1/4 / 2000) = 0.011
        assert drawn.count(case) / 2000 == pytest.approx(training.identifiers.count(case) / 8, abs=0.045)
    batch = loader.generate_train_batch()
    assert [CASES[int(image.max())] for image in batch["data"]] == list(batch["keys"])
