"""Groups of a handful of rows, and tables that a person could have written."""

import math

import pytest

from nnunet_ext.evaluation.error_analysis import (
    by_column,
    by_size_tertile,
    by_structure,
    error_analysis,
    read_columns,
    worst_cases,
)
from nnunet_ext.evaluation.results import CaseEvaluation

NAN = math.nan


def row(case, dice, volume_ml=1.0, structure="liver", wrong=(0, 0, 0)):
    return {
        "case": case,
        "structure": structure,
        "dice": dice,
        "true_volume_ml": volume_ml,
        "missed_voxels": wrong[0],
        "spurious_voxels": wrong[1],
        "boundary_voxels": wrong[2],
    }


def numbers(groups):
    """Rows of each group."""
    return {name: group["n"] for name, group in groups.items()}


# --- groups ---


def test_a_group_has_mean_dice_and_the_shares_of_its_wrong_voxels():
    """Dice 0.5 and 1. Missed 6 + 0, spurious 1 + 2, boundary 3 + 8: 20 wrong voxels."""
    rows = [row("a", 0.5, 4.0, wrong=(6, 1, 3)), row("b", 1.0, 2.0, wrong=(0, 2, 8))]
    assert by_structure(rows) == {
        "liver": {
            "n": 2,
            "smallest_ml": 2.0,
            "largest_ml": 4.0,
            "without_dice": 0,
            "mean_dice": 0.75,
            "wrong_voxels": 20,
            "missed_share": 0.3,
            "spurious_share": 0.15,
            "boundary_share": 0.55,
        }
    }


def test_a_row_without_a_dice_counts_but_not_in_the_mean():
    group = by_structure([row("a", 0.5), row("b", NAN, 0.0)])["liver"]
    assert (group["n"], group["without_dice"], group["mean_dice"]) == (2, 1, 0.5)


def test_where_nothing_is_wrong_there_are_no_shares():
    group = by_structure([row("a", NAN, 0.0)])["liver"]
    assert group["wrong_voxels"] == 0
    assert all(math.isnan(group[key]) for key in ("mean_dice", "missed_share", "spurious_share", "boundary_share"))


def test_structures_keep_their_order():
    rows = [row("a", 1, structure="tumour"), row("a", 1, structure="liver"), row("b", 1, structure="tumour")]
    assert list(numbers(by_structure(rows)).items()) == [("tumour", 2), ("liver", 1)]


# --- sizes ---


def test_thirds_are_those_of_each_structure():
    """Livers of 1000 to 1005 ml, tumours of 1 to 3 ml; Dice tells which rows are where."""
    rows = [row(str(index), index / 10, 1000.0 + index) for index in range(6)]
    rows += [row(str(index), 0.5, 1.0 + index, structure="tumour") for index in range(3)]
    sizes = by_size_tertile(reversed(rows))
    assert {size: group["mean_dice"] for size, group in sizes["liver"].items()} == pytest.approx(
        {"small": 0.05, "medium": 0.25, "large": 0.45}
    )
    assert (sizes["liver"]["medium"]["smallest_ml"], sizes["liver"]["medium"]["largest_ml"]) == (1002, 1003)
    assert numbers(sizes["tumour"]) == {"small": 1, "medium": 1, "large": 1}


@pytest.mark.parametrize(
    ("volumes_ml", "expected"),
    [
        ([5], {"small": 1}),
        ([5, 5, 5], {"small": 3}),  # equal volumes stay together
        ([1, 2], {"small": 1, "medium": 1}),
        ([1, 2, 3, 4], {"small": 2, "medium": 1, "large": 1}),
        ([1, 2, 2, 2, 2, 3], {"small": 5, "large": 1}),
        ([0, 1, 2, 3, 0], {"small": 1, "medium": 1, "large": 1, "empty": 2}),
        ([0], {"empty": 1}),
    ],
)
def test_rows_of_a_volume_stay_together_and_empty_ones_apart(volumes_ml, expected):
    rows = [row(str(index), 0.5, volume) for index, volume in enumerate(volumes_ml)]
    assert numbers(by_size_tertile(rows)["liver"]) == expected


