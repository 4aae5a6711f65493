"""Learning rates, by numbers worked out by hand and by the definitions of the plateau and the decay."""

from fractions import Fraction

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_ext.schedules import (
    CyclePlan,
    FineTuningPlan,
    cycle_length,
    cyclical_learning_rate,
    plateau_first_epoch,
    poly_then_constant_learning_rate,
    warm_up_cosine_learning_rate,
)


def test_cycle_length_is_epochs_over_cycles():
    assert cycle_length(1200, 3) == 400
    assert cycle_length(7, 1) == 7
    assert cycle_length(4, 4) == 1


def test_cycles_must_divide_the_epochs_and_the_message_names_the_numbers_that_would():
    # 1000 = 3 * 333 + 1, so 999 and 1002 are the nearest multiples of 3.
    with pytest.raises(ValueError, match=r"1000 epochs and 3 cycles\. Use 999 or 1002 epochs"):
        cycle_length(1000, 3)


@pytest.mark.parametrize(("total_epochs", "cycles"), [(10, 0), (0, 3), (10, -2), (-9, 3)])
def test_epochs_and_cycles_must_be_positive(total_epochs, cycles):
    with pytest.raises(ValueError, match="at least 1"):
        cycle_length(total_epochs, cycles)


@pytest.mark.parametrize(
    ("epochs_in_cycle", "plateau_start", "first"),
    [
        (400, 0.8, 320),  # 320 exactly
        (10, 0.8, 8),  # 8 exactly
        (7, 0.8, 5),  # 5.6, rounded down
        (3, 0.8, 2),  # 2.4, rounded down
        (1, 0.8, 0),  # 0.8, rounded down: the only epoch is a sample
        (100, 0.29, 29),  # 29 exactly, though 0.29 * 100 is 28.999999999999996 in floating point
        (5, 0.0, 0),
    ],
)
def test_plateau_start_is_rounded_down(epochs_in_cycle, plateau_start, first):
    assert plateau_first_epoch(epochs_in_cycle, plateau_start) == first


@pytest.mark.parametrize("plateau_start", ["0.8", "0.75", "0.29", "0.5", "0.333", "0"])
@pytest.mark.parametrize("epochs_in_cycle", [1, 2, 3, 7, 10, 100, 333, 400])
def test_plateau_is_the_set_of_epochs_after_gamma_tc(epochs_in_cycle, plateau_start):
    # The definition, in exact arithmetic: epochs counted from 1 with γ·T_c < t <= T_c.
    gamma = Fraction(plateau_start)
    by_definition = [t for t in range(1, epochs_in_cycle + 1) if gamma * epochs_in_cycle < t]
    first = plateau_first_epoch(epochs_in_cycle, float(plateau_start))
    assert [index + 1 for index in range(first, epochs_in_cycle)] == by_definition


@pytest.mark.parametrize("plateau_start", [-0.1, 1.0, 1.5, float("nan")])
def test_plateau_start_outside_its_range_is_refused(plateau_start):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        plateau_first_epoch(10, plateau_start)


# T = 1200, M = 3, so T_c = 400; the plateau starts at 0.8 * 400 = 320.
# H = T:   0.01 * (1 -   1/1200)^0.9 = 0.01 * 0.999167^0.9 = 0.009992
#          0.01 * (1 - 100/1200)^0.9 = 0.01 * 0.916667^0.9 = 0.009247
#          0.01 * (1 - 200/1200)^0.9 = 0.01 * 0.833333^0.9 = 0.008487
#          0.01 * (1 - 320/1200)^0.9 = 0.01 * 0.733333^0.9 = 0.007564
# H = T_c: 0.01 * (1 -   1/400)^0.9  = 0.01 * 0.9975^0.9   = 0.009977
#          0.01 * (1 - 100/400)^0.9  = 0.01 * 0.75^0.9     = 0.007719
#          0.01 * (1 - 200/400)^0.9  = 0.01 * 0.5^0.9      = 0.005359
#          0.01 * (1 - 320/400)^0.9  = 0.01 * 0.2^0.9      = 0.002349
@pytest.mark.parametrize(
    ("decay_horizon", "epoch_in_cycle", "learning_rate"),
    [
        ("total", 1, 0.009992),
        ("total", 100, 0.009247),
        ("total", 200, 0.008487),
        ("total", 320, 0.007564),
        ("total", 399, 0.007564),
        ("cycle", 1, 0.009977),
        ("cycle", 100, 0.007719),
        ("cycle", 200, 0.005359),
        ("cycle", 320, 0.002349),
        ("cycle", 399, 0.002349),
    ],
)
@pytest.mark.parametrize("cycle", [0, 1, 2])
def test_rates_of_the_default_training(decay_horizon, epoch_in_cycle, learning_rate, cycle):
    rate = cyclical_learning_rate(400 * cycle + epoch_in_cycle, total_epochs=1200, decay_horizon=decay_horizon)
    assert rate == pytest.approx(learning_rate, abs=5e-7)


