"""Every two parts, and every part with every variant of nnU-Net, build a class or are refused with the reason."""

import re
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.trainers.names import PREFIX, TrainerNameError, trainer_class
from nnunet_ext.trainers.part import Kind, load
from nnunet_ext.trainers.parts import PARTS
from nnunet_ext.trainers.stock_variants import loaded_stock_words, stock_class

TRAINABLE = [part for part in PARTS if not part.internal]
KINDS = [kind for kind in Kind if any(part.kind is kind for part in TRAINABLE)]


def word(part, number=2):
    """A part as a name spells it: Cyclical2."""
    return part.spelling if part.spelling.isalnum() else f"{part.spelling.split('<')[0]}{number}{after(part)}"


def after(part):
    return part.spelling.split(">")[1]


def words_with_what_they_change(*parts):
    """The words of parts, before them what they change: DSD, FullResolution."""
    spellings = {part.spelling for part in parts}
    needed = [part.changes[0] for part in parts if part.changes and spellings.isdisjoint(part.changes)]
    return list(dict.fromkeys([*needed, *map(word, parts)]))


def resolved_or_refused(words):
    """The class for these words, or None if they are refused by a message that says which and what to do."""
    name = PREFIX + "_".join(words)
    try:
        return trainer_class.__wrapped__(name)  # thousands of classes need not be kept
    except TrainerNameError as error:
        message = str(error)
        assert f"{name} cannot be built" in message
        reason = message.split(": ", 1)[1]
        named = {each for each in [*words, *"_".join(words).split("_")] if each in reason}
        assert len(named) >= (1 if len({*words}) < len(words) else 2), message
        assert "Leave one out" in message
        return None


@pytest.fixture(scope="module")
def stock_words():
    """The words of all of nnU-Net's variants that a name can hold."""
    stock_class("nnUNetTrainerOfNobody")  # a search imports them all
    words = [each for each in loaded_stock_words() if stock_class(PREFIX + each) or stock_class(f"{PREFIX}_{each}")]
    assert {"NoMirroring", "DA5", "BN", "CELoss", "Adam1en3"} <= {*words}
    return words


def test_every_two_parts_build_a_class_or_are_refused():
    refused = 0
    for first, second in combinations(PARTS, 2):
        found = resolved_or_refused(words_with_what_they_change(first, second))
        refused += found is None
        if found:
            assert all(issubclass(found, load(part.mixin)) for part in (first, second) if part.mixin)
            values = {**second.values, **first.values}
            assert all(getattr(found, name) == value for name, value in values.items())
    assert 0 < refused < len(PARTS) * (len(PARTS) - 1) / 4  # most go together


def test_every_part_with_every_variant_of_nnunet_builds_a_class_or_is_refused(stock_words):
    for part in PARTS:
        for stock in stock_words:
            found = resolved_or_refused([*words_with_what_they_change(part), stock])
            if found:
                variant = stock_class(PREFIX + stock) or stock_class(f"{PREFIX}_{stock}")
                ours = re.match(r"\d+epochs(_|$)", stock)  # the table has 250epochs of 250epochs_NoMirroring
                assert issubclass(found, variant) or ours, stock


def test_every_part_twice_is_refused():
    for part in PARTS:
        for again in (word(part), word(part, 3)):
            assert resolved_or_refused([*words_with_what_they_change(part), again]) is None


def test_values_of_the_table_are_attributes_of_what_they_are_for():
    by_spelling = {part.spelling: part for part in PARTS}
    for part in PARTS:
        for changed in part.changes or (part.spelling,):
            mixin = load(by_spelling[changed].mixin)
            names = [*part.values, *filter(None, [part.attribute])]
            assert all(hasattr(mixin, name) for name in names), part.spelling
            assert issubclass(mixin, nnUNetTrainer)


def first_pair(kind, other):
    """The first two parts of these kinds in the table that go together, as words."""
    for first in TRAINABLE:
        for second in TRAINABLE:
            words = words_with_what_they_change(first, second)
            if first is not second and (first.kind, second.kind) == (kind, other) and resolved_or_refused(words):
                return words
    return None


def all_clash(kind, other):
    """Whether each part of one kind sets what each of the other sets, or needs what that lacks; one part is alone."""
    firsts, seconds = (
        [part for part in TRAINABLE if part.kind is each and not part.changes] for each in (kind, other)
    )
    return all(
        first is second
        or first.claims & second.claims
        or first.requires & second.lacks
        or first.lacks & second.requires
        for first in firsts
        for second in seconds
    )


@pytest.mark.parametrize(
    ("kind", "other"), list(combinations_with_replacement(KINDS, 2)), ids=lambda kind: kind.value.replace(" ", "_")
)
def test_parts_of_two_kinds_train_together(make_trainer, random_batch, kind, other):
    words = first_pair(kind, other)
    if words is None:  # one seed, one loss, one sample of the cases; schedules that all set the rate
        assert all_clash(kind, other), (kind, other)
        return
    trainer = make_trainer(PREFIX + "_".join(words))
    trainer.network.train()
    assert np.isfinite(trainer.train_step(random_batch(trainer, 0))["loss"])
