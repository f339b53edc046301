"""A model card, read as people and as the hub read it."""

from typing import Any

import huggingface_hub
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_reader import blocks_of, rows_of, text_of

from e2e_abmilx.models.export.card import CardMeasure, Performance, model_card
from e2e_abmilx.models.export.markdown import one_line

NAN = float("nan")
CONTRACT: dict[str, Any] = {
    "target": "label", "classes": ["normal", "tumour"], "time_edges": [],
    "input": {"kind": "patches", "mpp": [0.5, 1.0], "patch_size": 256, "eval_scales": "finest"},
    "seen": {"cases": 64, "names": ["0123456789abcdef"], "marks": []},
    "threshold": {"value": 0.4, "split": "val"}, "precision": "bf16-mixed",
    "model": {"task": "ClassificationTask", "encoder": "ResNetEncoder(name=resnet18)", "head": "ABMILX(num_heads=8)"},
    "versions": {"e2e_abmilx": "0.1.0"},
}  # fmt: skip
PERFORMANCE = Performance(
    {
        "auc": CardMeasure("AUC", "area | under", 0.9123, 0.85, 0.96),
        "kappa": CardMeasure("κ", "Cohen's", NAN, NAN, NAN),
    },
    32,
)


def card(title: str = "brca", address: str = "hf://lab/brca", contract: Any = CONTRACT, **how: Any) -> str:
    given: dict[str, Any] = {"record": {}, "settings": {}, "performance": PERFORMANCE, **how}
    return model_card(title, address, contract, **given)


def body_of(text: str) -> str:
    _, front, body = text.split("---\n", 2)
    assert isinstance(yaml.safe_load(front), dict)
    return body


def headings(text: str) -> list[str]:
    return [text_of(block) for block in blocks_of(body_of(text)) if block["type"] == "heading"]


def tables(text: str) -> list[list[list[str]]]:
    return [rows_of(block) for block in blocks_of(body_of(text)) if block["type"] == "table"]


SECTIONS = [
    "Model",
    "Input",
    "Output",
    "Training",
    "Performance",
    "How to use",
    "Intended use and limitations",
    "Licence",
]


def test_the_hub_reads_the_front_matter() -> None:
    data = huggingface_hub.ModelCard(card(license="CC-BY-NC-4.0", onnx=["head.onnx"])).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-nc-4.0",
        "e2e-abmilx",
        "image-classification",
    )
    assert {"computational-pathology", "onnx"} <= set(data.tags)
    (result,) = data.eval_results  # κ is undefined, and the hub takes numbers only
    assert (result.metric_type, result.metric_name, result.metric_value) == ("auc", "AUC", 0.9123)
    assert result.dataset_name == "test cases of the training cohort"


def test_people_read_the_facts() -> None:
    text = card(onnx=["head.onnx", "encoder_head.onnx"])
    assert headings(text) == ["brca", *SECTIONS]
    model, inputs, classes, training, performance = tables(text)
    assert ["encoder", "ResNetEncoder(name=resnet18)"] in model
    assert ["side of a patch", "256 px (128 µm)"] in inputs
    assert classes == [["Output", "Class"], ["0", "normal"], ["1", "tumour"]]
    assert ["training and validation cases", "64"] in training
    assert performance[1:] == [["AUC", "0.912", "0.850 to 0.960", "area | under"], ["κ", "–", "–", "Cohen's"]]
    assert "On the 32 test cases of the training cohort, which neither training nor the choice" in text
    assert "uint8 (N, 3, 256, 256)" in text
    assert "The files compute in float32; the training computed in bf16-mixed." in text
    assert "0123456789abcdef" not in text  # hashes of patients say nothing to readers
    assert text.count("\n\n\n") == 0


def test_the_lines_of_python_and_of_the_command_are_valid() -> None:
    text = card(address='hf://lab/a"b $(rm) `x`\n```')
    blocks = [block for block in blocks_of(body_of(text)) if block["type"] == "block_code"]
    assert [block["attrs"]["info"] for block in blocks] == ["python", "console"]
    python, console = (block["raw"] for block in blocks)
    compile(python, "card", "exec")
    assert r'load_model("hf://lab/a\"b $(rm) `x` ```")' in python
    assert "--model 'hf://lab/a\"b $(rm) `x` ```' --slides slides/" in console


def test_what_authors_must_write_is_marked() -> None:
    text = card()
    for words in ("the cohort (source", "who should use the model", "the licence of the weights"):
        assert f"*To be written by the authors: {words}" in text
    assert "license" not in yaml.safe_load(text.split("---\n")[1])
    text = card(license="Licence of the *Lab* 1.0")
    assert huggingface_hub.ModelCard(text).data.to_dict()["license_name"] == "Licence of the *Lab* 1.0"
    assert text.endswith("## Licence\n\nLicence of the \\*Lab\\* 1.0\n")


def test_a_model_that_was_not_tested_says_so() -> None:
    text = card(performance=None)
    assert "Not tested: the run has no predictions for test cases." in text
    assert "model-index" not in text


def test_a_checkpoint_chosen_on_test_cases_is_not_praised() -> None:
    text = card(settings={"data": {"init_args": {"select_on_test": True}}})
    assert "The checkpoint was chosen on these same cases, so the values are too good." in text
    assert "neither training" not in text


@pytest.mark.parametrize(
    ("target", "kind", "tag", "line"),
    [
        ("label", "features", None, 'predict("slide.h5").probabilities'),
        ("survival", "patches", None, 'predict("slide.svs").risk'),
        ("multi_label", "patches", "image-classification", 'predict("slide.svs").scores'),
    ],
)
def test_other_targets_and_inputs(target: str, kind: str, tag: str | None, line: str) -> None:
    taken = {"kind": "features", "num_features": 8} if kind == "features" else CONTRACT["input"]
    text = card(contract=CONTRACT | {"target": target, "input": taken, "time_edges": [12.0]}, onnx=["head.onnx"])
    data = huggingface_hub.ModelCard(text).data
    assert data.pipeline_tag == tag
    assert ("survival" in data.tags) == (target == "survival")
    assert line in text
    assert ("| Output | Class |" in text) == (target != "survival")
    assert ("float32 (1, N, 8)" in text) == (kind == "features")


def test_an_old_checkpoint_without_facts_has_a_card_too() -> None:
    text = card(
        contract={"target": None, "classes": [], "input": None, "seen": None, "threshold": None}, performance=None
    )
    assert headings(text) == ["brca", *SECTIONS]


NASTY = st.text("|`\\*_<>[]()#-+=1.) \n\r\u2028\u202e&;:!~$'\"{}%@?,ab---", min_size=1, max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(names=st.lists(NASTY, min_size=1, max_size=3), title=NASTY, licence=NASTY)
def test_no_text_of_users_breaks_the_card(names: list[str], title: str, licence: str) -> None:
    measure = CardMeasure(names[0], names[-1], 0.5, 0.4, 0.6)
    parts = {"encoder": names[0], "head": names[-1], "task": title}
    contract = CONTRACT | {"classes": names, "model": parts, "versions": {names[0]: title}}
    text = card(title, title, contract, license=licence, performance=Performance({names[0]: measure}, 3))
    assert headings(text)[1:] == SECTIONS
    found = tables(text)
    assert [row[1] for row in found[2][1:]] == [one_line(name) for name in names]
    assert found[4][1] == [one_line(names[0]), "0.500", "0.400 to 0.600", one_line(names[-1])]
    assert huggingface_hub.ModelCard(text).data.library_name == "e2e-abmilx"