# --- columns ---


def test_cases_without_a_value_are_unknown_and_last():
    rows = [row("a", 0.2), row("b", 0.4), row("c", 0.6), row("c", 1.0, structure="tumour")]
    groups = by_column(rows, {"a": "zurich", "c": "athens", "not there": "bern"})
    assert list(groups) == ["athens", "zurich", "unknown"]
    assert {value: group["mean_dice"] for value, group in groups.items()} == pytest.approx(
        {"athens": 0.8, "zurich": 0.2, "unknown": 0.4}
    )


# --- worst cases ---


def test_the_worst_come_first_and_those_without_a_dice_last():
    dice = {"d": NAN, "c": 0.9, "b": 0.5, "a": 0.5, "e": NAN, "f": 0.1}
    assert [entry["case"] for entry in worst_cases(dice, 10)] == ["f", "a", "b", "c", "d", "e"]
    assert worst_cases(dice, 2) == [{"case": "f", "mean_dice": 0.1}, {"case": "a", "mean_dice": 0.5}]
    assert worst_cases(dice, 0) == worst_cases({}, 3) == []


def test_a_negative_number_of_cases_is_refused():
    with pytest.raises(ValueError, match="at least 0; found -1"):
        worst_cases({"a": 0.5}, -1)


# --- everything ---


def test_an_analysis_names_its_groups():
    def evaluated(case, dice, volume_ml):
        figures = row(case, dice, volume_ml, wrong=(1, 2, 3))
        return CaseEvaluation(case, {"liver": figures}, {"mean_dice": dice}, stock={})

    cases = [evaluated("a", 0.5, 2.0), evaluated("b", 0.75, 1.0)]
    analysis = error_analysis(cases, {"centre": {"a": "X"}}, worst=1)
    assert numbers(analysis["groups"]) == {
        "liver": 2,
        "liver, small": 1,
        "liver, medium": 1,
        "centre: X": 1,
        "centre: unknown": 1,
    }
    assert analysis["groups"]["liver"]["wrong_voxels"] == 12
    assert analysis["groups"]["liver, small"]["mean_dice"] == 0.75
    assert analysis["worst_cases"] == [{"case": "a", "mean_dice": 0.5}]


def test_no_cases_make_no_groups():
    assert error_analysis([], {}, worst=5) == {"groups": {}, "worst_cases": []}


# --- tables ---


def table(folder, text, encoding="utf-8"):
    path = folder / "cases.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_are_read_by_case(tmp_path):
    path = table(tmp_path, 'centre,case,scanner\r\nA,one,"Avanto, 1.5 T"\r\n B ,two,\r\n\r\nA,three\r\n')
    assert read_columns(path) == {
        "centre": {"one": "A", "two": "B", "three": "A"},
        "scanner": {"one": "Avanto, 1.5 T"},  # empty cells are left out
    }


def test_a_byte_order_mark_does_no_harm(tmp_path):
    assert read_columns(table(tmp_path, "case,centre\na,Köln\n", "utf-8-sig")) == {"centre": {"a": "Köln"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"column 'case'.*has the columns \[\]"),
        ("name,centre\na,A\n", r"has the columns \['name', 'centre'\]"),
        ("case;centre\na;A\n", r"separated by commas.*\['case;centre'\]"),
        ("case,centre,centre\na,A,B\n", "each column once"),
        ("case,centre\na,A\nb,B,C\n", "one cell per column, 2; line 3 of .* has 3"),
        ("case,centre\na,A\na,B\n", 'each case once; line 3 of .* names "a" again'),
        ("case,centre\n,A\n", "line 2 of .* names none"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_columns(table(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be UTF-8.*Save it as CSV UTF-8"):
        read_columns(table(tmp_path, "case,centre\na,Köln\n", "latin-1"))


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_columns(tmp_path / "nothing.csv")
