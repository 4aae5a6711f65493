"""In evaluation and in checkpoints it is the plain network; in training it runs with torch.compile and DDP."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch._dynamo import is_dynamo_supported
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.distillation_heads import (
    DistillationHead,
    LevelHeads,
    VectorHead,
    steps_to_full_resolution,
)
from nnunet_ext.architectures.feature_taps import taps_of
from nnunet_ext.architectures.self_distilling import SelfDistillingNetwork
from nnunet_ext.losses.self_distillation_objective import DistillationOutput, DistillationTerms, SelfDistillationLoss

FEATURES = (4, 6, 8, 10)
STRIDES = [(1, 1), (2, 2), (1, 2), (2, 2)]
GRIDS = [(16, 32), (8, 16), (8, 8), (4, 4)]  # of each level
CLASSES = 3
LEVELS = len(FEATURES)


def plain_unet(architecture=PlainConvUNet, *, deep_supervision=True, seed=0):
    torch.manual_seed(seed)
    blocks = "n_blocks_per_stage" if architecture is ResidualEncoderUNet else "n_conv_per_stage"
    return architecture(
        input_channels=1,
        n_stages=LEVELS,
        features_per_stage=FEATURES,
        conv_op=nn.Conv2d,
        kernel_sizes=[[3, 3]] * LEVELS,
        strides=STRIDES,
        num_classes=CLASSES,
        n_conv_per_stage_decoder=[1] * (LEVELS - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{blocks: [1] * LEVELS},
    )


def segmentation_heads(*, full=False, shared=True, encoder=True, decoder=True):
    def make_head(side, level):
        steps = steps_to_full_resolution(STRIDES, level) if full else ()
        return DistillationHead(FEATURES[level], CLASSES, steps, nn.Conv2d)

    levels_of_encoder = range(LEVELS - 1) if encoder else ()
    return LevelHeads(make_head, levels_of_encoder, range(1, LEVELS) if decoder else (), shared=shared)


def vector_heads(levels=(), *, shared=True):
    return LevelHeads(lambda side, level: VectorHead(FEATURES[level]), levels, levels, shared=shared)


def distilling(plain, *, vectors=(), **options):
    shared = options.get("shared", True)
    return SelfDistillingNetwork(plain, segmentation_heads(**options), vector_heads(vectors, shared=shared))


def image(seed=0):
    return torch.randn((2, 1, *GRIDS[0]), generator=torch.Generator().manual_seed(seed))


def as_list(segmentation):
    return segmentation if isinstance(segmentation, list) else [segmentation]


def equal(first, second):
    return type(first) is type(second) and all(
        torch.equal(*pair) for pair in zip(as_list(first), as_list(second), strict=True)
    )


# --- evaluation, and the state dict ---


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_in_evaluation_it_returns_what_the_plain_network_returns(architecture, deep_supervision):
    plain = plain_unet(architecture, deep_supervision=deep_supervision)
    network = distilling(deepcopy(plain)).eval()
    with torch.no_grad():
        assert equal(network(image()), plain.eval()(image()))


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
def test_its_weights_are_those_of_the_plain_network_and_load_strictly(architecture):
    network = distilling(plain_unet(architecture), vectors=(1, 2)).eval()
    anew = plain_unet(architecture, seed=1).eval()
    assert list(network.state_dict()) == list(anew.state_dict())
    anew.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert equal(network(image()), anew(image()))


def test_the_weights_of_a_plain_network_load_and_leave_the_heads_alone():
    network, other = distilling(plain_unet()), plain_unet(seed=1)
    heads = deepcopy(network.distillation_heads.state_dict())
    network.load_state_dict(other.state_dict())
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in network.state_dict().items())
    after = network.distillation_heads.state_dict()
    assert list(after) == list(heads)
    assert len(heads) > 0
    assert all(torch.equal(tensor, heads[key]) for key, tensor in after.items())


def test_a_weight_too_few_or_too_many_is_noticed():
    network = distilling(plain_unet())
    weights = dict(network.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*distillation_heads"):
        network.load_state_dict({**weights, "distillation_heads.x": torch.zeros(1)})
    weights.pop("decoder.seg_layers.0.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*decoder\.seg_layers\.0\.weight"):
        network.load_state_dict(weights)
    assert network.load_state_dict(weights, strict=False).missing_keys == ["decoder.seg_layers.0.weight"]


def test_the_optimizer_gets_the_parameters_of_the_plain_network_and_then_those_of_the_heads():
    plain = plain_unet()
    network = distilling(plain)
    in_order = [*plain.parameters(), *network.distillation_heads.parameters()]
    assert [id(parameter) for parameter in network.parameters()] == [id(parameter) for parameter in in_order]


# --- training ---


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_in_training_it_returns_the_segmentation_and_the_logits_of_each_level(deep_supervision):
    plain = plain_unet(deep_supervision=deep_supervision)
    network = distilling(plain, vectors=(1, 2)).train()
    output = network(image())
    assert isinstance(output, DistillationOutput)
    assert equal(output.segmentation, plain(image()))
    assert [logits.shape for logits in output.encoder_logits] == [(2, CLASSES, *grid) for grid in GRIDS[:-1]]
    assert [logits.shape for logits in output.decoder_logits] == [(2, CLASSES, *grid) for grid in GRIDS[1:]]
    assert [v.shape for v in (*output.encoder_vectors, *output.decoder_vectors)] == [(2, 128)] * 4


def test_in_training_the_heads_read_the_tapped_features():
    plain = plain_unet()
    network = distilling(plain, vectors=(1, 2))
    output = network(image())
    encoder, decoder, _ = taps_of(plain)(image())
    heads, vectors = network.distillation_heads["segmentation"].heads, network.distillation_heads["vectors"].heads
    for found, side, levels in (
        (output.encoder_logits, encoder, (0, 1, 2)),
        (output.decoder_logits, decoder, (1, 2)),
    ):
        for logits, level in zip(found, levels, strict=False):
            assert torch.equal(logits, heads[f"level_{level}"](side[level]))
    assert torch.equal(output.decoder_logits[2], heads["level_3"](decoder[3]))  # the bottleneck
    assert torch.equal(output.encoder_vectors[1], vectors["level_2"](encoder[2]))
    assert torch.equal(output.decoder_vectors[0], vectors["level_1"](decoder[1]))


def test_at_full_resolution_all_logits_have_the_images_grid():
    output = distilling(plain_unet(), full=True)(image())
    logits = (*output.encoder_logits, *output.decoder_logits)
    assert [tuple(level.shape) for level in logits] == [(2, CLASSES, *GRIDS[0])] * 6


def test_without_heads_only_the_segmentation_is_there():
    output = distilling(plain_unet(), encoder=False, decoder=False)(image())
    assert output[1:] == ([], [], [], [])


@pytest.mark.parametrize("training", [False, True])
def test_nnunets_switch_of_deep_supervision_works(training):
    # nnU-Net sets network.decoder.deep_supervision before and after its final validation
    network = distilling(plain_unet()).train(training)

    def segmentation():
        output = network(image())
        return output.segmentation if training else output

    listed = segmentation()
    network.decoder.deep_supervision = False
    assert torch.equal(segmentation(), listed[0])
    network.decoder.deep_supervision = True
    assert equal(segmentation(), listed)
    assert network.encoder is network.plain.encoder


# --- torch.compile and DDP ---


@pytest.mark.skipif(not is_dynamo_supported(), reason="torch.compile does not run on this Python or system")
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_torch_compile_sees_one_graph_in_training(full, deep_supervision):
    torch._dynamo.reset()
    network = distilling(plain_unet(deep_supervision=deep_supervision), full=full, vectors=(1, 2)).train()
    output = torch.compile(network, backend="eager", fullgraph=True)(image())  # a graph break raises
    uncompiled = network(image())
    assert isinstance(output, DistillationOutput)
    assert equal(output.segmentation, uncompiled.segmentation)
    for found, expected in zip(output[1:], uncompiled[1:], strict=True):
        assert equal(list(found), list(expected))


@pytest.fixture
def process_group(tmp_path):
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo, the CPU backend of torch.distributed")
    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def stock(output, target):
    """As nnU-Net's under DDP: every output counts, the coarsest almost nothing."""
    weights = (2 / 3, 1 / 3, 1e-6)
    return sum(w * one_output(o, t) for w, o, t in zip(weights, output, target, strict=True))


