"""One case, all members: what is accumulated at image resolution and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.risk_control import foreground_probability
from nnunet_ext.evaluation.volume import voxel_volume_ml
from nnunet_ext.inference.accumulation.agreement import CroppedLabels, crop_to_foreground
from nnunet_ext.inference.accumulation.decisions import class_probabilities, decided_labels, label_type
from nnunet_ext.inference.accumulation.early_exit import SettledRule, tiles_with
from nnunet_ext.inference.accumulation.linear_resampling import is_linear
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.resampling import (
    Box,
    box_shape,
    common_box,
    crop_box,
    embed,
    image_shape,
    in_image,
    outside_logits,
    outside_probabilities,
    place,
)
from nnunet_ext.inference.accumulation.slabs import (
    MappedVolume,
    Slab,
    SlicedVolume,
    WholeVolume,
    assembled,
    for_each_slab,
)
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import Tile, TiledImage
from nnunet_ext.inference.uncertainty import calibrated_maps, case_row, uncertainty_maps
from nnunet_ext.labels import regions_of
from nnunet_ext.models.model import Model
from nnunet_ext.prediction_folder.case_files import CasePrediction


@dataclass(frozen=True)
class PreparedCase:
    """A case as one model's preprocessing left it: the tiled image and nnU-Net's properties."""

    tiled: TiledImage
    properties: dict

    def to(self, device: torch.device) -> PreparedCase:
        """With the image where the members' results are to be summed up."""
        return PreparedCase(self.tiled.to(device), self.properties)


