"""What `nnunet_ext export --format` prints."""

from __future__ import annotations

from nnunet_ext.deployment.checks import NetworkCheck
from nnunet_ext.deployment.deploy import DeployedModel
from nnunet_ext.deployment.int8 import Int8Loss

SHOWN_NORMS = 3


def outcome_text(deployed: DeployedModel) -> str:
    """The folder of an exported model, and a line for each of its networks."""
    lines = [f"  network_{number}: {check_text(check)}" for number, check in enumerate(deployed.checks)]
    lines += [f"  network_{number}: {loss_text(loss)}" for number, loss in enumerate(deployed.losses)]
    return "\n".join([str(deployed.folder), *lines])


def loss_text(loss: Int8Loss) -> str:
    """What int8 costs a network."""
    return (
        f"mean Dice on {loss.cases} held-out cases, without flips: {loss.dice_int8:.4f} in int8, "
        f"{loss.dice_fp32:.4f} in fp32 ({loss.dice_int8 - loss.dice_fp32:+.4f})"
    )


def check_text(check: NetworkCheck) -> str:
    """How far a network is from torch, and what half precision would do to it."""
    exported = f"probabilities within {check.largest_difference:.1e} of torch on {check.patches} patches"
    if check.half_overflow is not None:
        return f"{exported}; do not run it in fp16: {check.half_overflow} overflows"
    half = (
        f"{exported}; in fp16 within {check.half_largest_difference:.2g}, other labels in "
        f"{100 * check.half_other_labels:.3f} %"
    )
    norms = check.half_norms_in_single
    if not norms:
        return half
    shown = ", ".join(norms[:SHOWN_NORMS]) + (f" and {len(norms) - SHOWN_NORMS} more" * (len(norms) > SHOWN_NORMS))
    return f"{half}, if norms are computed in fp32 ({shown})"
