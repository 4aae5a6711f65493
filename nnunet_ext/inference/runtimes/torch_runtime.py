"""The torch runtimes: the model's own network in the requested precision, plain or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from nnunet_ext.architectures.dropout_draws import draw
from nnunet_ext.inference.runtimes.batch_size import BatchSize, fitting_batch_size
from nnunet_ext.inference.runtimes.precision import SINGLE, Arithmetic, log_cost
from nnunet_ext.models.members import Member
from nnunet_ext.models.model import Model
from nnunet_ext.models.weight_store import on_device, point_at

FindBatchSize = Callable[[Sequence[int], torch.device, Callable[[], object]], BatchSize]


class TorchRuntime:
    """Runs the network in plain torch, see `runtime.Runtime`.

    Args:
        model: the model whose network runs with the weights of one member at a time.
        device: where the network runs.
        arithmetic: the precision that it runs in.
        find_batch_size: returns the batch size, given patch size, device and a function that runs one patch.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        arithmetic: Arithmetic,
        find_batch_size: FindBatchSize = fitting_batch_size,
    ) -> None:
        self.model = model
        self.device = device
        self.arithmetic = arithmetic
        self.networks: Sequence[Callable[[torch.Tensor], torch.Tensor]] = model.volumes.classifiers
        self._find_batch_size = find_batch_size
        self._batch_size: BatchSize | None = None
        self._member: Member | None = None
        self._cost_is_known = arithmetic.weights == torch.float32

    @property
    def classifiers(self) -> int:
        """See `runtime.Runtime`."""
        return len(self.networks)

    def load(self, member: Member) -> None:
        """See `runtime.Runtime`."""
        self.model.load(member)
        draw(self.model.network, member.dropout_seed)
        self._member = member

    @torch.inference_mode()
    def run(self, patches: torch.Tensor, classifier: int = 0) -> torch.Tensor:
        """See `runtime.Runtime`."""
        logits = run_patches(self.networks[classifier], patches, self.device, self.arithmetic)
        if not self._cost_is_known and self._member is not None:
            middle = slice(len(patches) // 2, len(patches) // 2 + 1)
            self._log_cost_of_precision(self._member, patches[middle], logits[middle], classifier)
        return logits

    def _log_cost_of_precision(
        self, member: Member, patch: torch.Tensor, reduced: torch.Tensor, classifier: int
    ) -> None:
        """Runs one patch in single precision as well and logs the difference; once per model."""
        self._cost_is_known = True
        point_at(self.model.network, on_device(member.weights(), self.device))
        single = run_patches(self.networks[classifier], patch, self.device, SINGLE)
        self.load(member)
        log_cost(single, reduced, regions=self.model.labels.has_regions)

    def fitting_batch_size(self, patch: torch.Tensor) -> BatchSize:
        """See `runtime.Runtime`."""
        if self._batch_size is None:
            self._batch_size = self._find_batch_size(
                tuple(patch.shape[1:]), self.device, lambda: run_patches(
                    self.model.network, patch[None], self.device, self.arithmetic
                ),
            )  # fmt: skip
        return self._batch_size


class CompiledTorchRuntime(TorchRuntime):
    """`TorchRuntime` with `torch.compile`, if the network may be compiled.

    Args:
        model, device, arithmetic, find_batch_size: see `TorchRuntime`.
        compile_network: returns the compiled form of a network; None uses `torch.compile`.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        arithmetic: Arithmetic,
        find_batch_size: FindBatchSize = fitting_batch_size,
        compile_network: Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> None:
        super().__init__(model, device, arithmetic, find_batch_size)
        if model.volumes.may_be_compiled:
            compile_one = torch.compile if compile_network is None else compile_network
            self.networks = [compile_one(network) for network in model.volumes.classifiers]


@torch.inference_mode()
def run_patches(
    network: Callable[[torch.Tensor], torch.Tensor],
    patches: torch.Tensor,
    device: torch.device,
    arithmetic: Arithmetic,
) -> torch.Tensor:
    """Runs a network on `device`; returns fp32 logits (B, C, *patch) on the device of the patches."""
    where = patches.device
    if device.type == "cuda" and where.type == "cpu":
        patches = patches.pin_memory()  # only then does the copy overlap with the network's computation
    with arithmetic.context(device):
        outputs = network(patches.to(device, arithmetic.weights, non_blocking=True))
    return outputs.to(where).float()
