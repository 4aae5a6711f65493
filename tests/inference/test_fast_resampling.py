"""`--fast-resampling`: what refuses it, and that it is no silent change. Its numbers are in test_ensemble.py."""

from __future__ import annotations

import json

import pytest

from nnunet_ext.inference.engine import EnsembleEngine


def opened(folder, **options):
    return EnsembleEngine.from_model_folders(folder, device="cpu", fast_resampling=True, **options)


def test_averaged_logits_are_refused(make_model_folder):
    with pytest.raises(ValueError, match=r"averaged logits\. Leave out --fast-resampling or --average logits"):
        opened(make_model_folder(), average="logits")


def test_plans_whose_resampling_overshoots_are_refused(make_model_folder):
    """Splines of order 3 leave [0, 1], so that probabilities would not stay probabilities."""
    folder = make_model_folder()
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["resampling_fn_probabilities_kwargs"]["order"] = 3
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(
        ValueError, match=r"linear interpolation.*the plans use resample_data_or_seg_to_shape with .*'order': 3"
    ):
        opened(folder)


def test_a_calibration_depends_on_fast_resampling(make_model_folder):
    folder = make_model_folder()
    plain = EnsembleEngine.from_model_folders(folder, device="cpu")
    assert "fast_resampling" not in plain.settings
    assert opened(folder).settings == plain.settings | {"fast_resampling": True}
