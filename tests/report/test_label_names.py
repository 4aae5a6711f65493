from __future__ import annotations

from nnunet_ext.report.label_names import channel_names, label_names


def test_background_and_ignore_label_have_no_name():
    assert label_names({"labels": {"background": 0, "RV": 1, "LV": 2, "ignore": 3}}) == {1: "RV", 2: "LV"}


def test_a_label_of_regions_has_the_name_of_the_last_region_that_writes_it():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    names = label_names({"labels": labels, "regions_class_order": [1, 2, 3]})
    assert names == {1: "whole", 2: "core", 3: "enhancing"}


def test_the_first_channel_is_named_where_it_has_a_name():
    assert channel_names({"channel_names": {"1": "T1c", "0": "T2"}}) == ("T2", "T1c")
    assert channel_names({}) == ()
