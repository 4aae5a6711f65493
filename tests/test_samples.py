"""The manifest of samples, and the selections of arXiv 2212.06278 with numbers worked out by hand."""

import json
import logging
import random

import pytest

from nnunet_ext.samples import (
    Sample,
    add_to_manifest,
    is_sample_file,
    read_manifest,
    remove_samples,
    sample_file_name,
    select_all_modes,
    select_last_cycle,
)


def sample(cycle, epoch, **values):
    return Sample(
        **{
            "file": sample_file_name(cycle, epoch),
            "cycle": cycle,
            "epoch": epoch,
            "epoch_in_cycle": 0,
            "learning_rate": 0.01,
            "pseudo_dice": 0.5,
            "sha256": "0" * 64,
            **values,
        }
    )


# The default training: cycles of 400 epochs, of which the last 80 (index 320 to 399) are samples.
DEFAULT = [sample(cycle, 400 * cycle + t) for cycle in range(3) for t in range(320, 400)]


def epochs(samples):
    return [sample.epoch for sample in samples]


# --- files ---


@pytest.mark.parametrize(
    ("cycle", "epoch", "name"),
    [
        (0, 320, "checkpoint_c0_e0320.pth"),
        (2, 1199, "checkpoint_c2_e1199.pth"),
        (11, 12345, "checkpoint_c11_e12345.pth"),
    ],
)
def test_file_names_tell_cycle_and_epoch(cycle, epoch, name):
    assert sample_file_name(cycle, epoch) == name
    assert is_sample_file(name)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint_final.pth",
        "checkpoint_best.pth",
        "checkpoint_posterior.pth",
        "checkpoint_c0_e0320.pth.bak",
        ".partial-checkpoint_c0_e0320.pth",
        "checkpoint_c0_e320.pth",
        "checkpoint_c_e0320.pth",
        "checkpoint_chest_e0320.pth",
    ],
)
def test_other_files_are_not_samples(name):
    assert not is_sample_file(name)


def test_a_folder_without_a_manifest_has_no_samples(tmp_path):
    assert read_manifest(tmp_path) == []


def test_the_manifest_gives_back_what_was_added_by_epoch(tmp_path):
    late = sample(1, 19, epoch_in_cycle=9, learning_rate=0.0075643, pseudo_dice=None, sha256="ab" * 32)
    early = sample(0, 9, pseudo_dice=0.875)
    add_to_manifest(tmp_path, late)
    add_to_manifest(tmp_path, early)
    assert read_manifest(tmp_path) == [early, late]


def test_the_manifest_is_json_that_others_can_read(tmp_path):
    add_to_manifest(tmp_path, sample(1, 19, epoch_in_cycle=9, pseudo_dice=None))
    assert json.loads((tmp_path / "samples.json").read_text()) == {
        "samples": [
            {
                "file": "checkpoint_c1_e0019.pth",
                "cycle": 1,
                "epoch": 19,
                "epoch_in_cycle": 9,
                "learning_rate": 0.01,
                "pseudo_dice": None,
                "sha256": "0" * 64,
            }
        ]
    }


def test_a_sample_that_is_made_again_replaces_its_entry(tmp_path):
    for epoch in (8, 9):
        add_to_manifest(tmp_path, sample(0, epoch))
    again = sample(0, 8, pseudo_dice=0.75, sha256="1" * 64)
    add_to_manifest(tmp_path, again)
    assert read_manifest(tmp_path) == [again, sample(0, 9)]


