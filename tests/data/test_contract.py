import copy
import dataclasses
import json
from typing import Any

import pytest

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.seen_cases import SeenCases
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.thresholds import Threshold

_THRESHOLD = Threshold(0.25, "val", 12, "highest Youden index")
_SEEN = SeenCases.of([Case("a", ("s", "t"))], {"s": "0123456789abcdef", "t": None})
_FULL = InputContract(
    "label",
    ("no", "yes"),
    (),
    PatchInput((0.5, None), 256, "all", 32, 0.0, 0.5, 80),
    _SEEN,
    _THRESHOLD,
    "bf16-mixed",
    {"task": "ClassificationTask", "input_size": 224, "mean": [0.5, 0.5, 0.5]},
    {"torch": "2.9"},
)
_SURVIVAL = InputContract("survival", ("0", "1", "2"), (10.5, 30.25), FeatureInput(8, "uni", 0.5))


def _through_json(contract: InputContract) -> InputContract:
    return InputContract.from_json(json.loads(json.dumps(contract.as_json(), allow_nan=False)))


@pytest.mark.parametrize("contract", [_FULL, _SURVIVAL, InputContract("regression"), InputContract(None)])
def test_json_keeps_everything(contract: InputContract) -> None:
    assert _through_json(contract) == contract


def test_json_states_format_and_unit() -> None:
    content = _SURVIVAL.as_json()
    assert (content["format"], content["time_unit"], content["time_edges"]) == (1, "months", [10.5, 30.25])


@pytest.mark.parametrize("number", [2, "1", None])
def test_a_later_format_is_refused(number: object) -> None:
    with pytest.raises(ContractError, match=rf"has format {number!r}, and this release reads format 1; update"):
        InputContract.from_json({**_FULL.as_json(), "format": number})


def _damaged() -> list[Any]:
    whole = _FULL.as_json()
    spoilt: list[Any] = [
        {name: value for name, value in whole.items() if name != lost}
        for lost in whole
        if lost not in ("time_unit", "complete")
    ]
    for name in ("input", "seen", "threshold"):
        for wrong in ("text", 7, ["list"], {"kind": "patches"}, {"kind": "sounds"}, {"other": 1}):
            spoilt.append({**whole, name: wrong})
    for name, wrong in (("classes", "ab"), ("classes", ["a", "a"]), ("time_edges", ["a"])):
        spoilt.append({**whole, name: wrong})
    spoilt += [{**whole, "time_edges": edges} for edges in ([20.0, 10.0], [-1.0], [5.0, 5.0])]
    spoilt += [{**whole, "threshold": {**whole["threshold"], "value": value}} for value in ("0.5", None, [0.5])]
    spoilt += [{**whole, "classes": 3}, {**whole, "time_edges": None}, None, [], "contract"]
    return spoilt


@pytest.mark.parametrize("content", _damaged(), ids=lambda content: json.dumps(content)[:60])
def test_a_damaged_contract_is_refused(content: Any) -> None:
    with pytest.raises(ContractError, match=r"is damaged|has format"):
        InputContract.from_json(content)
    with pytest.raises(ContractError, match=r"is damaged|has format"):
        InputContract.of_checkpoint({"contract": content, "state_dict": {}})


def test_a_threshold_fitted_on_test_cases_is_refused() -> None:
    content = copy.deepcopy(_FULL.as_json())
    content["threshold"]["split"] = "test"
    with pytest.raises(InputError, match="too good"):
        InputContract.from_json(content)


def test_a_contract_keeps_that_it_is_incomplete() -> None:
    old = InputContract.of_checkpoint({"classes": ["a"]})
    assert not old.complete
    assert not _through_json(old).complete


def test_checkpoints_carry_contracts() -> None:
    assert InputContract.of_checkpoint({"contract": _FULL.as_json(), "classes": ["other"]}) == _FULL


def test_checkpoints_of_earlier_releases() -> None:
    old = InputContract.of_checkpoint(
        {"classes": ["no", "yes"], "time_edges": [3.0], "threshold": {"value": 0.79, "split": "val"}}
    )
    assert (old.classes, old.time_edges, old.threshold) == (("no", "yes"), (3.0,), Threshold(0.79, "val"))
    assert (old.target, old.input, old.seen, old.complete) == (None, None, None, False)
    first = InputContract.of_checkpoint({"classes": ["no", "yes"], "threshold": None})  # 0.1 had no edges
    assert (first.time_edges, first.threshold) == ((), None)
    assert InputContract.of_checkpoint({}) == InputContract(None, complete=False)


def test_an_old_contract_accepts_any_target_and_input() -> None:
    old = InputContract.of_checkpoint({"classes": ["no", "yes"]})
    old.check_target("label", None)
    old.check_target("survival", ["no", "yes"])
    old.check_input(PatchInput((0.25,), 7))
    with pytest.raises(ContractError, match=r"classes are \['no', 'yes'\]"):
        old.check_target("label", ["yes", "no"])


def test_another_target_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"trained on the target label, and data\.target is survival; set it to label"
    ):
        _FULL.check_target("survival", None)
    _FULL.check_target("label", None)
    dataclasses.replace(_FULL, target="").check_target("survival", None)


