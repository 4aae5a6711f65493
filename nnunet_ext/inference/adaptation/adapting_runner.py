"""Runs a member with norms that are adapted to the case, or as it is where that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nnunet_ext.inference.adaptation.affine_norms import affine_parameters, fresh_copies
from nnunet_ext.inference.adaptation.foreground import foreground_of, near
from nnunet_ext.inference.adaptation.guard import jump, look_at
from nnunet_ext.inference.adaptation.steps import adapt, patches_of
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.precision import Arithmetic
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.inference.sliding_window import Tile, TiledImage
from nnunet_ext.inference.transforms.transform import Observer
from nnunet_ext.models.members import MemberError
from nnunet_ext.models.model import Model
from nnunet_ext.options import AdaptOptions

Run = Callable[[Observer | None], torch.Tensor]  # the member's logits with the weights that the network has

NO_FOREGROUND = "there is no foreground"


@dataclass(frozen=True)
class Outcome:
    """What became of one member's adaptation.

    Attributes:
        member: name of the pass.
        kept_plain: why its unadapted prediction was kept; None if it was adapted.
    """

    member: str
    kept_plain: str | None


class AdaptingRunner(MemberRunner):
    """Runs each member of one model over one image, adapted to this image.

    The weights that the model keeps never change: each member is adapted in copies that end with it.

    Args:
        model: the model whose members run.
        runtime: runs the model's network itself, as `adaptable_runtime` returns it.
        options: the adaptation.
        outcomes: receives one entry per pass.
    """

    def __init__(self, model: Model, runtime: Runtime, options: AdaptOptions, outcomes: list[Outcome]) -> None:
        super().__init__(model, runtime)
        self.options = options
        self.outcomes = outcomes

    def logits(
        self,
        step: Pass,
        tiled: TiledImage,
        tiles: Sequence[Tile] | None = None,
        observe: Observer | None = None,
    ) -> torch.Tensor:
        """One member's logits over the image, see `MemberRunner`; adapted, or exactly the unadapted ones."""
        with torch.inference_mode(False):  # within it autograd would not work
            self.runtime.load(step.member)
            plain = self.logits_as_loaded(step, tiled, tiles)
            around = self._near_foreground(step, tiled, plain)
            run = partial(self.logits_as_loaded, step, tiled, tiles)
            adapted = self._adapted_logits(run, tiled, plain, around, observe) if around.any() else NO_FOREGROUND
            kept_plain = adapted if isinstance(adapted, str) else None
            self.outcomes.append(Outcome(step.name, kept_plain))
            if isinstance(adapted, torch.Tensor):
                return adapted
            return plain if observe is None else run(observe)

    def _near_foreground(self, step: Pass, tiled: TiledImage, plain: torch.Tensor) -> torch.Tensor:
        """Bool (*spatial): the neighbourhood of the predicted foreground, where the transforms saw the image."""
        around = near(foreground_of(plain, regions=self._regions), self.options.margin, tiled.window.ndim)
        view = step.field_of_view(plain.shape[1:], plain.device)
        return around if view is None else around & (view > 0)

    def _adapted_logits(
        self, run: Run, tiled: TiledImage, plain: torch.Tensor, around: torch.Tensor, observe: Observer | None
    ) -> torch.Tensor | str:
        """The logits after the adaptation, or what jumped.

        The observer may only see what counts in the end, so what it is for runs once more after the guard.
        """
        network = self.model.network
        patches = patches_of(tiled, around, self.options.tiles, next(network.parameters()).device)
        with fresh_copies(network) as parameters:
            jumped = adapt(network, parameters, patches, self.options, regions=self._regions)
            if jumped is not None:
                return jumped
            adapted = run(None)
            before, after = (look_at(each, around, regions=self._regions) for each in (plain, adapted))
            jumped = jump(before, after, self.options)
            if jumped is not None:
                return jumped
            return adapted if observe is None else run(observe)

    @property
    def _regions(self) -> bool:
        return self.model.labels.has_regions


def adaptable_runtime(model: Model, device: torch.device, arithmetic: Arithmetic) -> TorchRuntime:
    """The plain torch runtime, not compiled: adaptation changes the weights of the network itself.

    Raises:
        MemberError: if the network has no norms with scale and shift, or is a mixture.
    """
    if len(model.volumes.classifiers) > 1:
        raise MemberError(
            f"--adapt adapts one network at a time; that of {model.folder} mixes {len(model.volumes.classifiers)}. "
            f"Leave out --adapt."
        )
    if not affine_parameters(model.network):
        raise MemberError(
            f"--adapt changes scale and shift of norm layers; the network of {model.folder} has no norm layers with "
            f"scale and shift. Leave out --adapt."
        )
    return TorchRuntime(model, device, arithmetic)