def test_the_default_training_restarts_at_the_first_epoch_of_each_cycle_only():
    restarts = [epoch for epoch in range(1200) if cyclical_learning_rate(epoch, total_epochs=1200) == 0.1]
    assert restarts == [0, 400, 800]


def test_the_default_horizon_is_the_whole_training():
    assert cyclical_learning_rate(100, total_epochs=1200) == pytest.approx(0.009247, abs=5e-7)


def rates_with_linear_decay(decay_horizon):
    """T = 30, M = 3, so T_c = 10 with the plateau from index 8; exponent 1 makes every rate a fraction."""
    return [
        cyclical_learning_rate(
            epoch,
            total_epochs=30,
            cycles=3,
            initial_lr=1.0,
            restart_lr=9.0,
            exponent=1.0,
            decay_horizon=decay_horizon,
        )
        for epoch in range(30)
    ]


def test_every_rate_of_a_linear_decay_over_the_whole_training():
    # 9 once, then 1 - t/30 for t = 1 to 8, then 1 - 8/30 again
    one_cycle = [9, 29 / 30, 28 / 30, 27 / 30, 26 / 30, 25 / 30, 24 / 30, 23 / 30, 22 / 30, 22 / 30]
    assert rates_with_linear_decay("total") == pytest.approx(3 * one_cycle)


def test_every_rate_of_a_linear_decay_over_one_cycle():
    # 9 once, then 1 - t/10 for t = 1 to 8, then 1 - 8/10 again
    one_cycle = [9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2]
    assert rates_with_linear_decay("cycle") == pytest.approx(3 * one_cycle)


def test_plateau_that_starts_at_a_fraction_of_an_epoch_uses_the_rounded_rate():
    # T = T_c = 7: 0.8 * 7 = 5.6, rounded down to 5, so the plateau is at 1 - 5/7 and not at 1 - 5.6/7.
    rates = [cyclical_learning_rate(e, total_epochs=7, cycles=1, initial_lr=1, exponent=1) for e in (5, 6)]
    assert rates == pytest.approx([2 / 7, 2 / 7])


def test_one_cycle_restarts_once_and_has_one_horizon():
    rates = {
        decay_horizon: [
            cyclical_learning_rate(epoch, total_epochs=10, cycles=1, decay_horizon=decay_horizon)
            for epoch in range(10)
        ]
        for decay_horizon in ("total", "cycle")
    }
    assert rates["total"] == rates["cycle"]  # T = T_c
    assert [epoch for epoch in range(10) if rates["total"][epoch] == 0.1] == [0]
    # 0.01 * (1 - 5/10)^0.9 = 0.01 * 0.535887
    assert rates["total"][5] == pytest.approx(0.00535887, abs=5e-9)


def test_as_many_cycles_as_epochs_are_restarts_only():
    assert [cyclical_learning_rate(epoch, total_epochs=4, cycles=4) for epoch in range(4)] == [0.1] * 4


def test_plateau_from_the_start_is_the_initial_rate_after_the_restart():
    rates = [cyclical_learning_rate(epoch, total_epochs=6, cycles=2, plateau_start=0.0) for epoch in range(6)]
    assert rates == [0.1, 0.01, 0.01, 0.1, 0.01, 0.01]


@pytest.mark.parametrize("epoch", [-1, 1200, 5000])
def test_epoch_outside_the_training_is_refused(epoch):
    with pytest.raises(ValueError, match=f"0 to 1199; found {epoch}"):
        cyclical_learning_rate(epoch, total_epochs=1200)


def test_unknown_horizon_is_refused():
    with pytest.raises(ValueError, match="'epoch'"):
        cyclical_learning_rate(1, total_epochs=1200, decay_horizon="epoch")


def test_cyclical_rate_refuses_cycles_that_do_not_divide_the_epochs():
    with pytest.raises(ValueError, match="must divide"):
        cyclical_learning_rate(0, total_epochs=1000, cycles=3)


