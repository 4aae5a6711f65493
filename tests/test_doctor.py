"""What `nnunet_ext doctor` finds, and that it says what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from nnunet_ext import discovery, doctor
from nnunet_ext.doctor import Diagnosis

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def by_subject(findings: Iterator[Diagnosis] | list[Diagnosis]) -> dict[str, Diagnosis]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, discovery.VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_a_finding_is_one_line_and_a_problem_has_a_second_with_the_remedy():
    assert str(Diagnosis("torch", "2.10.0")) == "ok       torch                2.10.0"
    lines = str(Diagnosis("nnUNet_raw", "is not set", "set it")).splitlines()
    assert lines[0] == "problem  nnUNet_raw           is not set"
    assert lines[1].strip() == "-> set it"


# --- folders ---


def test_variables_that_are_not_set_are_problems_with_a_remedy(no_variables):
    findings = by_subject(doctor.folders())
    assert list(findings) == list(VARIABLES)
    for variable, finding in findings.items():
        assert finding.state == "is not set"
        assert f"set {variable} to" in finding.remedy


def test_folders_that_exist_are_well(monkeypatch, tmp_path):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))
    for finding in doctor.folders():
        assert (finding.state, finding.remedy) == (str(tmp_path), "")


def test_a_folder_that_does_not_exist_is_named(monkeypatch, tmp_path):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    for finding in doctor.folders():
        assert str(tmp_path / "nowhere") in finding.state
        assert finding.remedy.startswith("create it")


def test_raw_data_may_be_read_only_but_results_may_not(monkeypatch, tmp_path):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    findings = by_subject(doctor.folders())
    assert not findings["nnUNet_raw"].remedy
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        assert "not writable" in findings[variable].state
        assert findings[variable].remedy


# --- versions ---


def test_the_versions_in_use_are_listed():
    findings = by_subject(doctor.versions())
    assert findings["python"].state == ".".join(map(str, sys.version_info[:3]))
    assert findings["torch"].state == metadata.version("torch")
    assert findings["nnunetv2"].state == metadata.version("nnunetv2")
    assert not findings["nnunetv2"].remedy
    assert {"nnunet_ext", "torchvision"} <= set(findings)


@pytest.mark.parametrize(
    ("package", "version", "fits"),
    [
        ("nnunetv2", "2.8.1", True),
        ("nnunetv2", "2.8.12", True),
        ("nnunetv2", "2.8.0", True),
        ("nnunetv2", "2.6.2", False),
        ("nnunetv2", "2.9.0", False),
        ("torch", "2.10.0+cpu", True),
        ("torch", "3.0.1", True),
        ("torch", "2.9.1+cu128", False),  # CVE-2026-24747
    ],
)
def test_a_version_that_does_not_fit_has_a_remedy(monkeypatch, package, version, fits):
    installed = {"nnunetv2": "2.8.1", "torch": "2.10.0", package: version}
    monkeypatch.setattr(doctor.metadata, "version", installed.get)  # of importlib, for everyone
    finding = by_subject(doctor.versions())[package]
    assert finding.state == version
    assert bool(finding.remedy) != fits


def test_a_torchvision_that_does_not_import_is_a_problem(monkeypatch):
    """nnU-Net's search for trainers would stop at it."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    finding = doctor.torchvision_diagnosis()
    assert "cannot be imported" in finding.state
    assert "torchvision from the same index" in finding.remedy


def test_some_device_is_found():
    findings = list(doctor.devices())
    assert findings
    assert not any(finding.remedy for finding in findings)


# --- trainers ---


def test_a_variable_that_is_not_set_gets_the_line_to_set_it(no_variables):
    (finding,) = doctor.trainer_search()
    assert finding.state == "is not set"
    assert discovery.path() in finding.remedy


def test_a_variable_without_our_folder_is_a_problem(monkeypatch):
    monkeypatch.setenv(discovery.VARIABLE, "elsewhere")
    (finding,) = doctor.trainer_search()
    assert "elsewhere" in finding.state
    assert discovery.path() in finding.remedy


def test_nnunet_finds_a_trainer_where_the_variable_is_set(monkeypatch):
    monkeypatch.setenv(discovery.VARIABLE, discovery.path())
    (finding,) = doctor.trainer_search()
    assert (finding.state, finding.remedy) == ("nnU-Net finds nnUNetTrainerCyclical", "")


def test_our_folder_may_be_one_of_several(monkeypatch, tmp_path):
    monkeypatch.setenv(discovery.VARIABLE, os.pathsep.join([str(tmp_path), discovery.path()]))
    (finding,) = doctor.trainer_search()
    assert not finding.remedy


def test_a_search_that_fails_is_reported_not_raised(monkeypatch, tmp_path):
    """Another external folder with a module that cannot be imported stops nnU-Net's search."""
    broken = tmp_path / "broken_trainers.py"
    broken.write_text("raise ImportError('no such wheel')", encoding="utf-8")
    monkeypatch.setenv(discovery.VARIABLE, os.pathsep.join([str(tmp_path), discovery.path()]))
    (finding,) = doctor.trainer_search()
    assert "no such wheel" in finding.state
    assert finding.remedy


# --- all of it ---


def test_the_examination_covers_versions_folders_devices_and_trainers(no_variables):
    subjects = [finding.subject for finding in doctor.examine()]
    assert subjects[0] == "python"
    assert [subject for subject in subjects if subject.startswith("nnUNet_")] == [*VARIABLES, discovery.VARIABLE]


def test_examining_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nowhere"))
    before = dict(os.environ)
    doctor.examine()
    assert dict(os.environ) == before
    assert not Path(tmp_path / "nowhere").exists()
