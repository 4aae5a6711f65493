"""cases.csv is whole after every case, and holds every part's rows when several processes wrote it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.prediction_folder import case_table
from nnunet_ext.prediction_folder.case_table import CaseTable, read_cases


def _text(folder: Path, name: str = "cases.csv") -> str:
    return (folder / name).read_bytes().decode("utf-8")


def _cases(folder: Path, name: str = "cases.csv") -> list[str]:
    return [row["case"] for row in read_cases(folder / name)]


def _make_older(path: Path, seconds: int) -> None:
    """Dates a file back, since two writes of a test may fall into the same tick of the file system's clock."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_file_is_whole_and_sorted_after_each_case(tmp_path: Path) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    table.add({"case": "liver_2", "members": 3})
    assert _text(tmp_path) == "case,members\nliver_2,3\n"
    table.add({"case": "liver_1", "members": 5})
    assert _text(tmp_path) == "case,members\nliver_1,5\nliver_2,3\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


def test_header_is_the_union_with_case_first_and_flags_last(tmp_path: Path) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    table.add({"flags": ["empty"], "members": 3, "case": "b"})
    table.add({"case": "a", "volume_ml_1": 2.5, "flags": ["small", "uncertain"]})
    # first seen: members (case b), then volume_ml_1 (case a)
    assert _text(tmp_path) == "case,members,volume_ml_1,flags\na,,2.5,small;uncertain\nb,3,,empty\n"


def test_rows_that_arrived_in_another_order_leave_the_same_table(tmp_path: Path) -> None:
    rows = {"a": {"case": "a", "x": 1}, "b": {"case": "b", "y": 2}, "c": {"case": "c", "z": 3}}
    for name, order in (("one", "abc"), ("other", "cba")):
        table = CaseTable(tmp_path / name, keep_existing=False)
        for case in order:
            table.add(rows[case])
        table.arrange(["a", "b", "c"])
        table.finish()
    assert _text(tmp_path / "other") == _text(tmp_path / "one")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (1 / 3, "0.333333"),
        (np.float32(0.1), "0.1"),  # the float32 nearest to 0.1 is 0.100000001490116
        (1234567.0, "1.23457e+06"),
        (float("nan"), ""),
        (np.float64("nan"), ""),
        (None, ""),
        (1234567, "1234567"),
        (np.int64(7), "7"),
        ([], ""),
        ("needs, review", '"needs, review"'),
    ],
)
def test_how_values_are_written(tmp_path: Path, value: object, cell: str) -> None:
    CaseTable(tmp_path, keep_existing=False).add({"case": "a", "value": value})
    assert _text(tmp_path) == f"case,value\na,{cell}\n"


def test_adding_a_case_again_replaces_its_row(tmp_path: Path) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    table.add({"case": "a", "members": 3})
    table.add({"case": "a", "members": 4})
    assert read_cases(tmp_path / "cases.csv") == [{"case": "a", "members": "4"}]


def test_reading_gives_the_text_of_the_cells(tmp_path: Path) -> None:
    CaseTable(tmp_path, keep_existing=False).add({"case": "größe_1", "entropy": 0.25, "flags": ["x", "y"]})
    assert read_cases(tmp_path / "cases.csv") == [{"case": "größe_1", "entropy": "0.25", "flags": "x;y"}]


def test_reading_accepts_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbfcase,members\r\na,3\r\n")
    assert read_cases(tmp_path / "cases.csv") == [{"case": "a", "members": "3"}]


