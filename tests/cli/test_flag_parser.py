"""Mistyped flags and commands: the usage of the subcommand and what was meant."""

from __future__ import annotations

import pytest

from nnunet_ext.cli import main

PREDICT = ["predict", "-i", "images", "-o", "out", "-m", "model"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of a command line that cannot be read."""
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--device", "-device"),
        ("--step-size", "-step_size"),
        ("--disable-tta", "--disable_tta"),
        ("--save_probabilites", "--save_probabilities"),
        ("--dataset", "-d"),
        ("--trainer", "-tr"),
        ("--fold", "-f"),
    ],
)
def test_a_near_miss_of_a_flag_shows_the_usage_of_the_subcommand_and_what_was_meant(flag, meant, capsys):
    message = refused(capsys, *PREDICT, flag, "1")
    assert message.startswith("usage: nnunet_ext predict")
    assert f"Did you mean {meant}" in message


def test_what_was_meant_is_also_said_where_a_required_flag_is_missing(capsys):
    message = refused(capsys, "predict", "-i", "images", "--output=out")
    assert "required: -o" in message
    assert "Did you mean -o" in message


def test_a_flag_that_is_left_out_on_purpose_says_why(capsys):
    assert "Leave out --not_on_device" in refused(capsys, *PREDICT, "--not_on_device")


def test_flags_that_resemble_nothing_get_no_guess(capsys):
    message = refused(capsys, *PREDICT, "--xyzzy", "--disable_progress_bar")
    assert "unrecognized arguments: --xyzzy" in message
    assert "Did you mean" not in message


def test_a_command_that_does_not_exist_names_the_closest(capsys):
    assert "Did you mean predict?" in refused(capsys, "predit", "-i", "images")
