"""The adaptation of all members to one case, and what the case's row says about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nnunet_ext.inference.adaptation.adapting_runner import AdaptingRunner, Outcome
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.options import AdaptOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseAdaptation:
    """The adaptation to one case; every case has its own.

    Attributes:
        case: the case's name.
        options: None runs the members as they are.
        outcomes: of the members that have run.
    """

    case: str
    options: AdaptOptions | None
    outcomes: list[Outcome] = field(default_factory=list)

    def runners(self, runners: Sequence[MemberRunner]) -> list[MemberRunner]:
        """The runners of this case: those given, or adapting ones in their place."""
        if self.options is None:
            return list(runners)
        return [AdaptingRunner(runner.model, runner.runtime, self.options, self.outcomes) for runner in runners]

    def describe(self, result: CaseResult) -> CaseResult:
        """A stage that adds the columns of an adaptation to the row, and logs them."""
        if self.options is None:
            return result
        kept = [f"{one.member}: {one.kept_plain}" for one in self.outcomes if one.kept_plain is not None]
        adapted = len(self.outcomes) - len(kept)
        logger.info(
            "%s: %d of %d members adapted%s",
            self.case,
            adapted,
            len(self.outcomes),
            f"; not adapted {'; '.join(kept)}" if kept else "",
        )
        return replace(result, row={**result.row, "adapted_members": adapted, "not_adapted": "; ".join(kept)})
