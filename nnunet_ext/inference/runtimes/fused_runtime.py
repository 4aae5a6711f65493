"""The fused runtime for GPUs: reduced-precision weights in fixed buffers, and one compiled graph for all members."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from torch import nn

from nnunet_ext.architectures.channels_last import LAYOUTS
from nnunet_ext.architectures.fused_norm import with_fused_norms
from nnunet_ext.error_text import first_line
from nnunet_ext.inference.runtimes.precision import SINGLE, Arithmetic, fastest, finished
from nnunet_ext.inference.runtimes.probe import largest_difference, noise, not_one_network
from nnunet_ext.inference.runtimes.runtime import CannotRunError
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime, run_patches
from nnunet_ext.machine.cache_folder import cache_folder
from nnunet_ext.models.members import Member
from nnunet_ext.models.model import Model

COMPILER_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
LARGEST_DIFFERENCE = 1e-4  # of probabilities, if stock's precision is single
MOST_OF_STOCKS = 2.0  # times the error of stock's reduced precision
PROBE_PATCHES = 2
LAYOUT_REPEATS = 3
WORTHWHILE_SPEEDUP = 1.1  # below it the layout stays nnU-Net's, so that noise does not compile a network again
Compile = Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]]


class FusedRuntime(TorchRuntime):
    """Runs a copy of the network that is made for speed, see `runtime.Runtime`.

    Its weights are in the type that stock computes convolutions in, its instance norms are fused with what is around
    them, its layout is the one that is faster in a trial, and it is compiled once for any number of patches. Members
    are copied into the same tensors, so that nothing is compiled again. Compiled code is kept in the user's cache
    folder, unless torch was told another place. Before its first use it is compared with the network in torch.

    Args:
        model: the model whose network runs with the weights of one member at a time.
        device: where the network runs.
        arithmetic: that of plain torch.
        compile_network: returns the compiled form of a network; None uses `torch.compile`.

    Raises:
        CannotRunError: if it cannot run the model, or its probabilities are further from single precision than
            twice what stock's are; the message says why.
    """

    def __init__(
        self, model: Model, device: torch.device, arithmetic: Arithmetic, compile_network: Compile | None = None
    ) -> None:
        super().__init__(model, device, arithmetic)
        if reason := not_one_network(model):
            raise CannotRunError(reason)
        self._cost_is_known = True  # compared below
        self._own_arithmetic = Arithmetic(weights=arithmetic.autocast or arithmetic.weights)
        dtype = self._own_arithmetic.weights
        self._network = with_fused_norms(deepcopy(model.network)).to(device, dtype).requires_grad_(False)
        self._layout = faster_layout(self._network, noise(model, PROBE_PATCHES).to(device, dtype))
        in_layout(self._network, self._layout)
        self._tensors = named_once(self._network)
        self._fitting: set[Path] = set()  # files whose weights have this network's names and shapes
        os.environ.setdefault(COMPILER_CACHE_VARIABLE, str(cache_folder("inductor")))
        compile_one = torch.compile if compile_network is None else compile_network
        self.networks = [compile_one(self._network)]
        self._require_close_to_torch()

    @torch.inference_mode()
    def load(self, member: Member) -> None:
        """See `runtime.Runtime`."""
        if member.path not in self._fitting:
            self.model.load(member)  # refuses weights that do not fit, which takes longer than copying them
            self._fitting.add(member.path)
        weights = self.model.weights.of(member)
        torch._foreach_copy_(list(self._tensors.values()), [weights[name] for name in self._tensors], True)

    @torch.inference_mode()
    def run(self, patches: torch.Tensor, classifier: int = 0) -> torch.Tensor:
        """See `runtime.Runtime`; there is one classifier."""
        return run_patches(partial(self._laid_out, classifier), patches, self.device, self._own_arithmetic)

    def _laid_out(self, classifier: int, patches: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, *patch) of patches (B, channels, *patch) on the device, in the layout of the trial."""
        patches = patches.contiguous(memory_format=self._layout)
        if len(patches) > 1:  # torch compiles a single patch for itself
            torch._dynamo.maybe_mark_dynamic(patches, 0)
        return self.networks[classifier](patches)

    def _require_close_to_torch(self) -> None:
        """Refuses a network that fails or is less accurate than stock's precision, by patches of noise."""
        self.load(self.model.members[0])
        patches = noise(self.model, PROBE_PATCHES)
        network = self.model.network
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # which torch allows in single precision
            single = run_patches(network, patches, self.device, SINGLE)
        stock = run_patches(network, patches, self.device, self.arithmetic)
        try:
            ours = self.run(patches)
        except RuntimeError as error:  # such as a compiler that is not installed
            raise CannotRunError(f"it cannot be compiled ({first_line(error)})") from error
        regions = self.model.labels.has_regions
        allowed = max(LARGEST_DIFFERENCE, MOST_OF_STOCKS * largest_difference(stock, single, regions=regions))
        difference = largest_difference(ours, single, regions=regions)
        if not difference <= allowed:  # NaN is not
            raise CannotRunError(
                f"its probabilities there differ from single precision by {difference:.1e}, more than {allowed:.1e}"
            )


def named_once(network: nn.Module) -> dict[str, torch.Tensor]:
    """Name to tensor of a network's weights, each tensor once: nnU-Net lists most of them under two names."""
    by_tensor = {id(tensor): (name, tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    return dict(by_tensor.values())


def faster_layout(network: nn.Module, patches: torch.Tensor) -> torch.memory_format:
    """Channels last where that is clearly faster on these patches, before the network is compiled.

    Args:
        network: changed to channels last.
        patches: (B, channels, *patch).
    """
    layouts = (torch.contiguous_format, LAYOUTS[patches.ndim])
    seconds = []
    for layout in layouts:
        in_layout(network, layout)
        trial = partial(finished, network, patches.contiguous(memory_format=layout))
        seconds.append(fastest(trial, LAYOUT_REPEATS))
    return layouts[seconds[0] >= WORTHWHILE_SPEEDUP * seconds[1]]


def in_layout(network: nn.Module, layout: torch.memory_format) -> None:
    """Gives a network's kernels a memory layout, in place; the values do not change."""
    for tensor in named_once(network).values():
        if tensor.ndim in LAYOUTS:
            tensor.data = tensor.data.contiguous(memory_format=layout)
