"""Terms that contribute as much to the loss as soft Dice did in the epoch before."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_ext.losses.added_terms import AddedTerm, LossTerm
from nnunet_ext.losses.ramps import ConstantRamp, EqualContribution
from nnunet_ext.losses.soft_dice import SoftDiceTerm
from nnunet_ext.losses.targets import OutputForm

REFERENCE = "soft Dice loss"


def with_balanced(terms: Sequence[AddedTerm], name: str, term: LossTerm, form: OutputForm) -> list[AddedTerm]:
    """Terms, one more whose weight makes it contribute as soft Dice does, and soft Dice, which is only measured.

    Args:
        terms: of other parts.
        name: of the new one.
        term: the new one.
        form: of the target.
    """
    reference = AddedTerm(REFERENCE, SoftDiceTerm(form), ConstantRamp(0), measured=True)
    measured = [] if any(other.name == REFERENCE for other in terms) else [reference]
    return [*terms, *measured, AddedTerm(name, term, EqualContribution(name, REFERENCE), measured=True)]
