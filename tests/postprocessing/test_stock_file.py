"""nnU-Net's `postprocessing.pkl`: the same result as nnU-Net's own command, and nothing of the file is run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing,
    apply_postprocessing_to_folder,
    determine_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)

from nnunet_ext.postprocessing.chain import PostProcessing
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase
from nnunet_ext.postprocessing.stock_file import FUNCTION, INERT, LARGEST_FILE, is_stock_file, read_stock_steps

KEEP = remove_all_but_largest_component_from_segmentation
# What nnU-Net writes: all labels, a label, a region; its labels are NumPy's. A list may hold regions, too.
ARGUMENTS = [
    {"labels_or_regions": [np.int64(1), np.int64(2), np.int64(3)]},
    {"labels_or_regions": np.int64(2)},
    {"labels_or_regions": (2, 3)},
    {"labels_or_regions": [(1, 2), 3], "background_label": 1},
]


def written(file: Path, content: object, protocol: int | None = None) -> Path:
    file.write_bytes(pickle.dumps(content, protocol))
    return file


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_nnunets_functions_are_read_whatever_the_version_of_pickle(protocol, tmp_path):
    steps = read_stock_steps(written(tmp_path / "postprocessing.pkl", ([KEEP] * 4, ARGUMENTS), protocol))
    assert [(step.labels, step.beneath) for step in steps] == [((1, 2, 3), 0), ((2,), 0), ((2, 3), 0), ((1, 2, 3), 1)]


def test_no_step_is_read_where_nothing_helped(tmp_path):
    assert read_stock_steps(written(tmp_path / "postprocessing.pkl", ([], []))) == ()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("arguments", [ARGUMENTS, ARGUMENTS[:1], ARGUMENTS[1:3]], ids=len)
def test_the_result_is_nnunets(arguments, seed, tmp_path):
    """Random labels at a density at which there are many components, and ties among the largest."""
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 4, (4, 12, 12)) * (rng.random((4, 12, 12)) < 0.2)).astype(np.uint8)
    steps = read_stock_steps(written(tmp_path / "postprocessing.pkl", ([KEEP] * len(arguments), arguments)))
    expected = apply_postprocessing(labels, [KEEP] * len(arguments), arguments)
    found = PostProcessing(steps).apply(SegmentedCase(labels, (1.0, 1.0, 1.0)))
    assert not np.array_equal(expected, labels)
    np.testing.assert_array_equal(found, expected)


def test_what_nnunet_determines_and_applies_is_what_the_files_give(tmp_path):
    """End to end, through nnU-Net's own functions: both organs have a speck that the truth has not."""
    predictions, truths = tmp_path / "predictions", tmp_path / "truths"
    predictions.mkdir(), truths.mkdir()
    for case in ("a", "b"):
        truth = np.zeros((12, 12, 4), np.uint8)
        truth[1:6, 1:6], truth[1:6, 6:9] = 1, 2
        prediction = truth.copy()
        prediction[10, 1], prediction[10, 8] = 1, 2
        for folder, values in ((truths, truth), (predictions, prediction)):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{case}.nii.gz")
    plans = {"image_reader_writer": "NibabelIO", "label_manager": "LabelManager"}
    dataset = {"labels": {"background": 0, "first": 1, "second": 2}, "file_ending": ".nii.gz"}
    functions, arguments = determine_postprocessing(str(predictions), str(truths), plans, dataset, 1)
    assert functions
    apply_postprocessing_to_folder(str(predictions), str(tmp_path / "out"), functions, arguments, plans, dataset, 1)
    expected = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    raw = np.asarray(nibabel.load(predictions / "a.nii.gz").dataobj)
    assert not np.array_equal(raw, expected)
    for name in ("postprocessing.pkl", "postprocessing.json"):
        chain = PostProcessing(read_stock_steps(predictions / name))
        chain.require_labels(dataset)
        np.testing.assert_array_equal(chain.apply(SegmentedCase(raw, (1.0, 1.0, 1.0))), expected)


# --- what is refused ---


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refused(file: Path, reason: str) -> None:
    with pytest.raises(PostProcessingError, match=rf"(?s){reason}.*No code of it was run"):
        read_stock_steps(file)


def test_a_file_that_calls_something_is_refused_and_nothing_is_called(tmp_path):
    mark = tmp_path / "was run"
    refused(
        written(tmp_path / "postprocessing.pkl", ([KEEP, Call(os.mkdir, str(mark))], [{}, {}])),
        r"it names (posix|nt)\.mkdir",
    )
    assert not mark.exists()


