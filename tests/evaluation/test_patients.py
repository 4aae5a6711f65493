"""Names of patients in names of cases."""

import pytest

from nnunet_ext.evaluation.patients import patient_of


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
    with pytest.raises(ValueError, match=f'finds none in "{case}"'):
        patient_of(case, pattern)


def test_a_pattern_without_a_group_is_refused():
    with pytest.raises(ValueError, match=r'group in parentheses.*found "patient"'):
        patient_of("patient001", "patient")


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r'must be a regular expression; found "\(patient"'):
        patient_of("patient001", "(patient")
