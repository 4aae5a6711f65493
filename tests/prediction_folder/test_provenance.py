"""Which ensemble wrote a folder, told by its record alone; records of earlier versions included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ext.options import AdaptOptions, EnsembleOptions
from nnunet_ext.prediction_folder.provenance import (
    OtherEnsembleError,
    OtherInputsError,
    Provenance,
    differences,
    provenance_of,
    read_provenance,
    recorded_provenance,
    require_same_ensemble,
    require_same_inputs,
)

MEMBERS = [{"name": f"fold_{fold}", "file": f"/models/fold_{fold}.pth", "sha256": 64 * str(fold)} for fold in (1, 2)]


def ensemble(*, calibration: str | None = None, **options: object) -> Provenance:
    stages = ["describe"] if calibration is None else ["describe", "calibrate"]
    return provenance_of(
        EnsembleOptions(**options), MEMBERS, members_averaged=2, stages=stages, calibration=calibration
    )


@pytest.mark.parametrize("made", [ensemble(), ensemble(model_weights=(1, 2)), ensemble(calibration=64 * "c")])
def test_what_was_recorded_is_read_back(tmp_path: Path, made: Provenance) -> None:
    record = {"members": MEMBERS, "ensemble": made.record()}
    (tmp_path / "predict_args.json").write_text(json.dumps(record))
    assert read_provenance(tmp_path) == made
    assert differences(made, made) == []


def test_a_folder_without_a_record_has_no_provenance(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"members": [{}]}', '{"members": 3}'])
def test_a_damaged_record_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "predict_args.json").write_text(text)
    with pytest.raises(ValueError, match=r"predict_args\.json cannot be read"):
        read_provenance(tmp_path)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"average": "logits"}, "average: found probabilities, asked for logits"),
        ({"model_weights": (1, 2)}, "model_weights: found none, asked for 1, 2"),
        ({"tta_members": True}, "tta_members: found False, asked for True"),
        ({"tta": "none"}, "tta: found flips, asked for none"),
        ({"tile_step_size": 0.25}, "tile_step_size: found 0.5, asked for 0.25"),
        ({"early_exit": "label"}, "early_exit: found none, asked for label"),
        (
            {"adapt": AdaptOptions()},
            "adapt: found none, asked for steps 10, learning_rate 0.0001, margin 5, tiles 8, "
            "largest_volume_change 0.2, largest_confidence_change 0.1",
        ),
        ({"fast_resampling": True}, "fast_resampling: found False, asked for True"),
        ({"calibration": 64 * "c"}, "stages: found describe, asked for describe, calibrate"),
    ],
)
def test_what_differs_is_named_with_both_values(changed: dict[str, object], difference: str) -> None:
    assert differences(ensemble(), ensemble(**changed)) == [difference]


@pytest.mark.parametrize("rounding", [{"precision": "bf16"}, {"device": "cuda"}, {"allow_tqdm": False}])
def test_what_changes_rounding_at_most_is_no_difference(rounding: dict[str, object]) -> None:
    assert differences(ensemble(), ensemble(**rounding)) == []


def test_calibrations_differ_by_their_content() -> None:
    found, wanted = ensemble(calibration=64 * "c"), ensemble(calibration=64 * "d")
    assert differences(found, wanted) == ["calibration: found cccccccccccc, asked for dddddddddddd"]


def test_members_differ_by_name_number_order_and_content() -> None:
    found = ensemble()
    fewer = replace(found, members=found.members[:1])
    assert differences(found, fewer) == ["members: found 2 (fold_1, fold_2), asked for 1 (fold_1)"]
    turned = replace(found, members=found.members[::-1])
    assert differences(found, turned) == ["members: found 2 (fold_1, fold_2), asked for 2 (fold_2, fold_1)"]
    trained_again = replace(found, members=(("fold_1", 64 * "f"), found.members[1]))
    assert differences(found, trained_again) == ["fold_1: found the checkpoint 111111111111, asked for ffffffffffff"]


def test_long_lists_of_members_are_cut() -> None:
    many = replace(ensemble(), members=tuple((f"sample_{number}", 64 * "0") for number in range(30)))
    (difference,) = differences(many, ensemble())
    assert difference.startswith("members: found 30 (sample_0, sample_1, sample_2, 27 more), asked for 2")
    other = replace(many, members=tuple((name, 64 * "1") for name, _ in many.members))
    assert differences(many, other)[3:] == ["27 more checkpoints differ"]


def test_an_earlier_version_is_compared_by_members_and_arguments() -> None:
    arguments = {"i": "images", "average": "logits", "tta_members": False, "calibrated": None}
    found = recorded_provenance({"arguments": arguments, "versions": {}, "members": MEMBERS})
    assert found.members_averaged == 2
    assert differences(found, ensemble(average="logits")) == []
    assert differences(found, ensemble()) == ["average: found logits, asked for probabilities"]
    assert differences(found, ensemble(average="logits", calibration=64 * "c")) == [
        "stages: found describe, asked for describe, calibrate"
    ]


@pytest.mark.parametrize(("mirroring", "tta"), [(True, "flips"), (False, "none")])
def test_an_earlier_version_says_whether_it_mirrored(mirroring: bool, tta: str) -> None:
    earlier = {**ensemble().record(), "use_mirroring": mirroring}
    del earlier["tta"]
    records: list[dict[str, object]] = [{"ensemble": earlier}, {"arguments": {"use_mirroring": mirroring}}]
    for record in records:
        found = recorded_provenance({**record, "members": MEMBERS})
        assert differences(found, ensemble(tta=tta)) == []
        assert differences(found, ensemble(tta="full")) == [f"tta: found {tta}, asked for full"]


def test_an_earlier_version_does_not_tell_which_calibration_it_applied() -> None:
    found = recorded_provenance({"arguments": {"calibrated": True}, "members": MEMBERS})
    assert differences(found, ensemble(calibration=64 * "c")) == []
    assert found.members_averaged is None  # no word about mirrored copies as members


def test_a_prediction_continues_with_the_same_images_only(tmp_path: Path) -> None:
    """Cases of two datasets can have the same names."""
    before = {"i": "/data/a", "previous_stage": None, "map_type": "float32", "device": "cuda"}
    require_same_inputs(tmp_path, before, {**before, "i": Path("/data/a"), "device": "cpu"})
    require_same_inputs(tmp_path, before, {"members": "final"})  # from Python, without a folder of images
    with pytest.raises(OtherInputsError, match="-i: found /data/a, asked for /data/b"):
        require_same_inputs(tmp_path, before, {**before, "i": Path("/data/b")})
    with pytest.raises(OtherInputsError, match="--map-dtype: found float32, asked for uint8"):
        require_same_inputs(tmp_path, before, {**before, "map_type": "uint8"})


def test_a_folder_of_another_ensemble_is_refused_with_what_to_do(tmp_path: Path) -> None:
    require_same_ensemble(tmp_path, ensemble(), ensemble())
    with pytest.raises(OtherEnsembleError, match=r"average: found .* Choose another folder with -o") as refusal:
        require_same_ensemble(tmp_path, ensemble(), ensemble(average="logits"))
    assert str(tmp_path) in str(refusal.value)
    with pytest.raises(OtherEnsembleError, match="no record of its ensemble"):
        require_same_ensemble(tmp_path, None, ensemble())
