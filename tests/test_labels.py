"""What the outputs of a network stand for, by `dataset.json`."""

from nnunet_ext.labels import regions_of


def test_every_foreground_label_is_a_region_and_ignore_is_none():
    assert regions_of({"labels": {"background": 0, "RV": 1, "LV": 3, "ignore": 4}}) == {"RV": (1,), "LV": (3,)}


def test_regions_keep_all_their_labels():
    dataset_json = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    assert regions_of(dataset_json) == {"whole": (1, 2), "core": (2,)}
