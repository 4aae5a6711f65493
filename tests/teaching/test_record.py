"""Who taught which case; teachers that had seen it are refused."""

import pytest

from nnunet_ext.teaching.case_file import case_file
from nnunet_ext.teaching.record import FILE_NAME, TaughtFold, TeacherError, TeacherRecord

MEMBER = {"model": "m", "name": "fold_0/checkpoint_final", "sha256": "ab"}
EMPTY = TeacherRecord(outputs=3, regions=False, top=4, settings={"tta": "full"})
FIRST = TaughtFold([MEMBER], ["a", "b"], ["c"])
SECOND = TaughtFold([{**MEMBER, "name": "fold_1/checkpoint_final"}], ["c"], ["a", "b"])


@pytest.fixture
def both():
    return EMPTY.with_fold("0", FIRST).with_fold("1", SECOND)


def test_it_is_read_as_it_was_written(tmp_path, both):
    both.save(tmp_path)
    assert TeacherRecord.load(tmp_path) == both
    assert [both.fold_of(case) for case in ("a", "c", "d")] == ["0", "1", None]


def test_a_fold_that_trained_on_its_case_is_refused():
    with pytest.raises(TeacherError, match="such as b of fold 0"):
        EMPTY.with_fold("0", TaughtFold([MEMBER], ["a", "b"], ["b", "c"]))


def test_a_leak_that_someone_wrote_into_the_file_is_refused(tmp_path, both):
    both.save(tmp_path)
    file = tmp_path / FILE_NAME
    file.write_text(file.read_text().replace('"trained_on": [\n        "c"', '"trained_on": [\n        "a", "c"'))
    for case in ("a", "b", "c"):
        case_file(tmp_path, case).touch()
    record = TeacherRecord.load(tmp_path)
    record.require_taught(tmp_path, ["b", "c"])
    with pytest.raises(TeacherError, match="such as a of fold 0"):
        record.require_taught(tmp_path, ["a", "b", "c"])


def test_the_same_members_may_teach_a_fold_again_and_others_not(both):
    assert both.with_fold("0", FIRST) == both
    with pytest.raises(TeacherError, match="fold 0 had m/fold_0/checkpoint_final"):
        both.with_fold("0", TaughtFold([{**MEMBER, "sha256": "cd"}], ["a", "b"], ["c"]))


def test_a_case_without_file_or_fold_is_named(tmp_path, both):
    for case in ("a", "c", "d"):
        case_file(tmp_path, case).touch()
    both.require_taught(tmp_path, ["a", "c"])
    for case in ("b", "d"):
        with pytest.raises(TeacherError, match=f"1 of 2 have none, such as {case}"):
            both.require_taught(tmp_path, ["a", case])


@pytest.mark.parametrize("content", [None, "{", "[]", '{"outputs": 3}', '{"folds": {"0": {"case": 1}}}'])
def test_a_missing_or_damaged_record_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(TeacherError, match=FILE_NAME):
        TeacherRecord.load(tmp_path)