@pytest.mark.parametrize("function", [os.system, eval, determine_postprocessing, np.copy], ids=lambda f: f.__name__)
def test_any_other_function_is_refused(function, tmp_path):
    refused(written(tmp_path / "postprocessing.pkl", ([function], [{"labels_or_regions": 1}])), "it names ")


OWN = f"cnnunetv2.postprocessing.remove_connected_components\n{FUNCTION}\n".encode()
NUMBER, KIND = b"cnumpy._core.multiarray\nscalar\n", b"cnumpy\ndtype\n"


@pytest.mark.parametrize("name", [OWN, NUMBER, KIND], ids=["function", "scalar", "dtype"])
@pytest.mark.parametrize(
    "content",
    [
        b")R.",  # a call
        b"}b.",  # attributes
        b"N}X\x03\x00\x00\x00abcK\x01s\x86b.",  # attributes by setattr: (None, {"abc": 1})
        b")\x81.",  # an object
        b"(i__builtin__\neval\n.",  # an object by its name
        b"r\xff\xff\xff\x7f.",  # a place in a table of two billion
        b"\x82\x01.",  # a registered extension
        b"Q.",  # an object of somewhere else
    ],
    ids=["REDUCE", "BUILD", "setattr", "NEWOBJ", "INST", "LONG_BINPUT", "EXT1", "BINPERSID"],
)
def test_the_known_names_cannot_be_misused(name, content, tmp_path):
    file = tmp_path / "postprocessing.pkl"
    file.write_bytes(b"\x80\x04" + name + content)
    refused(file, "was refused")
    assert not hasattr(INERT["numpy", "dtype"], "abc")


@pytest.mark.parametrize("number", [np.float64(1), np.uint8(1), np.bool_(True), np.str_("1")], ids=repr)
def test_numbers_of_other_types_are_refused(number, tmp_path):
    refused(written(tmp_path / "postprocessing.pkl", ([KEEP], [{"labels_or_regions": number}])), "was refused")


@pytest.mark.parametrize(
    "content",
    [
        None,
        [1, 2, 3],
        ([KEEP], []),
        ([KEEP], [{}]),
        ([KEEP], [{"labels_or_regions": 1, "connectivity": 2}]),
        ([KEEP], [{"labels_or_regions": []}]),
        ([KEEP], [{"labels_or_regions": -1}]),
        ([KEEP], [{"labels_or_regions": True}]),
        ([KEEP], [{"labels_or_regions": 1 << 40}]),
        ([KEEP], [{"labels_or_regions": [[[1]]]}]),
        ([KEEP], [{"labels_or_regions": "1"}]),
        (["remove_nothing"], [{"labels_or_regions": 1}]),
        ({KEEP: 1}, {}),
    ],
    ids=lambda content: repr(content).replace(repr(KEEP), "KEEP"),  # without its address in memory
)
def test_anything_else_is_refused(content, tmp_path):
    refused(written(tmp_path / "postprocessing.pkl", content), "was refused")


def test_a_list_that_contains_itself_is_refused(tmp_path):
    endless: list[object] = []
    endless.append(endless)
    refused(written(tmp_path / "postprocessing.pkl", ([KEEP], [{"labels_or_regions": endless}])), "a label must be")


def test_damaged_missing_and_huge_files_are_refused(tmp_path):
    whole = pickle.dumps(([KEEP], [{"labels_or_regions": 1}]))
    file = tmp_path / "postprocessing.pkl"
    for content in (b"", whole[:-9], whole[9:], b"\x00" * 9, b"a" * (LARGEST_FILE + 1)):
        file.write_bytes(content)
        refused(file, "was refused")
    refused(tmp_path / "absent.pkl", "absent.pkl was refused")


@pytest.mark.parametrize("content", ["{}", "[1]", "{", json.dumps({"postprocessing_fns": [FUNCTION]})])
def test_a_json_file_that_is_not_nnunets_is_refused(content, tmp_path):
    (tmp_path / "postprocessing.json").write_text(content)
    refused(tmp_path / "postprocessing.json", "it is not nnU-Net's")


def test_nnunets_files_are_known_by_their_names():
    names = ("postprocessing.pkl", "mine.pkl", "postprocessing.json", "postprocess.json", "mine.json")
    assert [is_stock_file(Path(name)) for name in names] == [True, True, True, False, False]


def test_the_steps_are_those_of_this_package(tmp_path):
    steps = read_stock_steps(written(tmp_path / "postprocessing.pkl", ([KEEP], [{"labels_or_regions": (1, 2)}])))
    assert steps == (LargestComponent("labels 1, 2", (1, 2), 0),)
