"""`nnunet_ext doctor` as a user runs it: in a process of its own where all is well."""

from __future__ import annotations


def test_all_is_well_where_the_folders_and_the_variable_are_set(run_command, env_line):
    done = run_command("nnunet_ext", "doctor", **env_line)
    assert "problem" not in done.stdout
    assert "nnU-Net finds nnUNetTrainerCyclical" in done.stdout


def test_a_missing_folder_and_a_missing_variable_are_told_with_status_1(run_here, tmp_path, capsys):
    assert run_here("doctor", nnUNet_results=str(tmp_path / "nowhere")) == 1
    problems = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert problems == ["nnUNet_results", "nnUNet_extTrainer"]
