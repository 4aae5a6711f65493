"""Weights are kept as long as the budget lasts, once each, and put into the network without a copy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.streaming import MemoryWeights, StreamingNetwork
from nnunet_ext.models import weight_store
from nnunet_ext.models.members import Member, MemberError, MemberRule, find_members
from nnunet_ext.models.model import load_model
from nnunet_ext.models.weight_store import WeightStore, default_budget_bytes, on_device, point_at, unique_bytes

CPU = torch.device("cpu")
PLENTY = 1 << 30


@pytest.fixture
def members(make_model_folder, write_checkpoint) -> list[Member]:
    """Two folds of a tiny U-Net."""
    return find_members(make_model_folder(folds=(0, 1)), None, MemberRule.parse("final"))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the members whose files are read."""
    names: list[str] = []
    read = Member.weights

    def counted(self):
        names.append(self.name)
        return read(self)

    monkeypatch.setattr(Member, "weights", counted)
    return names


def bytes_of(member: Member) -> int:
    """4 bytes a value of every tensor, those of equal names for the same memory counted once."""
    seen = {}
    for tensor in member.weights().values():
        seen[tensor.data_ptr()] = 4 * tensor.numel()
    return sum(seen.values())


# --- what is kept ---


def test_weights_within_the_budget_are_read_once(members, reads):
    store = WeightStore(CPU, torch.float32, PLENTY)
    first = store.of(members[0])
    for _ in range(3):
        assert store.of(members[0]) is first
    assert reads == ["fold_0/checkpoint_final"]


def test_weights_beyond_the_budget_are_read_again(members, reads):
    """There is room for one member and a half."""
    size = bytes_of(members[0])
    reads.clear()
    store = WeightStore(CPU, torch.float32, size + size // 2)
    for member in (*members, *members):
        store.of(member)
    assert reads == ["fold_0/checkpoint_final", "fold_1/checkpoint_final", "fold_1/checkpoint_final"]
    assert store.kept_bytes == size


def test_with_no_budget_nothing_is_kept(members, reads):
    store = WeightStore(CPU, torch.float32, 0)
    weights = [store.of(members[0]) for _ in range(2)]
    assert len(reads) == 2
    assert store.kept_bytes == 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_weights_are_those_of_the_file(members):
    expected = torch.load(members[1].path, weights_only=False)["network_weights"]
    found = WeightStore(CPU, torch.float32, PLENTY).of(members[1])
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_weights_in_bfloat16_take_half_the_memory(members):
    single, half = (WeightStore(CPU, dtype, PLENTY) for dtype in (torch.float32, torch.bfloat16))
    weights = half.of(members[0])
    for name, tensor in single.of(members[0]).items():
        assert weights[name].dtype == torch.bfloat16
        assert torch.equal(weights[name], tensor.bfloat16())
    assert half.kept_bytes * 2 == single.kept_bytes


def test_draws_with_dropout_share_the_weights_of_their_file(members, reads):
    store = WeightStore(CPU, torch.float32, PLENTY)
    draws = [replace(members[0], name=f"draw {seed}", dropout_seed=seed) for seed in range(5)]
    assert len({id(store.of(draw)) for draw in draws}) == 1
    assert reads == ["draw 0"]
    assert store.kept_bytes == bytes_of(members[0])


# --- shared memory ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_that_nnunet_lists_under_two_names_stay_one(members, dtype):
    """Its blocks list a convolution as `conv` and as `all_modules.0`, its U-Net the encoder also in the decoder."""
    weights = WeightStore(CPU, dtype, PLENTY).of(members[0])
    block = "encoder.stages.0.0.convs.0"
    names = [f"{prefix}{block}.{layer}.weight" for prefix in ("", "decoder.") for layer in ("conv", "all_modules.0")]
    assert len({weights[name].data_ptr() for name in names}) == 1


def test_bytes_are_counted_once_for_each_block_of_memory():
    """12 values and 5 of their own: 17 of 4 bytes. A view takes nothing."""
    block = torch.zeros(3, 4)
    weights = {"conv": block, "all_modules.0": block, "row": block[1], "other": torch.zeros(5)}
    assert unique_bytes(weights) == 68
    assert unique_bytes({}) == 0


def test_the_bytes_of_a_network_are_those_of_its_parameters(members):
    """A network lists each parameter once, whatever its names; in the file it has two or more."""
    weights = members[0].weights()
    model = load_model(members[0].path.parents[1], None, MemberRule.parse("final"), device=CPU)
    expected = sum(4 * parameter.numel() for parameter in model.network.parameters())
    assert sum(4 * tensor.numel() for tensor in weights.values()) > 1.5 * expected
    assert bytes_of(members[0]) == expected


def test_on_another_device_tensors_that_share_memory_still_do():
    """The device "meta" is a device without memory, so any machine has it."""
    block = torch.zeros(3, 4)
    moved = on_device({"conv": block, "all_modules.0": block, "other": torch.ones(3, 4)}, torch.device("meta"))
    assert moved["conv"] is moved["all_modules.0"]
    assert moved["conv"] is not moved["other"]
    assert moved["conv"].device.type == "meta"


def test_on_a_cpu_weights_stay_mapped_from_their_file():
    weights = {"conv": torch.zeros(3)}
    assert on_device(weights, CPU) is weights


def test_a_quarter_of_the_free_memory_is_the_budget(monkeypatch):
    monkeypatch.setattr(weight_store, "available_memory_bytes", lambda: 1000)
    assert default_budget_bytes(CPU) == 250
    monkeypatch.setattr(weight_store, "available_memory_bytes", lambda: None)  # unknown
    assert default_budget_bytes(CPU) == 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 90000))
    assert default_budget_bytes(torch.device("cuda")) == 1000