class CaseEnsemble:
    """Takes the members' logits of one case in, one after the other; no member's volume is kept.

    Everything is accumulated in the image's own axes and resolution, within the box that nnU-Net's crop leaves.

    Args:
        models: of the ensemble.
        prepared: the case as each of them sees it.
        average: "probabilities" or "logits"; see `EnsembleEngine`.
        with_variance: track the variance, too.
        keep_members: keep every member's own segmentation.
        early_exit: says where no further member is needed; None lets all members run everywhere. Where a member did
            not run, its segmentation counts as that of the members before it.
        fast_resampling: resample probabilities instead of logits; see `EnsembleEngine`.
    """

    def __init__(
        self,
        models: Sequence[Model],
        prepared: Sequence[PreparedCase],
        *,
        average: str,
        with_variance: bool,
        keep_members: bool,
        early_exit: SettledRule | None = None,
        fast_resampling: bool = False,
    ) -> None:
        self.models = models
        self.prepared = prepared
        self.labels = models[0].labels
        self.boxes = [crop_box(case.properties, model.plans) for model, case in zip(models, prepared, strict=True)]
        self.box: Box = common_box(self.boxes)
        self.box_shape = box_shape(self.box)
        self.shape = image_shape(prepared[0].properties, models[0].plans)
        self.moments = Moments(regions=self.labels.has_regions, with_variance=with_variance)
        self.logit_sums: list[torch.Tensor | None] | None = [None] * len(models) if average == "logits" else None
        self.weights = [0.0] * len(models)
        self.members: list[CroppedLabels] = []
        self.only_labels: np.ndarray | None = None  # (*box), of a member that is alone
        self.keep_members = keep_members
        self.member_segmentations: dict[str, np.ndarray] = {}
        self.fast_resampling = fast_resampling
        self.early_exit = early_exit
        self.open_voxels: torch.Tensor | None = None  # (*box) bool: where members still run; None is everywhere
        self.settled_labels: torch.Tensor | None = None  # (*box), right where members do not run any more

    def add(self, position: int, step: Pass, logits: torch.Tensor) -> None:
        """Takes one member in.

        Args:
            position: of its model.
            step: which member it is.
            logits: (C, *spatial) at the model's resolution; may be changed.
        """
        shape = (self.labels.num_segmentation_heads, *self.box_shape)
        weight = step.weight if self.open_voxels is None else step.weight * self.open_voxels
        segmentation = torch.empty(self.box_shape, dtype=label_type(self.labels))
        self.moments.begin_member(shape, weight, device=logits.device)

        def take_in(slab: Slab) -> None:
            segmentation[slab.where] = decided_labels(slab.values, self.labels).cpu()
            self.moments.add_slab(slab)

        for_each_slab(self._member_probabilities(position, logits), take_in)
        if self.open_voxels is not None:
            segmentation = torch.where(self.open_voxels.cpu(), segmentation, self._settled())
        member_labels = as_array(segmentation)
        self.only_labels = member_labels if not self.members else None
        self.members.append(crop_to_foreground(member_labels))
        if self.keep_members:
            self.member_segmentations[step.name] = embed(member_labels, self.box, self.shape)
        self.weights[position] += step.weight
        if self.logit_sums is not None:
            earlier = self.logit_sums[position]
            weighted = logits * step.weight
            self.logit_sums[position] = weighted if earlier is None else earlier.add_(weighted)

    def add_settled(self) -> None:
        """Takes a member in that need not run at all."""
        self.members.append(crop_to_foreground(as_array(self._settled())))

    def settle(self, weight_left: float) -> None:
        """Closes the voxels where the members to come, of this weight together, are not needed."""
        settled = self.early_exit.settled(self.moments, weight_left) if self.early_exit is not None else None
        if settled is not None:
            self.open_voxels = ~settled if self.open_voxels is None else self.open_voxels & ~settled
            self.settled_labels = self._labels(self.moments.mean())

    def tiles_needed(self, position: int) -> list[Tile] | None:
        """The tiles that a model still has to look at; None stands for all of them."""
        if self.open_voxels is None:
            return None
        reads_neighbours_only = is_linear(self.models[position].configuration.resampling_fn_probabilities)
        if self.boxes[position] != self.box or not reads_neighbours_only:
            return None if self.open_voxels.any() else []
        on_network_axes = self.open_voxels.permute(*self.models[position].plans.transpose_forward)
        return tiles_with(on_network_axes, self.prepared[position].tiled)

    def _settled(self) -> torch.Tensor:
        if self.settled_labels is None:
            raise RuntimeError("Nothing is settled yet. Call settle() between the members.")
        return self.settled_labels

    def finish(
        self, name: str, *, maps: Sequence[str], save_probabilities: bool, calibration: Calibration | None = None
    ) -> CasePrediction:
        """What is known after the last member.

        A calibration changes the probabilities and the maps of them, and adds expected Dice, verdict and covering
        mask. The segmentation and the row's other columns stay: they are what it was fitted on.
        """
        probabilities = self._probabilities()
        segmentation = self.only_labels if self.only_labels is not None else as_array(self._labels(probabilities))
        wanted = uncertainty_maps(self.moments, list(dict.fromkeys([*maps, "entropy", "mutual_information"])))
        row = case_row(
            segmentation=segmentation,
            entropy=wanted["entropy"],
            mutual_information=wanted["mutual_information"],
            members=self.members,
            regions=regions_of(self.models[0].dataset_json),
            image_voxels=math.prod(self.shape),
            voxel_volume_ml=voxel_volume_ml(self.prepared[0].properties["spacing"]),
        )
        covering_mask = None
        if calibration is not None:
            row |= calibration.columns(row)
            covering_mask = self._covering_mask(calibration, probabilities)
            probabilities = calibration.temperature.apply(probabilities)
            wanted |= calibrated_maps(probabilities, maps, regions=self.labels.has_regions)
        outside = {"confidence": 1.0}  # background for certain
        return CasePrediction(
            case=name,
            segmentation=embed(segmentation, self.box, self.shape),
            properties=self.prepared[0].properties,
            row=row,
            maps={key: embed(wanted[key], self.box, self.shape, outside.get(key, 0.0)) for key in maps},
            probabilities=self._whole(probabilities) if save_probabilities else None,
            member_segmentations=self.member_segmentations,
            covering_mask=covering_mask,
        )

    def _covering_mask(self, calibration: Calibration, probabilities: torch.Tensor) -> np.ndarray | None:
        """(*image): 1 where foreground may be; None if the calibration has no mask."""
        if calibration.mask is None:
            return None
        foreground = foreground_probability(probabilities.cpu().numpy(), regions=self.labels.has_regions)
        covered = calibration.mask.mask(foreground).astype(np.uint8)
        return embed(covered, self.box, self.shape, fill=int(calibration.mask.threshold == 0))

    def _member_probabilities(self, position: int, logits: torch.Tensor) -> SlicedVolume:
        """A member's probabilities (C, *box): stock resamples logits, the fast way its fewer probabilities."""
        regions, nonlinearity = self.labels.has_regions, partial(class_probabilities, labels=self.labels)
        if self.fast_resampling:
            return self._in_box(position, nonlinearity(logits), outside_probabilities(len(logits), regions=regions))
        volume = self._in_box(position, logits, outside_logits(len(logits), regions=regions))
        return MappedVolume(volume, nonlinearity)

    def _in_box(self, position: int, values: torch.Tensor, outside: torch.Tensor) -> SlicedVolume:
        """What a network gave, (C, *spatial), as a volume (C, *box) of the image; `outside` (C) of nnU-Net's crop."""
        model, box = self.models[position], self.boxes[position]
        volume = in_image(values, self.prepared[position].properties, model.plans, model.configuration)
        if box == self.box:
            return volume
        whole = assembled(volume, (len(values), *box_shape(box)))
        return WholeVolume(place(whole, box, self.box, outside.to(values.device)))

    def _probabilities(self) -> torch.Tensor:
        """The ensemble's probabilities (C, *box), averaged as asked for."""
        if self.logit_sums is None or self.moments.members == 1:  # of a single member both averages are the same
            return self.moments.mean()
        total: torch.Tensor | None = None
        outside = outside_logits(len(self.moments.mean()), regions=self.labels.has_regions)
        for position, logit_sum in enumerate(self.logit_sums):
            if logit_sum is None:
                continue
            # averaged before resampling, as stock does over folds
            share = self.weights[position] / sum(self.weights)
            volume = self._in_box(position, logit_sum / self.weights[position], outside)
            placed = assembled(volume, (len(logit_sum), *self.box_shape)).mul_(share)
            total = placed if total is None else total.add_(placed)
        if total is None:
            raise RuntimeError("An ensemble has at least one member; none was added.")
        return self.labels.apply_inference_nonlin(total)

    def _labels(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Label map (*box) of the ensemble's probabilities."""
        labels = torch.empty(self.box_shape, dtype=label_type(self.labels))

        def decide(slab: Slab) -> None:
            labels[slab.where] = decided_labels(slab.values, self.labels).cpu()

        for_each_slab(WholeVolume(probabilities), decide)
        return labels

    def _whole(self, probabilities: torch.Tensor) -> np.ndarray:
        """(C, *box) to (C, *image), with background outside of the box."""
        outside = outside_probabilities(len(probabilities), regions=self.labels.has_regions)
        whole = tuple(slice(0, size) for size in self.shape)
        return place(probabilities.cpu(), self.box, whole, outside).numpy()


def as_array(segmentation: torch.Tensor) -> np.ndarray:
    """A label map as files hold it: uint8 or uint16."""
    values = segmentation.numpy()
    return values if values.dtype == np.uint8 else values.astype(np.uint16)
