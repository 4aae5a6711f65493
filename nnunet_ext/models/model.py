"""A model folder loaded for prediction: its plans, its network and its members."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import (
    LabelManager,
    convert_labelmap_to_one_hot,
    determine_num_input_channels,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ext.architectures.channels_last import with_channels_last
from nnunet_ext.architectures.dropout_draws import drawn_layers, with_drawn_dropout
from nnunet_ext.architectures.over_volumes import OverVolumes, over_volumes
from nnunet_ext.descriptions import OF_DATASET, OF_PLANS, channels_of, require_keys
from nnunet_ext.models.description import model_description
from nnunet_ext.models.members import Member, MemberError, MemberRule, find_members
from nnunet_ext.models.training_facts import training_facts, warn_of_other_plans
from nnunet_ext.models.weight_store import WeightStore, default_budget_bytes, point_at
from nnunet_ext.nnunet_versions import network_of_trainer
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.trainers.part import PREFIX

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


@dataclass(frozen=True)
class Model:
    """One model folder: its members and everything they share.

    Attributes:
        folder: the `TRAINER__PLANS__CONFIGURATION` folder.
        plans: nnU-Net's plans.
        configuration: the configuration of the members.
        dataset_json: contents of the folder's `dataset.json`.
        labels: nnU-Net's label manager, for classes or regions.
        network: the network in evaluation mode; `load` gives it the weights of a member.
        members: the members, at least one.
        weights: the store of the members' weights.
    """

    folder: Path
    plans: PlansManager
    configuration: ConfigurationManager
    dataset_json: dict
    labels: LabelManager
    network: nn.Module
    members: list[Member]
    weights: WeightStore

    @property
    def mirror_axes(self) -> tuple[int, ...] | None:
        """Spatial axes that were mirrored in training, or None."""
        return self.members[0].mirror_axes

    @property
    def volumes(self) -> OverVolumes:
        """How the network runs over a volume, see `OverVolumes`."""
        return over_volumes(self.network)

    def load(self, member: Member) -> None:
        """Gives the network the weights of a member.

        Raises:
            MemberError: if the weights do not fit the network.
        """
        try:
            point_at(self.network, self.weights.of(member))
        except RuntimeError as error:
            raise MemberError(
                f"{member.path} does not fit the network of {self.folder}: {error}. Check that plans.json is the one "
                f"of its training, or leave this member out with -f or --members."
            ) from error

    def preprocess(self, case: Case) -> tuple[torch.Tensor, dict]:
        """Reads and preprocesses a case as nnU-Net does.

        Returns:
            The image (channels, *spatial) at the configuration's spacing, and nnU-Net's properties. For a cascade the
            previous stage's segmentation is appended to the image as one-hot channels.
        """
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        previous = str(case.previous_stage) if self.is_cascaded and case.previous_stage else None
        files = [str(path) for path in case.files]
        image, segmentation, properties = preprocessor.run_case(
            files, previous, self.plans, self.configuration, self.dataset_json
        )
        if previous is not None:
            one_hot = convert_labelmap_to_one_hot(segmentation[0], self.labels.foreground_labels, image.dtype)
            image = np.vstack((image, one_hot))
        return torch.from_numpy(image).float().contiguous(), properties

    @property
    def is_cascaded(self) -> bool:
        """Whether the configuration needs the segmentation of a previous stage."""
        return self.configuration.previous_stage_name is not None


def load_model(
    folder: Path,
    folds: Sequence[int | str] | None,
    rule: MemberRule,
    *,
    device: torch.device,
    trust: bool = False,
    weights_dtype: torch.dtype = torch.float32,
) -> Model:
    """Loads a model folder that stock nnU-Net or a trainer of this package wrote.

    Args:
        folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        folds: see `find_members`.
        rule: which checkpoints of each fold are members.
        device: where the network will run.
        trust: allow checkpoints that hold more than data.
        weights_dtype: number type of the weights that the network will run with.

    Raises:
        FileNotFoundError: if the folder is not a model folder.
        ValueError: if `dataset.json` or `plans.json` lack something.
        MemberError, CheckpointError: see `find_members`; also if a member does not fit the network of the plans.
    """
    stored_plans, dataset_json = model_description(folder)
    require_keys(dataset_json, folder / "dataset.json", OF_DATASET)
    require_keys(stored_plans, folder / "plans.json", OF_PLANS)
    plans = PlansManager(stored_plans)
    members = find_members(folder, folds, rule, trust=trust)
    facts = training_facts(plans.plans, dataset_json, members[0].configuration)
    warn_of_other_plans({member.path: member.facts for member in members}, folder, facts)
    configuration = plans.get_configuration(members[0].configuration)
    labels = plans.get_label_manager(dataset_json)
    network = build_network(members[0].trainer_name, plans, configuration, dataset_json, labels)
    if device.type == "cpu" and weights_dtype == torch.float32:
        network = with_channels_last(network)
    if rule.dropout_draws:
        network = with_drawn_dropout(network)
    store = WeightStore(device, weights_dtype, default_budget_bytes(device))
    model = Model(folder, plans, configuration, dataset_json, labels, network.to(device).eval(), members, store)
    if rule.dropout_draws:
        require_dropout(model)
    for member in {member.path: member for member in members}.values():
        model.load(member)
    return model


def require_dropout(model: Model) -> None:
    """Refuses dropout draws of a network without dropout layers, because all of them would be the same."""
    if not drawn_layers(model.network):
        raise MemberError(
            f"--members mc-dropout needs a network with dropout layers; that of {model.folder} has none. Train one "
            f"with -tr nnUNetTrainerMCDropout, or choose other members."
        )


def build_network(
    trainer_name: str,
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict,
    labels: LabelManager,
) -> nn.Module:
    """The network that the trainer of this name builds, without deep supervision.

    For `nnUNetTrainer` itself the plans decide alone, so it is not imported: that would take 2 seconds.
    """
    channels = determine_num_input_channels(plans, configuration, dataset_json)
    outputs = labels.num_segmentation_heads
    if trainer_name == PREFIX:
        return get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            channels,
            outputs,
            allow_init=False,
            deep_supervision=False,
        )
    return network_of_trainer(find_trainer(trainer_name), plans, configuration, channels, outputs)


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer class of this name: one of this package (even if `nnUNet_extTrainer` is unset), else nnU-Net's."""
    from nnunet_ext.trainers.names import UnknownPartError, trainer_class  # imports nnU-Net's trainer: 2 seconds

    if name.startswith(PREFIX):
        with suppress(UnknownPartError):
            return trainer_class(name)
    with redirect_stdout(io.StringIO()):  # nnU-Net prints the folders that it searches
        return recursive_find_trainer_class_by_name(name)