def one_output(logits, target):
    return F.cross_entropy(logits, target[:, 0])


def targets():
    finest = torch.randint(CLASSES, (2, 1, *GRIDS[0]), generator=torch.Generator().manual_seed(0))
    return [finest, finest[..., ::2, ::2], finest[..., ::2, ::4]]


COMBINATIONS = {  # the weights of the trainers' terms
    "DSD": {},
    "SDD": {"encoder": 0.0},
    "SDE": {"decoder": 0.0},
    "DS": {"encoder": 0.0, "decoder": 0.0},
    "no supervision": {"supervision": 0.0},
    "mean": {"teacher": "mean"},
    "reversed": {"teacher": "reversed"},
    "vectors": {"vectors": 1e-4},
    "detached": {"detach_teacher": True},
    "detached mean": {"detach_teacher": True, "teacher": "mean"},
}
SEPARATE_TOO = [name for name in COMBINATIONS if name != "detached"]  # E_2's own head would learn nothing


@pytest.mark.parametrize("full", [False, True], ids=["native", "full"])
@pytest.mark.parametrize(
    ("combination", "shared"), [*((name, True) for name in COMBINATIONS), *((name, False) for name in SEPARATE_TOO)]
)
def test_ddp_finds_no_unused_parameter_in_any_combination_of_terms(process_group, combination, shared, full):
    terms = DistillationTerms(**COMBINATIONS[combination])
    network = distilling(
        plain_unet(),
        full=full,
        shared=shared,
        encoder=bool(terms.encoder),
        decoder=bool(terms.decoder or terms.supervision),
        vectors=(1, 2) if terms.vectors else (),
    )
    parallel = DistributedDataParallel(network.train(), find_unused_parameters=False)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01)
    loss = SelfDistillationLoss(stock, one_output, terms)
    for iteration in range(3):  # an unused parameter raises in the second
        optimizer.zero_grad(set_to_none=True)
        value = loss(parallel(image(iteration)), targets())
        value.backward()
        assert value.isfinite()
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
        optimizer.step()
    assert list(parallel.module.state_dict()) == list(plain_unet().state_dict())
