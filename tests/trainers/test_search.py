"""`nnunet_ext trainers WORD`: parts and nnU-Net's own variants by a word."""

from nnunet_ext.cli import main


def test_a_word_finds_parts_and_stock_variants_whatever_its_capitals(capsys):
    assert main(["trainers", "MIRROR"]) == 0
    printed = capsys.readouterr().out
    assert "-tr nnUNetTrainerNoMirroring" in printed
    assert "-tr nnUNetTrainer_onlyMirror01_DA5" in printed
    assert "Cyclical<M>" not in printed


def test_a_word_that_only_parts_have_shows_no_variants(capsys):
    assert main(["trainers", "nnUNetTrainerCyclical"]) == 0
    printed = capsys.readouterr().out
    assert "Cyclical<M>" in printed
    assert "own variants" not in printed


def test_a_word_that_finds_nothing_names_the_closest(capsys):
    assert main(["trainers", "Cylical"]) == 1
    assert "Did you mean Cyclical" in capsys.readouterr().err
