"""What a card says, of complete and of incomplete records."""

import numpy as np
import pytest
import torch

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMIL
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
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, SurvivalTask

PATCHES = {"kind": "patches", "mpp": [0.5, 1.0], "patch_size": 256, "eval_scales": "finest", "overlap": 0.25}


@pytest.mark.parametrize(
    ("target", "edges", "words"),
    [
        ("label", [], "a probability for each class (they add up to 1)"),
        ("multi_label", [], "a probability for each label (each on its own)"),
        ("survival", [6.25, 12.0], "survival beyond 6.25 and 12 months"),
        ("survival", [], "a risk (higher for earlier events), and"),
        ("regression", [], "the value, in the unit of the training labels"),
        ("something else", [], "a score"),
        (None, [], "a score"),
    ],
)
def test_every_target_says_what_it_gives(target: str | None, edges: list[float], words: str) -> None:
    assert words in gives({"target": target, "time_edges": edges})


def test_evaluated_and_trained_scales_are_told_apart() -> None:
    facts = dict(input_facts(PATCHES, {"input_size": 224}))
    assert facts["µm per pixel"] == "0.5"
    assert facts["side of a patch"] == "256 px (128 µm)"
    assert facts["µm per pixel in training"] == "0.5 and 1"
    assert facts["overlap of neighbours"] == "0.25"
    assert facts["resized to"] == "224 px"
    facts = dict(input_facts(PATCHES | {"eval_scales": "all"}, {}))
    assert facts["µm per pixel"] == "0.5 and 1"
    assert facts["side of a patch"] == "256 px (128 µm and 256 µm)"
    assert "µm per pixel in training" not in facts


def test_what_is_not_recorded_is_said_or_left_out() -> None:
    assert dict(input_facts({"kind": "patches", "mpp": [None], "patch_size": 64}, {})) == {
        "µm per pixel": "not recorded", "side of a patch": "64 px",
    }  # fmt: skip
    assert dict(input_facts({}, {})) == {"µm per pixel": "not recorded"}
    features = {"kind": "features", "num_features": 1024, "encoder": None}
    assert dict(input_facts(features, {})) == {"features per patch": 1024, "encoder of the features": "not recorded"}
    assert dict(input_facts(features | {"mpp": 0.5}, {}))["µm per pixel of the patches"] == "0.5"
    assert list(training_facts({}, {}, {})) == []
    assert list(model_facts({})) == []
    assert threshold_rule(None, {}) == ""
    assert summary({}) == "A model: predicts a property of a case from whole-slide images."
    assert init_args({"data": None}, "data") == {}


def test_the_summary_names_the_networks() -> None:
    model = {"encoder": "ResNetEncoder(name=resnet18)", "head": "ABMILX(num_heads=8)"}
    contract = {"target": "survival", "model": model, "input": PATCHES}
    assert summary(contract) == "ResNetEncoder and ABMILX: predicts the risk of an event from whole-slide images."
    contract["input"] = {"kind": "features"}
    assert summary(contract).startswith("ABMILX: predicts the risk of an event from features of patches")
    assert takes(contract["input"]).startswith("One case: the features")


def test_the_threshold_says_what_reaches_it_and_where_it_was_fitted() -> None:
    threshold = {"value": 0.43219, "split": "val"}
    assert threshold_rule(threshold, {"target": "label", "classes": ["normal", "tumour"]}) == (
        "At or above the threshold 0.4322, a probability of tumour counts as positive. It was fitted on validation"
        " cases."
    )
    words = threshold_rule({**threshold, "cases": 16, "rule": "median"}, {"target": "survival", "classes": ["0"]})
    assert words.endswith("a risk counts as high risk. It was fitted on 16 validation cases (median).")


def test_training_is_told_without_paths_of_the_machine() -> None:
    settings = {
        "data": {
            "class_path": "x.SlideDataModule",
            "init_args": {"cache": "/home/me/cache", "fold": 0, "batch_size": 4},
        },
        "model": {
            "init_args": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4, "fused": None}}}
        },
    }
    record = {
        "seed": 0, "precision": "32-true", "fit": {"epochs": 12, "started": "2026-11-26T10:00:00"},
        "best": {"monitor": "val/auc", "value": 0.98765, "epoch": 4},
        "hardware": {"cpu": "AMD EPYC", "gpus": ["H100", "H100"]},
    }  # fmt: skip
    facts = {name: str(value) for name, value in training_facts({"seen": {"cases": 1064}}, record, settings)}
    assert facts == {
        "training and validation cases": "1,064", "fold": "0", "batch size": "4", "optimizer": "`AdamW(lr=0.0001)`",
        "epochs": "12", "checkpoint chosen by": "val/auc = 0.9877, epoch 4 (counted from 0)", "precision": "32-true",
        "seed": "0", "started": "2026-11-26", "hardware": "2 × H100",
    }  # fmt: skip


LOGITS = np.array([0.3, -1.2, 0.8])
SIGMOID = 1 / (1 + np.exp(-LOGITS))
SURVIVAL = np.cumprod(1 - SIGMOID)


@pytest.mark.parametrize(
    ("task", "words", "scores"),
    [
        (ClassificationTask, "softmax", np.exp(LOGITS) / np.exp(LOGITS).sum()),
        (MultiLabelTask, "sigmoid", SIGMOID),
        (SurvivalTask, "product of 1 - sigmoid(logit)", [*SURVIVAL[:2], -SURVIVAL.sum()]),
        (CoxTask, "The logit is the risk", LOGITS[:1]),
    ],
)
def test_scores_follow_from_logits_as_the_task_computes_them(
    task: type[BagTask], words: str, scores: list[float]
) -> None:
    made = task(Precomputed(2), ABMIL, num_outputs=len(scores) if task is CoxTask else 3)
    if isinstance(made, SurvivalTask) and not isinstance(made, CoxTask):
        made.time_edges = (6.0, 12.0)
    logits = torch.tensor(LOGITS[None, : len(scores)], dtype=torch.float32)
    np.testing.assert_allclose(made.bag_scores(logits)[0], scores, rtol=1e-5)
    assert words in from_logits({"model": {"task": task.__name__}})


def test_nothing_is_said_of_the_logits_of_other_tasks() -> None:
    assert from_logits({"model": {"task": "TheirTask"}}) == ""
