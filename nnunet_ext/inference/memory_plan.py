"""Decides how a case is predicted within the memory that it may take, and refuses it before its first member runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums
from nnunet_ext.inference.accumulation.held_sums import HeldSums
from nnunet_ext.inference.accumulation.linear_resampling import is_linear
from nnunet_ext.inference.accumulation.maps import MAPS_OF_THE_ROW
from nnunet_ext.inference.accumulation.slabs import Where, largest_slab
from nnunet_ext.inference.memory_estimate import (
    BYTES_PER_VALUE,
    GIBIBYTE,
    CaseTooLargeError,
    network_volumes_of,
    prediction_bytes,
)
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.batch_size import batch_size_for
from nnunet_ext.inference.stages.postprocess import Postprocess
from nnunet_ext.machine.allocator import return_freed_memory
from nnunet_ext.machine.available_memory import free_memory_bytes, resident_bytes
from nnunet_ext.machine.tensor_room import IN_MEMORY, OnDisk, TensorRoom, free_disk_bytes
from nnunet_ext.models.model import Model
from nnunet_ext.options import EnsembleOptions, OutputOptions

CPU = torch.device("cpu")
FIRST_STAGE_FEATURES = 32  # nnU-Net's default, for plans that do not say
LAYERS_AT_ONCE = 8  # outputs of a network's first stage that exist at the same time, measured at its last layers
PATCH_LOGITS_AT_ONCE = 3  # a batch's logits, with the layer that computes them and their mirrored copies
TEMPORARIES_PER_SLAB = 10  # of resampling, softmax, entropy and mean


@dataclass(frozen=True)
class MemoryPlan:
    """How the members' results are kept.

    Attributes:
        held: whether the members' logits are kept instead of sums at the image's resolution, see `HeldSums`.
        on_disk: whether volumes of all classes at the networks' resolution are kept in temporary files.
    """

    held: bool = False
    on_disk: bool = False

    def room(self) -> TensorRoom:
        """A new room for the logits of a case."""
        return OnDisk() if self.on_disk else IN_MEMORY

    @property
    def sums(self) -> type[CaseSums]:
        """What accumulates the members."""
        return HeldSums if self.held else CaseSums


@dataclass(frozen=True)
class Needs:
    """Bytes that a case takes beyond what the process holds before its first member, for each plan.

    Attributes:
        sums: with sums at the image's resolution.
        held: with held logits in memory.
        on_disk: with held logits on disk.
        disk: on the disk, with held logits there.
    """

    sums: int
    held: int
    on_disk: int
    disk: int


@dataclass(frozen=True)
class MemoryPlanner:
    """Plans the cases of one ensemble, for results in main memory.

    Attributes:
        models: the models of the ensemble.
        passes: the passes of each model.
        options: the ensemble's options.
        by_fold: whether each fold is also described on its own.
        postprocess: changes the segmentation of every case; None leaves it.
    """

    models: Sequence[Model]
    passes: Sequence[Sequence[Pass]]
    options: EnsembleOptions
    by_fold: bool = False
    postprocess: Postprocess | None = None

    def plan(
        self,
        case: str,
        prepared: Sequence[PreparedCase],
        output: OutputOptions,
        free_bytes: Callable[[], int | None] = free_memory_bytes,
        give_back: Callable[[], object] = return_freed_memory,
    ) -> MemoryPlan:
        """The fastest plan that fits into this machine, or into what the options allow; see `fitting`.

        The process may keep memory that earlier cases freed, and this case could take it. How much that is shows
        only when it is given back, which costs time, so this waits until a case would not fit otherwise.

        Args:
            case: the case's name.
            prepared: the case after each model's preprocessing, in the models' order.
            output: what is written.
            free_bytes: returns the bytes that the machine has beyond what the process holds; None if unknown.
            give_back: returns freed memory that the process keeps.

        Raises:
            CaseTooLargeError: if no plan fits.
        """
        room = self._room_bytes(free_bytes)
        if room is None:
            return MemoryPlan()
        frame = CaseFrame(self.models, prepared)
        needs = self.needs(frame, output)
        if needs.sums > room:
            give_back()
            room = self._room_bytes(free_bytes)
        return self._fitting(case, frame, needs, output, room)

    def fitting(
        self,
        case: str,
        prepared: Sequence[PreparedCase],
        output: OutputOptions,
        room: int | None,
        free_disk: int | None = None,
    ) -> MemoryPlan:
        """The fastest plan that fits.

        Args:
            case: the case's name.
            prepared: the case after each model's preprocessing, in the models' order.
            output: what is written.
            room: bytes of main memory for the case; None, if unknown, accepts every case.
            free_disk: bytes of disk for the case; None asks the system.

        Raises:
            CaseTooLargeError: if none fits.
        """
        frame = CaseFrame(self.models, prepared)
        return self._fitting(case, frame, self.needs(frame, output), output, room, free_disk)

    def _fitting(
        self,
        case: str,
        frame: CaseFrame,
        needs: Needs,
        output: OutputOptions,
        room: int | None,
        free_disk: int | None = None,
    ) -> MemoryPlan:
        """See `fitting`; `needs` are those of the case's frame."""
        if room is None or needs.sums <= room:
            return MemoryPlan()
        obstacle = self._obstacle(frame, output)
        if obstacle is not None:
            raise CaseTooLargeError(self._refusal(case, needs.sums, room, f"{obstacle}, or"))
        if needs.held <= room:
            return MemoryPlan(held=True)
        if any(model.volumes.has_memory for model in self.models):
            raise CaseTooLargeError(self._refusal(case, needs.held, room, ""))
        if needs.on_disk > room:
            raise CaseTooLargeError(self._refusal(case, needs.on_disk, room, ""))
        free = free_disk_bytes() if free_disk is None else free_disk
        if needs.disk > free:
            raise CaseTooLargeError(
                f"What does not fit into memory must fit on the disk; {case} needs {needs.disk / GIBIBYTE:.1f} GiB "
                f"for the logits of its members, and the temporary folder has {free / GIBIBYTE:.1f} GiB. Set TMPDIR "
                f"to a folder on a larger disk, allow more memory with --max-memory, or take fewer members."
            )
        return MemoryPlan(held=True, on_disk=True)

    def needs(self, frame: CaseFrame, output: OutputOptions) -> Needs:
        """Estimates what a case takes.

        Args:
            frame: the part of the image that is predicted.
            output: what is written.
        """
        outputs = self.models[0].labels.num_segmentation_heads
        padded = [math.prod(prepared.tiled.image.shape[1:]) for prepared in frame.prepared]
        volumes = [BYTES_PER_VALUE * outputs * voxels for voxels in padded]  # of all classes, for each model
        network_volumes = network_volumes_of(
            self.passes, transform_variance="tta_variance" in output.maps, adapted=self.options.adapt is not None
        )
        beside_logits = network_volumes - 1
        held = sum(volume * len(passes) for volume, passes in zip(volumes, self.passes, strict=True))
        work = self._network_bytes(frame) + self._slab_bytes(outputs, frame)
        while_summed, while_held = (self._voxel_bytes(frame, output, views) for views in self._views())
        sums = prediction_bytes(
            outputs,
            frame.box_shape,
            (max(padded),),
            with_variance="variance" in output.maps,
            by_fold=self.by_fold,
            network_volumes=network_volumes,
        )
        classifiers = max(len(model.volumes.classifiers) for model in self.models) - 1  # each with its own logits
        return Needs(
            sums=work + while_summed + sums,
            held=work + while_held + held + (beside_logits + classifiers) * max(volumes),
            on_disk=work + while_held,
            disk=held + (beside_logits + 1) * max(volumes),
        )

    def _room_bytes(self, free_bytes: Callable[[], int | None]) -> int | None:
        """Bytes that a case may take beyond what the process holds; None if the system does not say."""
        if self.options.max_memory is None:
            return free_bytes()
        return int(self.options.max_memory * GIBIBYTE) - resident_bytes()

    def _network_bytes(self, frame: CaseFrame) -> int:
        """What the networks take while they run."""
        outputs = self.models[0].labels.num_segmentation_heads
        most = 0
        for model, passes, prepared in zip(self.models, self.passes, frame.prepared, strict=True):
            patch = model.configuration.patch_size
            run = len(prepared.tiled.tiles) * max(len(step.transforms) for step in passes)
            layers = LAYERS_AT_ONCE * first_stage_features(model.configuration)
            values = min(run, batch_size_for(patch, CPU).patches) * math.prod(patch)
            most = max(most, BYTES_PER_VALUE * values * (layers + PATCH_LOGITS_AT_ONCE * outputs))
        return most

    def _views(self) -> tuple[int, int]:
        """Volumes (*box) that say how much votes count, with sums and with held logits; none if all see everything.

        Sums have that of the running member, its weights and the sum of all weights; a fold has its own sums. Held
        logits need every view at the end.
        """
        steps = ((position, step.in_view_of) for position, of_model in enumerate(self.passes) for step in of_model)
        views = len({(position, name) for position, name in steps if name is not None})
        return (3 + 2 * self.by_fold) * (views > 0), views

    def _voxel_bytes(self, frame: CaseFrame, output: OutputOptions, views: int) -> int:
        """What has one value per voxel: label maps, maps and views in the box, and what is of the whole image."""
        labels = 1 if len(self.models[0].labels.foreground_labels) < 255 else 2
        members = sum(len(passes) for passes in self.passes)
        maps = len({*output.maps, *MAPS_OF_THE_ROW}) + 1  # the expected entropy
        foreground = 5  # where it is, and the values there
        in_box = (maps + views) * BYTES_PER_VALUE + (members + 3) * labels + foreground
        of_members = members * labels if output.save_members else 0
        in_image = len(output.maps) * BYTES_PER_VALUE + labels + of_members
        return math.prod(frame.box_shape) * in_box + math.prod(frame.shape) * in_image

    def _slab_bytes(self, outputs: int, frame: CaseFrame) -> int:
        """What all threads together take for the slabs that they work on, one member at a time."""
        of_threads = torch.get_num_threads() * max(largest_slab(CPU), outputs * max(frame.box_shape))
        return BYTES_PER_VALUE * TEMPORARIES_PER_SLAB * min(of_threads, outputs * math.prod(frame.box_shape))

    def _obstacle(self, frame: CaseFrame, output: OutputOptions) -> str | None:
        """What to leave out so that logits can be held; None if they can be."""
        options = self.options
        members = sum(len(passes) for passes in self.passes)
        for flag, asked_for in (
            ("--early-exit", options.early_exit is not None),
            ("--fast-resampling", options.fast_resampling),
            ("--average logits", options.average == "logits" and members > 1),
            ("--save_probabilities", output.save_probabilities),
            (
                "post-processing with probabilities",
                self.postprocess is not None and self.postprocess.chosen.needs_probabilities,
            ),
        ):
            if asked_for:
                return f"Leave out {flag}"
        return None if same_slabs(frame) else "Predict with one model folder whose plans have nnU-Net's resampling"

    def _refusal(self, case: str, needed: int, room: int, remedy: str) -> str:
        """The message of a case that does not fit."""
        limit = self.options.max_memory
        if limit is None:
            found = f"{room / GIBIBYTE:.2f} GiB are available"
        else:
            found = f"--max-memory {limit:g} leaves {max(0, room) / GIBIBYTE:.2f} GiB beside what the process holds"
        least = math.ceil(10 * (needed / GIBIBYTE + (limit or 0) - room / GIBIBYTE)) / 10
        more = "Use a machine or a job with more memory" if limit is None else f"Allow --max-memory {least:g}"
        advice = f"{remedy} {more[0].lower()}{more[1:]}" if remedy else more
        return (
            f"A case must fit into memory; {case} needs at least {needed / GIBIBYTE:.2f} GiB, and {found}. {advice}, "
            f"ask for fewer --maps, or crop the image. -num_parts does not help: it is one case that is too large."
        )


