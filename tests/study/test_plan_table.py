import json
from pathlib import Path

from plans import read_slides, write_features

from e2e_abmilx.study.plan import make_plan
from e2e_abmilx.study.plan_config import read_config
from e2e_abmilx.study.plan_table import show_plan


def test_a_row_per_fact(tmp_path: Path, cohort: Path, stores: Path) -> None:
    facts = make_plan(read_slides(tmp_path, cohort, stores, "--gpu_memory=8", "--model.gradient_checkpointing=true"))
    shown = show_plan(json.loads(json.dumps(facts)))
    gpu = facts["memory"]["gpu"]
    for text in (
        "8 cases, 8 slides; 0: 4, 1: 4",
        "24 slides stored",
        "6: 3 epochs of 2 (at most)",
        "unknown: use --probe",
        f"patches_per_bag {gpu['largest_patches_per_bag']:,}",
        "AUC of 1, test",
        "(4 positives, 4 negatives)",
        "warning: class 0 has 2 cases in the val split",
    ):
        assert text in shown
    assert max(map(len, shown.splitlines())) < 400


def test_facts_that_are_unknown_are_left_out(tmp_path: Path) -> None:
    facts = make_plan(read_config(write_features(tmp_path)))
    shown = show_plan(facts)
    assert "GPU" not in shown
    assert "None" not in shown
    assert "nan" not in shown
    assert "features" in shown
