"""DeepLabV3+: shapes against nnU-Net's own network, rates by impulses, and what instance norm must not cancel."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ext.architectures.deeplab import AtrousPyramid, DeepLabV3Plus, ImagePooling, Layers
from nnunet_ext.architectures.deeplab_strides import atrous_rates_for, limited_strides, low_level_stage

PLANS = {  # strides, features, image
    "2d": ([1, 2, 2, 2, 2, 2], [4, 6, 8, 10, 12, 12], (64, 96)),
    "3d": ([1, 2, 2, 2, 2], [4, 6, 8, 10, 12], (32, 48, 32)),
    "anisotropic": (
        [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)],
        [4, 6, 8, 8, 8, 8],
        (8, 64, 64),
    ),
    "shallow": ([1, 2], [4, 6], (8, 12)),
}


def network(plan, *, seed=0, **options):
    torch.manual_seed(seed)
    strides, features, image = PLANS[plan]
    conv_op = nn.Conv2d if len(image) == 2 else nn.Conv3d
    return DeepLabV3Plus(2, 3, conv_op=conv_op, strides=strides, features_per_stage=features, **options)


def unet(plan):
    strides, features, image = PLANS[plan]
    conv_op, norm_op = (nn.Conv2d, nn.InstanceNorm2d) if len(image) == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    stages = len(strides)
    return PlainConvUNet(
        2, stages, features, conv_op, 3, strides, 1, 3, 1, norm_op=norm_op, nonlin=nn.LeakyReLU, deep_supervision=True
    )


def picture(plan, batch=2):
    return torch.randn((batch, 2, *PLANS[plan][2]), generator=torch.Generator().manual_seed(0))


# --- shapes ---


@pytest.mark.parametrize("plan", PLANS)
def test_logits_have_the_size_of_the_image(plan):
    image = picture(plan)
    assert network(plan)(image).shape == (2, 3, *image.shape[2:])


@pytest.mark.parametrize(("plan", "size"), [("2d", (65, 37)), ("2d", (33, 100)), ("3d", (17, 33, 20))])
def test_any_other_size_will_do(plan, size):
    assert network(plan)(torch.zeros((1, 2, *size))).shape == (1, 3, *size)


@pytest.mark.parametrize("plan", PLANS)
def test_deep_supervision_has_the_shapes_of_nnunets_own_network(plan):
    image = picture(plan)
    with torch.no_grad():
        ours, theirs = network(plan, deep_supervision=True)(image), unet(plan)(image)
    assert isinstance(ours, list)
    assert [output.shape for output in ours] == [output.shape for output in theirs]


def test_coarser_logits_are_means_over_areas_of_the_finest():
    image = picture("anisotropic")
    with torch.no_grad():
        finest, *coarser = network("anisotropic", deep_supervision=True).eval()(image)
    # strides (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2): blocks of their products
    blocks = [(1, 2, 2), (2, 4, 4), (4, 8, 8), (4, 16, 16)]
    assert len(coarser) == len(blocks)
    for output, (d, h, w) in zip(coarser, blocks, strict=True):
        split = finest.reshape(2, 3, 8 // d, d, 64 // h, h, 64 // w, w)
        torch.testing.assert_close(output, split.mean(dim=(3, 5, 7)))


def test_deep_supervision_is_switched_where_nnunet_switches_it():
    net, image = network("2d").eval(), picture("2d")
    with torch.no_grad():
        plain = net(image)
        net.decoder.deep_supervision = True
        outputs = net(image)
        net.decoder.deep_supervision = False
        assert torch.equal(net(image), plain)
    assert torch.equal(outputs[0], plain)


@pytest.mark.parametrize("plan", PLANS)
def test_the_encoder_gives_details_at_a_quarter_and_context_at_a_sixteenth(plan):
    low_level, context = network(plan).encoder(picture(plan))
    expected = {
        "2d": ((16, 24), (4, 6)),
        "3d": ((8, 12, 8), (2, 3, 2)),
        "anisotropic": ((4, 16, 16), (2, 4, 4)),
        "shallow": ((4, 6), (4, 6)),
    }
    assert (low_level.shape[2:], context.shape[2:]) == expected[plan]


# --- strides and rates ---


def test_beyond_a_sixteenth_a_stage_dilates_instead():
    steps, dilations = limited_strides([(1, 1)] + [(2, 2)] * 6)
    assert steps == [(1, 1)] + [(2, 2)] * 4 + [(1, 1)] * 2
    assert dilations == [(1, 1)] * 5 + [(2, 2), (4, 4)]


def test_each_axis_has_a_limit_of_its_own():
    """The first axis: 1, 1, 2, 4, 4, 8. The second: 1, 2, 4, 8, 16, and then 32 is too much."""
    steps, dilations = limited_strides([(1, 1), (1, 2), (2, 2), (2, 2), (1, 2), (2, 2)])
    assert steps == [(1, 1), (1, 2), (2, 2), (2, 2), (1, 2), (2, 1)]
    assert dilations == [(1, 1)] * 5 + [(1, 2)]


def test_a_stride_of_three_stops_before_a_sixteenth():
    """1, 3, 9; 27 is too much, 18 as well."""
    steps, dilations = limited_strides([(1,), (3,), (3,), (3,), (2,)])
    assert steps == [(1,), (3,), (3,), (1,), (1,)]
    assert dilations == [(1,), (1,), (1,), (3,), (6,)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(1, 1), (2, 2), (2, 2), (2, 2)], 2),
        ([(1, 1), (1, 2), (1, 2), (2, 2), (2, 2)], 2),
        ([(1, 1), (2, 2), (2, 2)], 1),  # the deepest is the context's
        ([(1, 1), (4, 4), (2, 2)], 1),
        ([(1, 1), (8, 8), (2, 2)], 0),
    ],
)
def test_details_come_from_the_last_stage_at_a_quarter(steps, expected):
    assert low_level_stage(steps) == expected


def test_the_depthwise_convolutions_are_dilated_per_axis():
    strides = [(1, 1), (1, 2), (2, 2), (2, 2), (1, 2), (2, 2)]
    net = DeepLabV3Plus(1, 2, conv_op=nn.Conv2d, strides=strides, features_per_stage=[4] * 6)
    depthwise = [
        {module.dilation for module in stage.modules() if isinstance(module, nn.Conv2d) and module.groups > 1}
        for stage in net.encoder.stages
    ]
    assert depthwise == [set()] + [{(1, 1)}] * 4 + [{(1, 2)}]


def test_an_atrous_branch_sees_at_its_rate_and_nowhere_between():
    """A convolution of ones and an impulse in the middle: ones at −rate, 0 and +rate along each axis."""
    pyramid = AtrousPyramid(Layers(nn.Conv2d, nn.Identity, {}), 1, 1, [(6, 6), (12, 12), (18, 4)])
    for parameter in pyramid.parameters():
        nn.init.ones_(parameter)
    impulse = torch.zeros((1, 1, 41, 41))
    impulse[0, 0, 20, 20] = 1
    for branch, (down, right) in zip(pyramid.branches, [(0, 0), (6, 6), (12, 12), (18, 4)], strict=True):
        found = {tuple(index) for index in (branch(impulse)[0, 0] != 0).nonzero().tolist()}
        assert found == {(20 + i * down, 20 + j * right) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_the_default_rates_are_the_papers():
    net = network("2d")
    rates = [branch[0][0].dilation for branch in net.encoder.pyramid.branches]
    assert rates == [(1, 1), (6, 6), (12, 12), (18, 18)]


def test_rates_for_the_papers_crops_are_the_papers_and_smaller_for_smaller_patches():
    strides = [1, 2, 2, 2, 2, 2]
    assert atrous_rates_for((513, 513), strides) == [(6, 6), (12, 12), (18, 18)]
    # 256 / 16 = 16 positions: 16/33 · (6, 12, 18) = 2.9, 5.8, 8.7; 128 / 16 = 8: 1.5, 2.9, 4.4
    assert atrous_rates_for((256, 128), strides) == [(3, 1), (6, 3), (9, 4)]
    # four positions along the first axis: 0.7, 1.5, 2.2
    assert [rate[0] for rate in atrous_rates_for((16, 256), [(1, 1), (2, 2), (2, 2), (1, 2), (1, 2)])] == [1, 1, 2]


def test_every_voxel_of_the_context_sees_the_whole_image():
    """With the image's mean as a branch: each input has a gradient from the context's first position."""
    net = network("2d", dropout=0).eval()
    image = picture("2d", batch=1).requires_grad_()
    _, context = net.encoder(image)
    context[0, :, 0, 0].sum().backward()
    assert (image.grad.abs().sum(dim=1) > 0).all()


# --- what instance norm must not undo ---


def test_the_image_pooling_sees_the_image():
    """Of two features with the same mean but another spread: the mean comes after the non-linearity."""
    torch.manual_seed(0)
    pooling = ImagePooling(Layers(nn.Conv2d, None, None), 1, 4)
    narrow, wide = torch.tensor([-1.0, 1.0, -1.0, 1.0]), torch.tensor([-5.0, 5.0, -5.0, 5.0])
    outputs = [pooling(values.reshape(1, 1, 2, 2)) for values in (narrow, wide)]
    assert not torch.allclose(*outputs)
    for output in outputs:  # one value a channel, at every position
        assert output.shape == (1, 4, 2, 2)
        assert (output == output[..., :1, :1]).all()


def test_the_mean_of_the_encoders_last_stage_says_nothing_of_the_image():
    """Which is why the pooling has a non-linearity first."""
    net = network("2d").eval()
    means = []
    for image in (picture("2d"), 3 + picture("2d").square()):
        features = image
        for stage in net.encoder.stages:
            features = stage(features)
        means.append(features.mean(dim=(2, 3)))
    torch.testing.assert_close(means[0], means[1], atol=1e-5, rtol=0)


def test_the_image_pooling_reaches_the_logits():
    net, image = network("2d").eval(), picture("2d")
    with torch.no_grad():
        before = net(image)
        net.encoder.pyramid.image_pooling.project[0].bias += 1
        assert (net(image) - before).abs().max() > 1e-3


@pytest.mark.parametrize("plan", PLANS)
def test_gradients_reach_every_parameter(plan):
    """But for one kind: the shift of a linear projection that the next norm subtracts again."""
    net = network(plan, deep_supervision=True).double()
    sum((output**3).sum() for output in net(picture(plan).double())).backward()
    sizes = {name: parameter.grad.abs().max().item() for name, parameter in net.named_parameters()}
    idle = {name for name, size in sizes.items() if size < 1e-6}
    last = len(net.encoder.stages) - 1
    projections = {
        f"encoder.stages.{number}.{index}.block.{len(block.block) - 1}.1.bias"
        for number, stage in enumerate(net.encoder.stages)
        if 0 < number < last
        for index, block in enumerate(stage)
    }
    assert idle <= projections


# --- behaviour ---


def test_evaluation_is_deterministic_and_training_is_not():
    net, image = network("2d"), picture("2d")
    with torch.no_grad():
        assert not torch.equal(net(image), net(image))
        net.eval()
        assert torch.equal(net(image), net(image))


def test_without_dropout_training_is_deterministic():
    net, image = network("2d", dropout=0), picture("2d")
    with torch.no_grad():
        assert torch.equal(net(image), net(image))


def test_half_of_the_context_is_dropped_in_training():
    net, image = network("2d"), picture("2d")
    with torch.no_grad():
        _, dropped = net.encoder(image)
        _, context = net.eval().encoder(image)
    kept = dropped != 0
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.03)  # of 2 · 256 · 24 values
    torch.testing.assert_close(dropped[kept], 2 * context[kept])


@pytest.mark.parametrize("plan", PLANS)
def test_weights_load_into_the_network_of_prediction(plan):
    trained = network(plan, deep_supervision=True).eval()
    loaded = network(plan, seed=1, deep_supervision=False).eval()
    loaded.load_state_dict(trained.state_dict())  # strict
    with torch.no_grad():
        assert torch.equal(loaded(picture(plan)), trained(picture(plan))[0])


def test_samples_of_a_batch_do_not_see_each_other():
    net, image = network("2d").eval().double(), picture("2d").double()
    with torch.no_grad():
        torch.testing.assert_close(net(image)[1:], net(image[1:]))


def test_the_plans_norm_may_replace_instance_norm():
    net = network("2d", norm_op=nn.BatchNorm2d, norm_op_kwargs={"eps": 1e-3})
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert not any(isinstance(module, nn.InstanceNorm2d) for module in net.modules())
    assert net(picture("2d")).shape == (2, 3, 64, 96)


def test_instance_norm_has_a_learned_scale_and_shift():
    norms = [module for module in network("3d").modules() if isinstance(module, nn.InstanceNorm3d)]
    assert norms
    assert all(norm.affine for norm in norms)


def test_it_runs_under_autocast_and_compiles_without_a_break():
    net, image = network("3d").eval(), picture("3d", batch=1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(image)
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)(image)
        torch.testing.assert_close(compiled, net(image))


def test_the_number_of_parameters_is_the_one_in_its_description():
    features = [32, 64, 128, 256, 512, 512, 512]
    net = DeepLabV3Plus(1, 4, conv_op=nn.Conv2d, strides=[1] + [2] * 6, features_per_stage=features)

    def normalised(weights, channels):
        return weights + 2 * channels  # no bias, scale and shift

    def block(inputs, outputs, expansion):
        hidden = expansion * inputs
        expand = normalised(inputs * hidden, hidden) if expansion > 1 else 0
        return expand + normalised(9 * hidden, hidden) + normalised(hidden * outputs, outputs)

    expected = normalised(9 * 1 * 32, 32) + block(32, 64, 1) + block(64, 64, 1)
    for inputs, outputs in [(64, 128), (128, 256), (256, 512), (512, 512), (512, 512)]:
        expected += block(inputs, outputs, 6) + block(outputs, outputs, 6)
    expected += normalised(512 * 256, 256) + 3 * normalised(9 * 512 * 256, 256)  # branches
    expected += 512 * 256 + 256 + 5 * 256 * 256 + 256  # image pooling, join
    expected += normalised(128 * 48, 48)  # details, 128 channels at a quarter
    expected += normalised(9 * (48 + 256) * 256, 256) + normalised(9 * 256 * 256, 256) + 256 * 4 + 4
    assert sum(parameter.numel() for parameter in net.parameters()) == expected
    assert f"it has {expected:,} parameters" in DeepLabV3Plus.__doc__


# --- refusals ---


@pytest.mark.parametrize("strides", [[1], [2, 2], [(1, 2), (2, 2)]])
def test_a_network_without_a_first_stage_at_full_resolution_is_refused(strides):
    with pytest.raises(ValueError, match="at least two stages, the first with stride 1"):
        DeepLabV3Plus(1, 2, conv_op=nn.Conv2d, strides=strides, features_per_stage=[4] * len(strides))


def test_as_many_features_as_strides_are_needed():
    with pytest.raises(ValueError, match="3 strides and 2 numbers of features"):
        DeepLabV3Plus(1, 2, conv_op=nn.Conv2d, strides=[1, 2, 2], features_per_stage=[4, 4])


def test_a_stride_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"2D network needs 2 numbers.*found \(2, 2, 2\)"):
        DeepLabV3Plus(1, 2, conv_op=nn.Conv2d, strides=[1, (2, 2, 2)], features_per_stage=[4, 4])


def test_rates_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"3D network needs 3 numbers.*found \(6, 6\)"):
        DeepLabV3Plus(1, 2, conv_op=nn.Conv3d, strides=[1, 2], features_per_stage=[4, 4], atrous_rates=[(6, 6)])
