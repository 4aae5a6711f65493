"""Names of patients in names of cases."""

import pytest

from nnunet_ext.patients import PATTERN_OF_SUCH_NAMES, cases_of_one_name, patient_of


@pytest.mark.parametrize(
    ("case", "pattern", "patient"),
    [
        ("patient001_frame01", r"(patient\d+)_", "patient001"),
        ("ACDC_patient001_frame12", r"(patient\d+)_", "patient001"),  # anywhere in the name
        ("A1_scan2", r"^([A-Z]\d)_(scan\d)", "A1"),  # the first group
        ("patient001_frame01", None, "patient001_frame01"),
    ],
)
def test_the_first_group_is_the_patient(case, pattern, patient):
    assert patient_of(case, pattern) == patient


@pytest.mark.parametrize(("case", "pattern"), [("heart_01", r"(patient\d+)"), ("_frame01", "(.*)_"), ("b", "(a)|b")])
def test_a_case_without_a_patient_is_refused(case, pattern):
    with pytest.raises(ValueError, match=f'finds no patient in "{case}"'):
        patient_of(case, pattern)


def test_a_pattern_without_a_group_is_refused():
    with pytest.raises(ValueError, match=r'group in parentheses.*found "patient"'):
        patient_of("patient001", "patient")


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r'must be a regular expression; found "\(patient"'):
        patient_of("patient001", "(patient")


# --- patients that nobody named ---


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        (
            ["patient001_frame01", "patient001_frame12", "patient002_frame01", "patient003_frame01"],
            {"patient001": ["patient001_frame01", "patient001_frame12"]},
        ),
        (["A0-17-es", "A0-17-ed", "A0-18-es"], {"A0-17": ["A0-17-ed", "A0-17-es"]}),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"],
         {"BraTS-GLI-00005": ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"]}),
        (["heart_7_left", "heart_7_right", "heart_8_left"], {"heart_7": ["heart_7_left", "heart_7_right"]}),
    ],
)  # fmt: skip
def test_names_that_look_like_cases_of_one_patient(cases, found):
    assert cases_of_one_name(cases) == found
    for patient, names in found.items():
        assert {patient_of(name, PATTERN_OF_SUCH_NAMES) for name in names} == {patient}


@pytest.mark.parametrize(
    "cases",
    [
        [],
        ["hippocampus_001", "hippocampus_002", "hippocampus_003"],
        ["case_00001", "case_00002"],
        ["BraTS20_Training_001", "BraTS20_Training_002"],
        ["FLARE22_001", "FLARE22_002", "FLARE22_003"],  # the name of a collection ends in a number
        [f"KiTS{year}_{number:03}" for year in (19, 21, 23) for number in range(4)],
        ["patient001_frame01", "patient002_frame01", "patient003_frame01"],  # one each
        ["s0001", "s0002"],
    ],
)
def test_names_that_do_not(cases):
    assert cases_of_one_name(cases) == {}
