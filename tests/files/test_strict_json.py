"""JSON of unknown origin: what the standard has is read, what Python adds to it is refused."""

from __future__ import annotations

import pytest

from nnunet_ext.files.strict_json import read_strict_json, strict_json


def test_what_the_standard_has_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, -2.5e3, "\\u00e4", true, null], "b": 9223372036854775808}')
    assert read_strict_json(tmp_path / "a.json") == {"a": [1, -2500.0, "ä", True, None], "b": 2**63}


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "1e999", "9" * 30, "-" + "9" * 5000, "[" * 100_000, "", "{", b"\xff"]
)
def test_everything_else_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError):
        strict_json(text)
