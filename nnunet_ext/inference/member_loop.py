"""Runs all members of an ensemble over a case, fold by fold, and sums up what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.accumulation.early_exit import SettledRule
from nnunet_ext.inference.class_weights import class_totals
from nnunet_ext.inference.finish import described
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import Tile
from nnunet_ext.inference.stages.postprocess import Postprocess
from nnunet_ext.labels import Region
from nnunet_ext.models.model import Model


@dataclass(frozen=True)
class MemberLoop:
    """The members of an ensemble in the order in which they run.

    Attributes:
        models: the models of the ensemble.
        runners: one per model.
        folds: the passes of each fold with their model's position, see `passes_by_fold`.
        structures: name of every foreground class or region to its labels.
        early_exit: decides where no further member is needed; None runs all members everywhere.
        describe_folds: whether each fold is also described on its own.
        postprocess: changes a fold's segmentation before it is described; None leaves it.
        kind_of_sums: what accumulates the members.
    """

    models: Sequence[Model]
    runners: Sequence[MemberRunner]
    folds: Sequence[Sequence[tuple[int, Pass]]]
    structures: Mapping[str, Region]
    early_exit: SettledRule | None = None
    describe_folds: bool = False
    postprocess: Postprocess | None = None
    kind_of_sums: type[CaseSums] = CaseSums

    def sum_up(
        self, prepared: Sequence[PreparedCase], options: SumOptions, progress: tqdm | None = None
    ) -> tuple[CaseSums, list[Mapping[str, object]]]:
        """Runs all members over a case, on the device of the prepared images.

        Args:
            prepared: the case after each model's preprocessing, in the models' order.
            options: what is accumulated.
            progress: progress bar, advanced by one per pass.

        Returns:
            The sums over all members, and the row of each fold's own members if the folds are described.
        """
        frame, labels = CaseFrame(self.models, prepared), self.models[0].labels
        sums = self.kind_of_sums(
            frame, labels, replace(options, class_totals=class_totals(self._steps())), self.early_exit
        )
        rows = []
        weight_left = sum(step.weight for _, step in self._steps())
        passes_left = len(list(self._steps()))
        for fold in self.folds:
            of_fold = replace(options.of_fold(), class_totals=class_totals(fold))
            own = [self.kind_of_sums(frame, labels, of_fold)] if self.describe_folds else []
            for position, step in fold:
                self._run(position, step, prepared, sums, own)
                passes_left, weight_left = passes_left - 1, weight_left - step.weight
                if passes_left:
                    sums.settle(weight_left)
                if progress is not None:
                    progress.update()
            rows += [described(of_members, self.structures, self.postprocess) for of_members in own]
        return sums, rows

    def _steps(self) -> Iterable[tuple[int, Pass]]:
        return (step for fold in self.folds for step in fold)

    def _run(
        self, position: int, step: Pass, prepared: Sequence[PreparedCase], sums: CaseSums, also: Sequence[CaseSums]
    ) -> None:
        tiles = self._tiles_needed(position, sums)
        if tiles is not None and not tiles:
            sums.add_settled()
        else:
            variance = sums.transform_variance
            observe = None if variance is None else variance.observer(position, step)
            runner, tiled = self.runners[position], prepared[position].tiled
            if runner.is_mixture and sums.watches_classifiers:
                classifiers = runner.classifier_logits(step, tiled, tiles, observe)
                sums.watch_classifiers(position, step, classifiers)
                logits = runner.model.volumes.combine(classifiers)
            else:
                logits = runner.logits(step, tiled, tiles, observe)
            sums.add(position, step, logits, also)

    def _tiles_needed(self, position: int, sums: CaseSums) -> list[Tile] | None:
        """The tiles to run; None means all. A network that needs the whole volume runs on all tiles or on none."""
        tiles = sums.tiles_needed(position)
        return None if tiles and self.runners[position].needs_all_tiles else tiles
