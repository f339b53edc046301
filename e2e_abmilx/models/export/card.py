"""The model card of an exported model: Markdown with YAML in front, as the Hugging Face hub reads it."""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from e2e_abmilx.models.export.card_facts import (
    from_logits,
    gives,
    init_args,
    input_facts,
    model_facts,
    summary,
    takes,
    threshold_rule,
    training_facts,
)
from e2e_abmilx.models.export.markdown import Markdown, code, escape, one_line
from e2e_abmilx.reports.tables import decimals

_ONNX_FILES = {
    "head.onnx": "features of the patches, float32 (1, N, {width}) → logits (1, {outputs}), attention (1, heads, N)",
    "encoder_head.onnx": "RGB patches, uint8 (N, 3, {side}, {side}) → logits (1, {outputs}), attention (1, heads, N)",
}


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    finalize=escape,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_SELECTED_ON_TEST = ". The checkpoint was chosen on these same cases, so the values are too good"


class CardMeasure(NamedTuple):
    """A measure of the internal test.

    Attributes:
        title: Its name for people, such as AUC.
        definition: What it measures.
        point: Its value; NaN where undefined.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    title: str
    definition: str
    point: float
    low: float
    high: float


class Performance(NamedTuple):
    """The internal test.

    Attributes:
        measures: The measures, by their names in ``metrics.csv``.
        cases: Number of tested cases.
    """

    measures: Mapping[str, CardMeasure]
    cases: int


def model_card(
    title: str,
    address: str,
    contract: Mapping[str, Any],
    *,
    record: Mapping[str, Any],
    settings: Mapping[str, Any],
    performance: Performance | None,
    onnx: Sequence[str] = (),
    license: str | None = None,
) -> str:
    """Return the README.md of an exported folder.

    What is missing in the contract, record or settings is left out of the card. What only the authors know is marked
    "To be written by the authors". Text from users is escaped.

    Args:
        title: Name of the model.
        address: What ``load_model`` is called with: the folder, or ``hf://ORG/NAME``.
        contract: The input contract, as in ``contract.json``.
        record: Content of the run's ``run.yaml``; empty if there is none.
        settings: Content of the run's ``fit.yaml``; empty if there is none.
        performance: The internal test; None if the run was not tested.
        onnx: Names of the ONNX files in the folder.
        license: Identifier of the weights' licence, such as ``cc-by-nc-4.0``, or its name; None if not decided.
    """
    taken, target = contract.get("input") or {}, contract.get("target")
    address, precision = one_line(address), str(contract.get("precision") or "32")
    selected_on_test = init_args(settings, "data").get("select_on_test")
    shapes = {"width": taken.get("num_features", "D"), "side": taken.get("patch_size", "S")}
    shapes["outputs"] = len(contract.get("classes") or ()) or (1 if target == "regression" else "K")
    return _TEMPLATES.get_template("card.md").render(
        front_matter=Markdown(_front_matter(title, contract, performance, onnx, license)),
        title=title,
        summary=summary(contract),
        model=list(model_facts(contract)),
        takes=takes(taken),
        input=list(input_facts(taken, contract.get("model") or {})),
        gives=gives(contract),
        classes=[] if target == "survival" else contract.get("classes") or [],
        threshold=threshold_rule(contract.get("threshold"), contract),
        training=list(training_facts(contract, record, settings)),
        performance=performance,
        selection=_SELECTED_ON_TEST
        if selected_on_test
        else ", which neither training nor the choice of the checkpoint used",
        decimals=decimals,
        interval=_interval,
        python_address=Markdown(json.dumps(address, ensure_ascii=False)),
        shell_address=Markdown(shlex.quote(address)),
        example=Markdown('"slide.h5"' if taken.get("kind") == "features" else '"slide.svs"'),
        option=Markdown("--features features/" if taken.get("kind") == "features" else "--slides slides/"),
        attribute=Markdown({"label": "probabilities", "survival": "risk"}.get(str(target), "scores")),
        onnx=[(code(name), _ONNX_FILES[name].format(**shapes)) for name in onnx],
        from_logits=from_logits(contract),
        other_precision="" if precision.startswith("32") else f"; the training computed in {precision}",
        licence=license,
    )


def _interval(measure: CardMeasure) -> str:
    return "–" if math.isnan(measure.low) else f"{decimals(measure.low)} to {decimals(measure.high)}"


def _front_matter(
    title: str, contract: Mapping[str, Any], performance: Performance | None, onnx: Sequence[str], license: str | None
) -> str:
    """Return the YAML that the hub reads, without its fences."""
    taken, target = contract.get("input") or {}, contract.get("target")
    content: dict[str, Any] = {}
    if license and re.fullmatch(r"[A-Za-z0-9.-]+", license):
        content["license"] = license.lower()  # the hub's identifiers
    elif license:
        content |= {"license": "other", "license_name": one_line(license)}
    content["library_name"] = "e2e-abmilx"
    if target in ("label", "multi_label") and taken.get("kind") == "patches":
        content["pipeline_tag"] = "image-classification"
    tags = ["computational-pathology", "whole-slide-image", "multiple-instance-learning"]
    content["tags"] = [*tags, *(["survival"] if target == "survival" else []), *(["onnx"] if onnx else [])]
    metrics = [
        {"type": name, "name": one_line(measure.title), "value": round(float(measure.point), 4)}
        for name, measure in (performance.measures.items() if performance else ())
        if math.isfinite(measure.point)
    ]
    if metrics:
        task = {"type": content.get("pipeline_tag", "other")}
        dataset = {"type": "other", "name": "test cases of the training cohort"}
        result = {"task": task, "dataset": dataset, "metrics": metrics}
        content["model-index"] = [{"name": one_line(title), "results": [result]}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")