def test_an_unknown_target_is_not_refused() -> None:
    _FULL.check_target("", _FULL.classes)


@pytest.mark.parametrize("stated", [["yes", "no"], ["no"], ["no", "yes", "maybe"], ["No", "yes"], []])
def test_classes_in_another_order_are_refused(stated: list[str]) -> None:
    with pytest.raises(ContractError) as refusal:
        _FULL.check_target("label", stated)
    assert "['no', 'yes'], in this order" in str(refusal.value)
    assert f"data.classes is {stated}" in str(refusal.value)
    assert "leave it out" in str(refusal.value)


def test_the_models_classes_may_be_stated_or_left_out() -> None:
    _FULL.check_target("label", ["no", "yes"])
    _FULL.check_target("label", None)


def test_input_is_compared() -> None:
    with pytest.raises(ContractError, match="the files have 9 features per patch"):
        _SURVIVAL.check_input(FeatureInput(9, "uni", 0.5))
    with pytest.raises(ContractError, match="use a FeatureDataModule"):
        _SURVIVAL.check_input(PatchInput((0.5,), 64))
    _SURVIVAL.check_input(FeatureInput(8, "uni", 0.51))


def test_what_cannot_be_compared_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    _SURVIVAL.check_input(FeatureInput(8, "uni"))
    _SURVIVAL.check_input(None)
    assert not caplog.records
    _SURVIVAL.check_input(FeatureInput(8))
    (warning,) = caplog.records
    assert "only their width is checked" in warning.getMessage()
    caplog.clear()
    InputContract("label", input=PatchInput((None,), 64)).check_input(PatchInput((0.5,), 64))
    (warning,) = caplog.records
    assert "is not checked" in warning.getMessage()


def test_training_is_resumed_on_the_same_data() -> None:
    for contract in (_FULL, _SURVIVAL, InputContract(None, complete=False)):
        contract.check_resumed(contract)
    _SURVIVAL.check_resumed(dataclasses.replace(_SURVIVAL, time_edges=(10.5 * (1 + 1e-8), 30.25)))
    _FULL.check_resumed(InputContract("label"))  # data from outside this package


def test_training_is_resumed_from_a_checkpoint_of_an_earlier_release() -> None:
    """Release 0.1 recorded no time edges."""
    old = InputContract.of_checkpoint({"classes": ["0", "1", "2"]})
    old.check_resumed(_SURVIVAL)
    with pytest.raises(ContractError, match="classes"):
        old.check_resumed(_FULL)


@pytest.mark.parametrize(
    ("checkpoint", "change", "reason"),
    [
        (_FULL, {"classes": ("yes", "no")}, "in this order"),
        (_FULL, {"target": "multi_label"}, r"trained on the target label"),
        (_FULL, {"input": FeatureInput(8)}, "use a SlideDataModule"),
        (_FULL, {"input": PatchInput((0.5,), 256, "all")}, "cache the slides for this model"),
        (_SURVIVAL, {"time_edges": (10.5, 31.0)}, r"bins end at \(10\.5, 30\.25\) months, .* at \(10\.5, 31\.0\)"),
        (_SURVIVAL, {"time_edges": (10.5,), "classes": ("0", "1")}, "classes"),
    ],
)
def test_training_is_not_resumed_on_other_data(checkpoint: InputContract, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        checkpoint.check_resumed(dataclasses.replace(checkpoint, **change))


def test_training_is_not_resumed_at_other_coarse_scales() -> None:
    """Training draws patches from all scales, also where evaluation uses only the finest."""
    fitted = InputContract("label", ("a", "b"), input=PatchInput((0.5, 1.0), 64))
    for mpp in ((0.5, 2.0), (0.5,)):
        with pytest.raises(ContractError, match=r"1 µm/px"):
            fitted.check_resumed(dataclasses.replace(fitted, input=PatchInput(mpp, 64)))


def test_training_is_not_resumed_on_other_cases() -> None:
    fitted = InputContract("label", ("a", "b"), seen=_SEEN)
    fitted.check_resumed(fitted)
    other = SeenCases.of([Case("a", ("s", "t")), Case("b", ("u",))], {})
    with pytest.raises(ContractError, match=r"some of the 2 .* not among the 1 of the checkpoint; .*start a new run"):
        fitted.check_resumed(fitted.with_seen(other))
    with pytest.raises(ContractError, match="not among"):
        fitted.check_resumed(fitted.with_seen(SeenCases.of([Case("a", ("s", "u"))], {})))
    fitted.check_resumed(fitted.with_seen(SeenCases.of([Case("a", ("s", "t"))], {})))  # marks do not matter
    fitted.with_seen(other).check_resumed(fitted)  # a model that was trained on further cases before


def test_parts_are_replaced() -> None:
    assert _FULL.with_threshold(None) == dataclasses.replace(_FULL, threshold=None)
    assert InputContract("label").with_seen(_SEEN).seen == _SEEN
    assert _FULL.threshold == _THRESHOLD