def test_plan_has_the_rates_of_the_schedule_where_the_cycles_divide_the_epochs():
    for decay_horizon in ("total", "cycle"):
        plan = CyclePlan(total_epochs=30, cycles=3, decay_horizon=decay_horizon)
        assert [plan.learning_rate_at(epoch) for epoch in range(30)] == [
            cyclical_learning_rate(epoch, total_epochs=30, cycles=3, decay_horizon=decay_horizon)
            for epoch in range(30)
        ]


def test_the_default_training_samples_the_last_80_epochs_of_each_cycle():
    plan = CyclePlan(total_epochs=1200)
    sampled = [epoch for epoch in range(1200) if plan.samples_weights_at(epoch)]
    assert sampled == [*range(320, 400), *range(720, 800), *range(1120, 1200)]


def test_epochs_beyond_the_last_whole_cycle_prolong_its_plateau():
    # 11 epochs, 3 cycles: 3 cycles of 3 epochs and 2 more. The plateau starts at 0.8 * 3 = 2.4, rounded down to 2.
    plan = CyclePlan(total_epochs=11, cycles=3, initial_lr=1.0, restart_lr=9.0, exponent=1.0, decay_horizon="total")
    assert plan.epochs_in_cycle == 3
    assert [plan.cycle_of(epoch) for epoch in range(11)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert [plan.epoch_in_cycle(epoch) for epoch in range(11)] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]
    assert [epoch for epoch in range(11) if plan.samples_weights_at(epoch)] == [2, 5, 8, 9, 10]
    # The horizon is the 9 planned epochs: 1 - 1/9 and 1 - 2/9.
    rates = [plan.learning_rate_at(epoch) for epoch in range(11)]
    assert rates == pytest.approx([9, 8 / 9, 7 / 9, 9, 8 / 9, 7 / 9, 9, 8 / 9, 7 / 9, 7 / 9, 7 / 9])


def test_thousand_epochs_in_three_cycles():
    # 1000 = 3 * 333 + 1; 0.8 * 333 = 266.4, so 333 - 266 = 67 samples a cycle and one more in the last.
    plan = CyclePlan(total_epochs=1000)
    sampled_in = [plan.cycle_of(epoch) for epoch in range(1000) if plan.samples_weights_at(epoch)]
    assert [sampled_in.count(cycle) for cycle in range(3)] == [67, 67, 68]


def test_fewer_epochs_than_cycles_make_every_epoch_a_cycle():
    plan = CyclePlan(total_epochs=2, cycles=3)
    assert [plan.cycle_of(epoch) for epoch in range(2)] == [0, 1]
    assert [plan.learning_rate_at(epoch) for epoch in range(2)] == [0.1, 0.1]
    assert [plan.samples_weights_at(epoch) for epoch in range(2)] == [True, True]


def test_averaging_schedule_is_nnunets_own_until_it_stays_constant():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    nnunet_schedule = PolyLRScheduler(optimizer, 0.01, 1000)
    for epoch in (0, 1, 250, 749, 750):
        nnunet_schedule.step(epoch)
        expected = optimizer.param_groups[0]["lr"]
        assert poly_then_constant_learning_rate(epoch, total_epochs=1000) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epoch", [750, 751, 999])
def test_averaging_schedule_stays_constant_after_three_quarters(epoch):
    # 0.01 * (1 - 750/1000)^0.9 = 0.01 * 2^-1.8 = 0.01 * 0.2871746
    assert poly_then_constant_learning_rate(epoch, total_epochs=1000) == pytest.approx(0.002871746, abs=5e-10)


def test_averaging_schedule_refuses_a_constant_part_of_no_length():
    with pytest.raises(ValueError):
        poly_then_constant_learning_rate(0, total_epochs=1000, constant_from=1.0)


def test_every_rate_of_a_warm_up_and_a_cosine():
    # T = 10, W = 4, f = 0.1: (t + 1) / 4, then 0.1 + 0.9 (1 + cos(pi (t - 4) / 6)) / 2 with the cosines of
    # 0, 30, 60, 90, 120 and 150 degrees: 1, 0.8660254, 0.5, 0, -0.5, -0.8660254
    rates = [
        warm_up_cosine_learning_rate(epoch, total_epochs=10, peak_lr=2.0, warm_up_epochs=4, final_factor=0.1)
        for epoch in range(10)
    ]
    cosine = [1.0, 0.9397114, 0.775, 0.55, 0.325, 0.1602886]
    assert rates == pytest.approx([2 * factor for factor in [0.25, 0.5, 0.75, 1.0, *cosine]])