def first_stage_features(configuration: ConfigurationManager) -> int:
    """The number of features of a network at full resolution, as the plans say."""
    features = configuration.network_arch_init_kwargs.get("features_per_stage")
    return int(features[0]) if isinstance(features, Sequence) and features else FIRST_STAGE_FEATURES


def same_slabs(frame: CaseFrame) -> bool:
    """Whether all models fill the box in the same slabs, each on its own, with nnU-Net's default resampling."""
    if not all(frame.is_whole(position) for position in range(len(frame.models))):
        return False
    if not all(is_linear(model.configuration.resampling_fn_probabilities) for model in frame.models):
        return False
    return len({str([*first_slabs(frame, position)]) for position in range(len(frame.models))}) == 1


def first_slabs(frame: CaseFrame, position: int) -> Iterator[Where]:
    """Where the slabs of a model's first slice lie, and how many slices there are."""
    outputs = frame.models[position].labels.num_segmentation_heads
    spatial = frame.prepared[position].tiled.without_padding.shape[1:]
    nothing = torch.zeros(1).expand(outputs, *spatial)  # takes no memory
    volume = frame.in_box(position, nothing, torch.zeros(outputs))
    yield (slice(0, volume.slices),)
    yield from (slab.where for slab in volume.slabs(slice(0, 1)))
