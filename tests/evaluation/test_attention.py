"""Which case to open first."""

from __future__ import annotations

from nnunet_ext.evaluation.attention import Row, flags_of, order_column, worst_first


def row(name: str, **cells: object) -> Row:
    return {"case": name, **cells}


def names(rows: list[Row]) -> list[str]:
    return [row["case"] for row in rows]


def test_numbers_and_texts_are_ordered_alike():
    """`predict` has the numbers, the report the texts of the file; both begin with the same case."""
    texts = [row("a", pairwise_dice="0.9", flags=""), row("b", pairwise_dice="0.8", flags=""), row("c", flags="x;y")]
    numbers = [
        row("a", pairwise_dice=0.9, flags=[]),
        row("b", pairwise_dice=0.8, flags=[]),
        row("c", pairwise_dice=float("nan"), flags=["x", "y"]),
    ]
    assert (
        names(worst_first(texts, "pairwise_dice")) == names(worst_first(numbers, "pairwise_dice")) == ["c", "b", "a"]
    )
    assert flags_of(texts[2]) == flags_of(numbers[2]) == ["x", "y"]


def test_of_equal_verdicts_the_smaller_predicted_dice_comes_first():
    rows = [row(name, verdict="review", predicted_dice=dice) for name, dice in (("a", "0.8"), ("b", "0.7"))]
    assert names(worst_first(rows, "predicted_dice")) == ["b", "a"]


def test_of_equal_predicted_dice_the_largest_entropy_comes_first():
    entropies = {"a": "0.1", "b": "0.3", "c": "0.2"}
    rows = [
        row(name, verdict="accept", predicted_dice="0.9", foreground_entropy=value)
        for name, value in entropies.items()
    ]
    assert names(worst_first(rows, "predicted_dice")) == ["b", "c", "a"]


def test_the_largest_entropy_comes_first():
    rows = [row("a", foreground_entropy="0.1"), row("b", foreground_entropy="0.3")]
    assert names(worst_first(rows, "foreground_entropy")) == ["b", "a"]


def test_empty_segmentations_come_first_because_they_read_as_confident():
    rows = [row("a", pairwise_dice="0.5"), row("b", pairwise_dice="1", flags="empty_segmentation")]
    assert names(worst_first(rows, "pairwise_dice")) == ["b", "a"]


def test_a_case_without_a_value_comes_before_those_with_one():
    rows = [row("a", predicted_dice="0.1"), row("b", predicted_dice="")]
    assert names(worst_first(rows, "predicted_dice")) == ["b", "a"]


def test_with_one_member_the_entropy_orders_the_cases():
    rows = [{"case": "a", "pairwise_dice": "", "foreground_entropy": "0.1"}]
    assert order_column(rows) == "foreground_entropy"


def test_cases_without_any_confidence_are_in_alphabetical_order():
    assert order_column([{"case": "a"}]) == ""
    assert names(worst_first([row("b"), row("a")], "")) == ["a", "b"]
