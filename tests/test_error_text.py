"""No message is empty."""

from __future__ import annotations

from nnunet_ext.error_text import in_words


def test_a_message_is_kept():
    assert in_words(ValueError("no image")) == "ValueError: no image"


def test_without_a_message_the_line_that_raised_it_is_named():
    try:
        assert 1 > 2
    except AssertionError as error:
        error.args = ()  # pytest writes a message of its own
        found = in_words(error)
    assert found.startswith("AssertionError without a message, from line ")
    assert found.endswith("of test_error_text.py: assert 1 > 2")


def test_an_exception_that_was_never_raised_is_named():
    assert in_words(KeyboardInterrupt()) == "KeyboardInterrupt without a message"