# --- into the network ---


def tiny_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()


@torch.no_grad()
def test_a_network_computes_with_the_weights_that_it_points_at():
    network, other = tiny_network(0), tiny_network(1)
    other[1].running_mean.fill_(0.3)  # buffers as well
    image = torch.randn((1, 1, 5, 5), generator=torch.Generator().manual_seed(0))
    assert not torch.equal(network(image), other(image))
    point_at(network, other.state_dict())
    assert torch.equal(network(image), other(image))


def test_nothing_is_copied():
    network, weights = tiny_network(0), tiny_network(1).state_dict()
    point_at(network, weights)
    for name, tensor in network.state_dict().items():
        assert tensor.data_ptr() == weights[name].data_ptr()
    assert all(isinstance(parameter, nn.Parameter) for parameter in network.parameters())


def test_a_network_takes_the_type_of_the_weights():
    network = tiny_network(0)
    weights = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor
               for name, tensor in tiny_network(1).state_dict().items()}  # fmt: skip
    point_at(network, weights)
    assert network(torch.ones(1, 1, 5, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16
    point_at(network, tiny_network(1).state_dict())
    assert network(torch.ones(1, 1, 5, 5)).dtype == torch.float32


def edited(changes: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """The weights of a network; None takes a tensor away."""
    weights = {**tiny_network(1).state_dict(), **changes}
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (edited({"0.weight": torch.zeros(2, 1, 3, 4)}), r"of 1 tensors differ, the first of them 0\.weight"),
        (edited({"0.bias": None}), r"of 1 tensors differ, the first of them 0\.bias"),
        (edited({"2.weight": torch.zeros(1)}), r"of 1 tensors differ, the first of them 2\.weight"),
        (edited({"0.bias": torch.zeros(5), "2.weight": torch.zeros(1)}), "of 2 tensors differ"),
    ],
    ids=["another shape", "a missing name", "a name too many", "two at once"],
)
def test_other_names_and_shapes_are_refused_and_the_network_stays_as_it_is(weights, message):
    network = tiny_network(0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError, match=message):
        point_at(network, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("budget_bytes", [0, PLENTY])
def test_members_that_take_turns_do_not_disturb_one_another(members, budget_bytes):
    """Back and forth, each gives what a network of its own gives, and the files' weights stay as they were."""
    folder = members[0].path.parents[1]
    image = torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    alone = []
    for fold in (0, 1):
        model = load_model(folder, [fold], MemberRule.parse("final"), device=CPU)
        model.load(model.members[0])
        alone.append(model.network(image))
    assert not torch.equal(*alone)
    model = load_model(folder, None, MemberRule.parse("final"), device=CPU)
    model = replace(model, weights=WeightStore(CPU, torch.float32, budget_bytes))
    for turn in (0, 1, 0, 0, 1, 1, 0):
        model.load(model.members[turn])
        assert torch.equal(model.network(image), alone[turn])
    for member in members:
        expected = torch.load(member.path, weights_only=False)["network_weights"]
        assert all(torch.equal(model.weights.of(member)[name], tensor) for name, tensor in expected.items())


def test_a_member_that_does_not_fit_is_named(members, monkeypatch):
    model = load_model(members[0].path.parents[1], None, MemberRule.parse("final"), device=CPU)
    monkeypatch.setattr(WeightStore, "of", lambda self, member: {})
    with pytest.raises(MemberError, match=r"fold_1.*does not fit the network of .*: names or shapes of \d+ tensors"):
        model.load(members[1])


def test_a_mixture_learns_from_the_weights_whether_its_outputs_are_regions():
    """The flag is a buffer, but the network keeps it as a Python value as well."""
    networks = [StreamingNetwork([nn.Conv2d(1, 2, 1)], MemoryWeights()) for _ in range(2)]
    networks[1].declare_regions(True)
    point_at(networks[0], networks[1].state_dict())
    assert networks[0].has_regions
