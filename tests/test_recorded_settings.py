"""Settings that differ, under the names of their flags."""

from __future__ import annotations

import pytest

from nnunet_ext.options.recorded_settings import Difference, differences

FLIPS, NONE, ROT90 = {"mirroring": True}, {"mirroring": False}, {"mirroring": True, "tta": "rot90"}


@pytest.mark.parametrize(
    ("recorded", "asked", "expected"),
    [
        (FLIPS, FLIPS, []),
        (NONE, FLIPS, [("tta", "none", "flips")]),
        (FLIPS, ROT90, [("tta", "flips", "rot90")]),
        ({"step_size": 0.5}, {"step_size": 0.25}, [("step_size", 0.5, 0.25)]),
        ({}, {"early_exit": "label"}, [("early_exit", None, "label")]),
        ({"adapt": True}, {}, [("adapt", True, None)]),
    ],
)
def test_settings_that_differ(recorded, asked, expected):
    assert differences(recorded, asked) == [Difference(*each) for each in expected]