def require_same_labels(models: Sequence[Model]) -> None:
    """Refuses models that segment different labels or read their input differently."""
    if not models:
        raise MemberError("An ensemble needs at least one model folder; found none. Give one with -m.")
    first = models[0]
    for model in models[1:]:
        for word, expected, found in (
            ("labels", first.dataset_json["labels"], model.dataset_json["labels"]),
            ("order of regions", region_order(first), region_order(model)),
            ("channels", channel_names(first), channel_names(model)),
            ("file_ending", first.dataset_json["file_ending"], model.dataset_json["file_ending"]),
            ("reader", first.plans.image_reader_writer_class, model.plans.image_reader_writer_class),
        ):
            if expected != found:
                raise MemberError(
                    f"All model folders must have the same {word}; {first.folder} has {expected}, {model.folder} has "
                    f"{found}. Predict them separately."
                )


def region_order(model: Model) -> tuple[object, object]:
    """The regions of a region-based model, and the order in which they are painted."""
    return model.labels.all_regions, model.dataset_json.get("regions_class_order")


def channel_names(model: Model) -> list[str]:
    """The names of the input channels in order."""
    names = channels_of(model.dataset_json)
    return [names[key] for key in sorted(names, key=int)]


def require_model_weights(weights: Sequence[float] | None, models: Sequence[Model]) -> None:
    """Refuses weights that are not one positive number per model folder."""
    if weights is not None and (len(weights) != len(models) or not all(np.isfinite(weights)) or min(weights) <= 0):
        raise MemberError(
            f"--weights must be one positive number per model folder; found {list(weights)} for {len(models)} "
            f"folders. Write as many numbers as -m folders."
        )


def require_previous_stage(folder: str | Path | None, models: Sequence[Model]) -> None:
    """Refuses the second stage of a cascade without the folder of the first stage's segmentations."""
    cascaded = next((model for model in models if model.is_cascaded), None)
    if cascaded is not None and folder is None:
        raise ValueError(
            f"{cascaded.folder} is the second stage of a cascade and needs the segmentations of "
            f"{cascaded.configuration.previous_stage_name}. Predict with that configuration first, and pass its "
            f"output folder with -prev_stage_predictions."
        )
