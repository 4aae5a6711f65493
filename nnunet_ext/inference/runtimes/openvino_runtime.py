"""The OpenVINO runtime: the model's network on the CPU, compiled once; a member's weights are inputs of the graph."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_ext.inference.runtimes.batch_size import BatchSize, batch_size_for
from nnunet_ext.inference.runtimes.openvino_graph import graph_of, openvino_package, weights_of
from nnunet_ext.inference.runtimes.precision import SINGLE, Arithmetic, log_cost
from nnunet_ext.inference.runtimes.probe import largest_difference, noise, not_one_network
from nnunet_ext.inference.runtimes.runtime import CannotRunError
from nnunet_ext.inference.runtimes.torch_runtime import run_patches
from nnunet_ext.models.members import Member
from nnunet_ext.models.model import Model
from nnunet_ext.models.weight_store import point_at

LARGEST_DIFFERENCE = 1e-4  # of probabilities in single precision


class OpenVinoRuntime:
    """Runs the network in OpenVINO, see `runtime.Runtime`.

    Members swap by pointer, as in torch: nothing is compiled again, and the memory does not grow with their number.
    Before its first use the graph is compared with the network in torch.

    Args:
        model: the model whose network runs with the weights of one member at a time.
        device: where the network runs.
        arithmetic: single precision, or bfloat16 weights, with which OpenVINO computes in bfloat16 throughout.

    Raises:
        ExtraMissingError: if OpenVINO is not installed.
        CannotRunError: if it cannot run the model, or gives other probabilities than torch; the message says why.
    """

    def __init__(self, model: Model, device: torch.device, arithmetic: Arithmetic) -> None:
        if reason := why_not(model, device):
            raise CannotRunError(reason)
        self._openvino = openvino_package()
        self.model = model
        self.classifiers = 1
        self._batch_size: BatchSize | None = None
        self._weights: list[torch.Tensor] = []
        point_at(model.network, model.members[0].weights())  # in single precision, whatever the arithmetic
        self._graph = graph_of(model.network, noise(model, 1)[0])
        self._request = self._single = self._compiled("f32")
        self._require_same_as_torch()
        if arithmetic.weights == torch.bfloat16:
            self._request = self._compiled("bf16")
        self._cost_is_known = self._request is self._single

    def load(self, member: Member) -> None:
        """See `runtime.Runtime`."""
        self.model.load(member)
        self._take_weights()

    def run(self, patches: torch.Tensor, classifier: int = 0) -> torch.Tensor:
        """See `runtime.Runtime`; there is one classifier."""
        logits = self._infer(self._request, patches)
        if not self._cost_is_known:
            self._cost_is_known = True
            middle = slice(len(patches) // 2, len(patches) // 2 + 1)
            single = self._infer(self._single, patches[middle])
            log_cost(single, logits[middle], regions=self.model.labels.has_regions)
            self._single = None
        return logits

    def fitting_batch_size(self, patch: torch.Tensor) -> BatchSize:
        """See `runtime.Runtime`."""
        self._batch_size = self._batch_size or batch_size_for(patch.shape[1:], torch.device("cpu"))
        return self._batch_size

    def _compiled(self, precision: str) -> Any:
        """A request for inference in this precision, with as many threads as torch has."""
        properties = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        return self._openvino.Core().compile_model(self._graph, "CPU", properties).create_infer_request()

    def _take_weights(self) -> None:
        """Keeps the network's tensors, which OpenVINO reads without a copy of its own where they are contiguous."""
        tensors = weights_of(self.model.network).values()
        self._weights = [(one.float() if one.is_floating_point() else one).detach().contiguous() for one in tensors]

    def _infer(self, request: Any, patches: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, *patch) in fp32 of patches (B, channels, *patch) with the weights taken last."""
        for number, tensor in enumerate([patches.float().contiguous(), *self._weights]):
            request.set_input_tensor(number, self._openvino.Tensor(tensor.numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor(0).data.copy())  # the request writes there again

    def _require_same_as_torch(self) -> None:
        """Refuses a graph that gives other probabilities than torch, for patches of noise and the first member."""
        patches, device = noise(self.model, 2), torch.device("cpu")
        self._take_weights()
        ours = self._infer(self._single, patches)
        expected = run_patches(self.model.network, patches, device, SINGLE)
        difference = largest_difference(ours, expected, regions=self.model.labels.has_regions)
        if not difference <= LARGEST_DIFFERENCE:  # NaN is not
            raise CannotRunError(f"its probabilities there differ from torch's by {difference:.1e}")


def why_not(model: Model, device: torch.device) -> str | None:
    """Why a model cannot run in OpenVINO here; None if it can be tried."""
    if device.type != "cpu":
        return f"it is used on CPUs only, and the networks run on {device.type}"
    return not_one_network(model)