def test_removing_samples_leaves_all_other_files(tmp_path):
    others = ["checkpoint_final.pth", "checkpoint_swa.pth", "checkpoint_chest_extra.pth", "progress.png"]
    for name in ["checkpoint_c0_e0009.pth", "checkpoint_c2_e0029.pth", *others]:
        (tmp_path / name).touch()
    add_to_manifest(tmp_path, sample(0, 9))
    remove_samples(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_samples(tmp_path)  # nothing left to remove


# --- selections ---


def test_everything_is_all_samples_by_epoch():
    assert epochs(select_all_modes(DEFAULT)) == epochs(DEFAULT)


def test_multi_modal_takes_the_latest_of_each_cycle():
    # 30 over 3 cycles: the last 10 epochs of each
    expected = [*range(390, 400), *range(790, 800), *range(1190, 1200)]
    assert epochs(select_all_modes(DEFAULT, 30)) == expected


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (31, (10, 10, 11)),
        (32, (10, 11, 11)),
        (10, (3, 3, 4)),
        (3, (1, 1, 1)),
        (2, (0, 1, 1)),
        (1, (0, 0, 1)),
    ],
)
def test_a_remainder_goes_to_the_latest_cycles(count, shares):
    expected = [
        epoch for end, share in zip((400, 800, 1200), shares, strict=True) for epoch in range(end - share, end)
    ]
    assert epochs(select_all_modes(DEFAULT, count)) == expected


def test_multi_modal_with_a_stride_counts_back_from_each_cycles_end():
    # 6 over 3 cycles are 2 each: t = 400 and 397, counted from 1, at stride 3
    assert epochs(select_all_modes(DEFAULT, 6, stride=3)) == [396, 399, 796, 799, 1196, 1199]


def test_every_nth_of_all_counts_back_from_each_cycles_end():
    # 80 samples at stride 30: t = 400, 370 and 340
    assert epochs(select_all_modes(DEFAULT, stride=30)) == [339, 369, 399, 739, 769, 799, 1139, 1169, 1199]


def test_single_modal_of_the_paper():
    # 30 at stride 2: t = 400 - 2 i for i = 0 to 29 is 342, 344, ..., 400; in cycle 2 the epochs 1141, ..., 1199
    assert epochs(select_last_cycle(DEFAULT, 30, stride=2)) == list(range(1141, 1200, 2))


def test_single_modal_without_a_count_is_the_whole_plateau():
    assert epochs(select_last_cycle(DEFAULT)) == list(range(1120, 1200))


def test_more_than_a_cycle_has_is_clipped_with_a_warning(caplog):
    # 80 samples at stride 2 are 40: t = 322, 324, ..., 400
    with caplog.at_level(logging.WARNING):
        chosen = select_last_cycle(DEFAULT, 50, stride=2)
    assert epochs(chosen) == list(range(1121, 1200, 2))
    assert len(caplog.messages) == 1
    for said in ("Cycle 2", "40", "50", "stride 2"):
        assert said in caplog.messages[0]


def test_only_the_short_cycle_is_clipped(caplog):
    # As after a training that was stopped and started with other settings: 2 samples in cycle 0, 5 in cycle 1
    samples = [sample(0, 8), sample(0, 9), *(sample(1, epoch) for epoch in range(15, 20))]
    with caplog.at_level(logging.WARNING):
        assert epochs(select_all_modes(samples, 6)) == [8, 9, 17, 18, 19]
    assert "Cycle 0 has 2 samples" in caplog.text


def test_a_selection_that_fits_warns_of_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        select_all_modes(DEFAULT, 240)
        select_last_cycle(DEFAULT, 40, stride=2)
        select_all_modes(DEFAULT)
    assert caplog.messages == []


def test_the_order_of_the_samples_does_not_matter():
    shuffled = random.Random(0).sample(DEFAULT, len(DEFAULT))
    assert select_all_modes(shuffled, 31, stride=2) == select_all_modes(DEFAULT, 31, stride=2)
    assert select_last_cycle(shuffled, 7) == select_last_cycle(DEFAULT, 7)


def test_a_selection_of_nothing_is_nothing():
    assert select_all_modes([]) == []
    assert select_all_modes([], 30) == []
    assert select_last_cycle([], 30) == []


@pytest.mark.parametrize("select", [select_all_modes, select_last_cycle])
@pytest.mark.parametrize("value", [0, -1])
def test_count_and_stride_must_be_positive(select, value):
    with pytest.raises(ValueError, match=f"count of samples must be at least 1; found {value}"):
        select(DEFAULT, value)
    with pytest.raises(ValueError, match=f"stride of samples must be at least 1; found {value}"):
        select(DEFAULT, 3, stride=value)
