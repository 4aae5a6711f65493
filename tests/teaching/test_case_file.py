"""Files of probabilities: read in parts, complete or absent."""

import numpy as np
import pytest

from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.teaching.case_file import CaseProbabilities, case_file, teacher_folder, write_packed
from nnunet_ext.teaching.packing import packed, unpacked


@pytest.mark.parametrize("outputs", [3, 12])
def test_a_part_of_a_file(tmp_path, outputs):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(outputs), size=(4, 20, 24)).transpose(3, 0, 1, 2)
    array = packed(probabilities.astype(np.float32), top=4, regions=False)
    file = case_file(tmp_path, "a.case")
    write_packed(array, file, patch_size=[8, 8])
    found = CaseProbabilities(file, outputs, regions=False)
    part = (slice(None), slice(1, 3), slice(5, 20), slice(0, 24))
    assert found.shape == (outputs - 1, 4, 20, 24)
    np.testing.assert_array_equal(found[part], unpacked(array, outputs, regions=False)[part])
    assert [path.name for path in tmp_path.iterdir()] == ["a.case.b2nd"]


def test_the_partial_file_of_a_killed_run_is_replaced(tmp_path):
    file = case_file(tmp_path, "case")
    partial = tmp_path / f"{PARTIAL_PREFIX}case.b2nd"
    partial.write_bytes(b"half of it")
    assert not file.exists()
    write_packed(np.ones((2, 1, 4, 4), np.float16), file, patch_size=[4, 4])
    assert not partial.exists()
    assert CaseProbabilities(file, 3, regions=False)[(slice(None),) * 4].sum() == 32


def test_the_folder_is_not_that_of_the_cases(tmp_path):
    """nnU-Net takes every .b2nd file there for a case."""
    assert teacher_folder(tmp_path / "nnUNetPlans_2d") == tmp_path / "nnUNetPlans_2d_teacher"
