"""The config of a study. Its defaults are the values of ``configs/classification.yaml`` and ``configs/survival.yaml``."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

from e2e_abmilx.cohort import TargetKind

_TASKS: dict[TargetKind, str] = {
    "label": "ClassificationTask",
    "multi_label": "MultiLabelTask",
    "survival": "SurvivalTask",
    "regression": "RegressionTask",
}
#: The metric by which the best checkpoint is chosen.
MONITORS: dict[TargetKind, str] = {
    "label": "val/auc",
    "multi_label": "val/auc",
    "survival": "val/c_index",
    "regression": "val/r2",
}
_OUTPUTS: dict[TargetKind, str] = {
    "label": "the number of classes",
    "multi_label": "one per class",
    "survival": "one hazard per time bin",
    "regression": "the value",
}
_PLAIN = re.compile(r"[^\W\d][\w-]*[./][\w./-]*")  # a path that YAML reads as text without quotes

#: Reasons for the values, as comments of the config.
REASONS: Mapping[str, str] = {
    "encoder": "ImageNet weights, downloaded once",
    "lr": "gentle, for trained weights",
    "columns": "where the table's names differ from the usual ones",
    "classes": "in this order; of two the second is the positive one",
    "fold": "tested on; crossval tests all; delete both lines if the table has splits",
    "folds": "a fifth tests, a fifth validates; whole patients",
    "skip_missing": "cases without slides are left out",
    "mpp": "µm/px: nuclei are seen at 0.5, glands at 1.0; most scanners go as fine",
    "patch_size": "pixels, of which crops of 224 are seen, the size that ImageNet's weights know",
    "bag": "drawn anew for each step, a quarter of them coarse",
    "batch": "cases a step, so 1024 patches; halve patches_per_bag if memory is short",
    "monitor": "on validation cases, never on test cases",
    "epochs": "200 cases give 1,200 steps; fewer than 100 cases need more epochs",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that differs between the configs of two studies.

    Attributes:
        title: First line of the config.
        usage: Commands, shown below it.
        target: Kind of target.
        outputs: K, classes or time bins.
        cache: Folder of the patches.
        slides: The slides.
        labels: The label table.
        run: Folder of the run.
        columns: Names of the table's columns, where they must be stated.
        classes: The classes in order; empty to take those of the table.
        fold: Fold to test on; None if the table has splits.
        folds: Number of folds.
        skip_missing: Whether cases without slides are left out.
        assume_mpp: µm per pixel of slides that state none.
        mpp: µm per pixel of the fine and the coarse scale.
        patch_size: Side of a patch, pixels.
        bag: Patches per bag.
        batch: Bags per batch.
        epochs: Number of epochs.
        monitor: Metric that chooses the checkpoint; by default the task's.
        weights: File of the encoder's first weights.
        pretrained: Whether the encoder starts from ImageNet weights.
        why: Reasons that differ from ``REASONS``.
    """

    title: str
    usage: tuple[str, ...]
    target: TargetKind
    outputs: int
    cache: str = "caches/mine"
    slides: str = "slides/"
    labels: str = "labels.csv"
    run: str = "runs/mine"
    columns: Mapping[str, str | None] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    fold: int | None = 0
    folds: int = 5
    skip_missing: bool = False
    assume_mpp: float | None = None
    mpp: tuple[float, float] = (0.5, 1.0)
    patch_size: int = 256
    bag: int = 256
    batch: int = 4
    epochs: int = 40
    monitor: str = ""
    weights: str = ""
    pretrained: bool = True
    why: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """Return the text of the config."""
        start = "" if self.pretrained else ", pretrained: false"
        if self.weights:
            start = f", weights: {text(self.weights)}"
        monitor = self.monitor or MONITORS[self.target]
        return render(
            "config.yaml.jinja",
            **asdict(self)
            | {
                "task": _TASKS[self.target],
                "start": start,
                "crop": self.patch_size * 7 // 8,
                "lr": "1.0e-4" if self.pretrained or self.weights else "3.0e-4",
                "monitor": monitor,
                "mode": "min" if monitor == "val/loss" else "max",
                "why": {**REASONS, "outputs": _OUTPUTS[self.target], **self.why},
            },
        )


def text(value: str) -> str:
    """Return text as YAML reads it back, in quotes where it may look like something else."""
    return value if _PLAIN.fullmatch(value) else _flow(value)


def render(template: str, **content: Any) -> str:  # noqa: ANN401
    """Return a text from a template of this room."""
    return _TEMPLATES.get_template(template).render(**content)


def _flow(value: object) -> str:
    """Return a value as YAML on one line, with all text in quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str):
        quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
        return quoted.removesuffix("\n")
    return json.dumps(value)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {"text": text, "flow": _flow}

#: The configs in ``configs/`` for any slides, by name.
GENERIC: Mapping[str, Recipe] = {
    "classification": Recipe(
        title="Classification of one's own slides, 20 to 2,000: ResNet-18 and ABMILX, trained end to end.",
        usage=(
            "e2e-abmilx fit --config configs/classification.yaml --data.labels labels.csv --data.slides slides/",
            "`e2e-abmilx init` writes this file with the values that suit a table and its slides.",
        ),
        target="label",
        outputs=2,
    ),
    "survival": Recipe(
        title="Survival from one's own slides, 20 to 2,000: ResNet-18 and ABMILX, trained end to end.",
        usage=(
            "e2e-abmilx fit --config configs/survival.yaml --data.labels labels.csv --data.slides slides/",
            "`e2e-abmilx init` writes this file with the values that suit a table and its slides.",
        ),
        target="survival",
        outputs=4,
    ),
}