def test_reading_refuses_a_table_without_cases(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("name,members\na,3\n")
    with pytest.raises(ValueError, match=r"column 'case'.*\['name', 'members'\]"):
        read_cases(tmp_path / "cases.csv")


def test_a_row_without_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column 'case'"):
        CaseTable(tmp_path, keep_existing=False).add({"members": 3})


@pytest.mark.parametrize(("part_id", "num_parts"), [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_does_not_exist_is_refused(tmp_path: Path, part_id: int, num_parts: int) -> None:
    with pytest.raises(ValueError, match=f"part_id {part_id} with num_parts {num_parts}"):
        CaseTable(tmp_path, part_id=part_id, num_parts=num_parts, keep_existing=False)


def test_a_run_without_cases_leaves_a_table_without_rows(tmp_path: Path) -> None:
    CaseTable(tmp_path / "new", keep_existing=False).finish()
    assert read_cases(tmp_path / "new" / "cases.csv") == []


def test_continuing_keeps_rows_and_starting_over_drops_them(tmp_path: Path) -> None:
    CaseTable(tmp_path, keep_existing=False).add({"case": "a", "members": 3})
    continued = CaseTable(tmp_path, keep_existing=True)
    continued.add({"case": "b", "members": 3})
    assert _cases(tmp_path) == ["a", "b"]
    CaseTable(tmp_path, keep_existing=False).add({"case": "c", "members": 3})
    assert _cases(tmp_path) == ["c"]


def test_a_failed_write_keeps_the_table_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    table.add({"case": "a", "members": 3})

    def disk_is_full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        table.add({"case": "b", "members": 3})
    assert _text(tmp_path) == "case,members\na,3\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


@pytest.mark.parametrize("finishing_order", [(0, 1), (1, 0)])
def test_two_parts_merge_in_any_order(tmp_path: Path, finishing_order: tuple[int, int]) -> None:
    tables = [CaseTable(tmp_path, part_id=part, num_parts=2, keep_existing=False) for part in (0, 1)]
    tables[0].add({"case": "a", "members": 3, "flags": []})
    tables[1].add({"case": "b", "members": 3, "volume_ml_1": 2.0, "flags": ["small"]})
    assert not (tmp_path / "cases.csv").exists()
    tables[finishing_order[0]].finish()
    tables[0].add({"case": "c", "members": 3, "flags": []})
    for part in finishing_order:
        tables[part].finish()

    assert _text(tmp_path) == "case,members,volume_ml_1,flags\na,3,,\nb,3,2,small\nc,3,,\n"
    assert _cases(tmp_path, "cases_part0of2.csv") == ["a", "c"]
    assert _cases(tmp_path, "cases_part1of2.csv") == ["b"]


def test_parts_keep_an_existing_table(tmp_path: Path) -> None:
    CaseTable(tmp_path, keep_existing=False).add({"case": "earlier", "members": 3})
    part = CaseTable(tmp_path, part_id=0, num_parts=2, keep_existing=False)
    part.add({"case": "a", "members": 3})
    part.finish()
    assert _cases(tmp_path) == ["a", "earlier"]


def test_many_parts_finishing_at_once_lose_no_row(tmp_path: Path) -> None:
    """Threads stand in for processes: they share nothing but the folder."""
    num_parts, cases_per_part = 6, 5
    start = threading.Barrier(num_parts)
    failures: list[BaseException] = []

    def predict(part: int) -> None:
        try:
            start.wait()
            table = CaseTable(tmp_path, part_id=part, num_parts=num_parts, keep_existing=True)
            for number in range(cases_per_part):
                table.add({"case": f"case_{number}_{part}", "part": part})
                table.finish()
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=predict, args=(part,)) for part in range(num_parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    expected = sorted(f"case_{number}_{part}" for number in range(cases_per_part) for part in range(num_parts))
    assert _cases(tmp_path) == expected
    assert not list(tmp_path.glob(".partial-*"))


def test_a_merge_notices_that_another_part_replaced_the_table_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part 1 reads part 0's file too early, and writes its table after part 0 has written the complete one."""
    first = CaseTable(tmp_path, part_id=0, num_parts=2, keep_existing=False)
    second = CaseTable(tmp_path, part_id=1, num_parts=2, keep_existing=False)
    second.add({"case": "b"})
    write = case_table.write_text_shared

    def part_0_comes_first(text: str, path: Path) -> None:
        monkeypatch.setattr(case_table, "write_text_shared", write)
        first.add({"case": "a"})
        first.finish()
        assert _cases(tmp_path) == ["a", "b"]
        write(text, path)
        assert _cases(tmp_path) == ["b"]

    monkeypatch.setattr(case_table, "write_text_shared", part_0_comes_first)
    second.finish()
    assert _cases(tmp_path) == ["a", "b"]


def test_parts_continue_after_being_killed(tmp_path: Path) -> None:
    for part, case in ((0, "a"), (1, "b")):
        CaseTable(tmp_path, part_id=part, num_parts=2, keep_existing=False).add({"case": case, "members": 3})
    tables = [CaseTable(tmp_path, part_id=part, num_parts=2, keep_existing=True) for part in (0, 1)]
    tables[0].add({"case": "c", "members": 3})
    for table in tables:
        table.finish()
    assert _cases(tmp_path) == ["a", "b", "c"]


def test_a_single_process_continues_killed_parts_and_tidies_up(tmp_path: Path) -> None:
    for part, case in ((0, "a"), (1, "b")):
        CaseTable(tmp_path, part_id=part, num_parts=2, keep_existing=False).add({"case": case, "members": 3})
    table = CaseTable(tmp_path, keep_existing=True)
    table.add({"case": "c", "members": 3})
    table.finish()
    assert _cases(tmp_path) == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


def test_a_part_replaces_rows_of_an_earlier_run(tmp_path: Path) -> None:
    CaseTable(tmp_path, keep_existing=False).add({"case": "a", "members": 3})
    part = CaseTable(tmp_path, part_id=0, num_parts=2, keep_existing=False)
    part.add({"case": "a", "members": 5})
    part.finish()
    assert read_cases(tmp_path / "cases.csv") == [{"case": "a", "members": "5"}]


def test_the_latest_part_file_wins(tmp_path: Path) -> None:
    """Two parts were killed; a later run with four parts predicted their case again."""
    CaseTable(tmp_path, part_id=1, num_parts=2, keep_existing=False).add({"case": "a", "members": 3})
    _make_older(tmp_path / "cases_part1of2.csv", seconds=60)
    new = CaseTable(tmp_path, part_id=0, num_parts=4, keep_existing=False)
    new.add({"case": "a", "members": 5})
    new.finish()
    assert read_cases(tmp_path / "cases.csv") == [{"case": "a", "members": "5"}]


def test_continuing_with_another_number_of_parts_brings_no_old_row_back(tmp_path: Path) -> None:
    old = CaseTable(tmp_path, part_id=0, num_parts=2, keep_existing=False)
    old.add({"case": "a", "members": 3})
    _make_older(tmp_path / "cases_part0of2.csv", seconds=60)
    new = CaseTable(tmp_path, part_id=0, num_parts=4, keep_existing=False)
    new.add({"case": "a", "members": 5})
    new.finish()
    _make_older(tmp_path / "cases_part0of4.csv", seconds=30)
    continued = CaseTable(tmp_path, part_id=0, num_parts=2, keep_existing=True)
    continued.add({"case": "b", "members": 5})
    continued.finish()
    assert read_cases(tmp_path / "cases.csv") == [
        {"case": "a", "members": "5"},
        {"case": "b", "members": "5"},
    ]


def test_a_row_can_be_taken_back(tmp_path: Path) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    for case in "ab":
        table.add({"case": case, "members": 3})
    table.discard("a")
    table.discard("one that was never there")
    assert _cases(tmp_path) == ["b"]