def test_without_warm_up_the_cosine_begins_at_the_peak():
    rates = [
        warm_up_cosine_learning_rate(epoch, total_epochs=2, peak_lr=1.0, warm_up_epochs=0, final_factor=0.0)
        for epoch in range(2)
    ]
    assert rates == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("warm_up_epochs", [-1, 10, 11])
def test_a_warm_up_as_long_as_the_training_is_refused(warm_up_epochs):
    with pytest.raises(ValueError, match=f"shorter than the training of 10 epochs; found {warm_up_epochs}"):
        warm_up_cosine_learning_rate(0, total_epochs=10, peak_lr=1.0, warm_up_epochs=warm_up_epochs)


@pytest.mark.parametrize("epoch", [-1, 30])
def test_an_epoch_outside_a_training_with_warm_up_is_refused(epoch):
    with pytest.raises(ValueError, match=f"0 to 29; found {epoch}"):
        warm_up_cosine_learning_rate(epoch, total_epochs=30, peak_lr=1.0)


# --- fine-tuning ---

# T = 16, D = 4, N = 3: half of D is h = 2, the decay begins at 7 and has 9 epochs. With exponent 1 and peak 18:
#   decoder     18 * (1/2, 2/2), then 18 * (1 - 0/2, 1 - 1/2)
#   network     18 * (1/3, 2/3, 3/3)
#   decay       18 * (1 - k/9) for k = 0 ... 8
SAWTOOTH = [9, 18, 18, 9, 6, 12, 18, 18, 16, 14, 12, 10, 8, 6, 4, 2]
STAGES = ["decoder warm-up"] * 4 + ["network warm-up"] * 3 + ["decay"] * 9


def test_every_rate_and_stage_of_a_fine_tuning():
    plan = FineTuningPlan(16, decoder_epochs=4, network_epochs=3, peak_lr=18, exponent=1)
    assert [plan.learning_rate_at(epoch) for epoch in range(16)] == pytest.approx(SAWTOOTH)
    assert [plan.stage_at(epoch) for epoch in range(16)] == STAGES


def test_rates_of_the_papers_fine_tuning():
    """1100 epochs: 1e-3 (e + 1)/25, 1e-3 (1 - (e - 25)/25)^0.9, 1e-3 (e - 49)/50, 1e-3 (1 - (e - 100)/1000)^0.9."""
    plan = FineTuningPlan(1100)
    assert (plan.network_start, plan.decay_start) == (50, 100)
    found = [plan.learning_rate_at(epoch) for epoch in (0, 24, 25, 49, 50, 99, 100, 600, 1099)]
    expected = [4e-5, 1e-3, 1e-3, 1e-3 * 0.04**0.9, 2e-5, 1e-3, 1e-3, 1e-3 * 0.5**0.9, 1e-3 * 0.001**0.9]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "starts"), [(1, (0, 0)), (3, (0, 0)), (4, (1, 2)), (100, (25, 50))])
def test_each_warm_up_takes_a_quarter_of_a_short_fine_tuning(epochs, starts):
    plan = FineTuningPlan(epochs)
    assert (plan.network_start, plan.decay_start) == starts
    assert all(0 < plan.learning_rate_at(epoch) <= 1e-3 for epoch in range(epochs))


def test_without_warm_ups_a_fine_tuning_has_nnunets_schedule():
    plan = FineTuningPlan(20, decoder_epochs=0, network_epochs=0, peak_lr=0.01)
    assert [plan.learning_rate_at(e) for e in range(20)] == pytest.approx(
        [0.01 * (1 - e / 20) ** 0.9 for e in range(20)]
    )


@pytest.mark.parametrize("epoch", [-1, 20])
def test_an_epoch_outside_a_fine_tuning_is_refused(epoch):
    with pytest.raises(ValueError, match=f"in 0 to 19; found {epoch}"):
        FineTuningPlan(20).learning_rate_at(epoch)


@pytest.mark.parametrize("lengths", [(0, 1, 1), (10, -1, 1), (10, 1, -1)])
def test_impossible_lengths_of_a_fine_tuning_are_refused(lengths):
    with pytest.raises(ValueError, match="at least one epoch"):
        FineTuningPlan(*lengths)
