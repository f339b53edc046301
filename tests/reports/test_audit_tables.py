from pathlib import Path

import numpy as np
import pandas as pd

from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.evaluation.shortcuts import Association
from e2e_abmilx.reports.audit import Audit, Finding
from e2e_abmilx.reports.audit_questions import COLOURS, EMBEDDINGS, Question
from e2e_abmilx.reports.audit_tables import audit_table, audit_text, gaps, warnings, write_audit


def _finding(source: str, target: str, *, own: float = 0.95, flagged: bool = True) -> Finding:
    question = Question(source, target, 100, "auc", lambda: (_ for _ in ()).throw(NotImplementedError))
    found = Association(Estimate(0.931, 0.93, 0.02, 0.882, 0.968, 1000, 0), 0.001)
    return Finding(question, own, "auc", found, 0.5, 0.004, flagged)


BATCH = _finding("batch", "label")._replace(
    association=None, measure="", chance=np.nan, p_value=np.nan, flagged=False, reason="all 100 cases have the value x"
)
AUDIT = Audit(
    [
        _finding("site", "label"), _finding("TCGA site", "label"), _finding(COLOURS, "label"),
        _finding(EMBEDDINGS, "site", own=np.nan), _finding("scanner", "label", flagged=False), BATCH,
    ],
    ["not audited: nothing"],
)  # fmt: skip


def test_a_warning_says_what_is_found_and_what_to_do() -> None:
    site, tcga, colours, embeddings = warnings(AUDIT)
    assert site == (
        "site alone predicts the label: AUC 0.93 (0.88 to 0.97); the model's 0.95 may rest on it. Split by site"
        " (data.columns: {group: site}), or balance it."
    )
    assert "Split by TCGA site (data.by_site: true)" in tcga
    assert colours.startswith(
        "colour statistics alone predict the label: AUC 0.93 (0.88 to 0.97); the model's 0.95 may"
    )
    assert "within classes of the truth: AUC 0.93 (0.88 to 0.97), chance 0.5" in embeddings
    assert gaps(AUDIT) == [
        "whether batch predicts the label cannot be judged: all 100 cases have the value x", "not audited: nothing",
    ]  # fmt: skip


def test_the_table_and_the_text() -> None:
    rows = {(row[0], row[1]): row[2:] for row in audit_table(AUDIT).rows}
    assert rows["site", "label"] == [100, "AUC", "0.931 (0.882 to 0.968)", "0.500", "0.004", "0.950", "flagged"]
    assert rows["scanner", "label"][-1] == "not flagged"
    assert rows["batch", "label"] == [100, "–", "–", "–", "–", "0.950", "cannot be judged"]
    text = audit_text(AUDIT)
    assert text.startswith("Shortcuts\n! site alone")
    assert text.endswith("not audited: nothing")
    assert audit_text(Audit([], ["not audited: nothing"])) == "Shortcuts\nnot audited: nothing"


def test_the_numbers_are_written(tmp_path: Path) -> None:
    write_audit(AUDIT, tmp_path / "shortcuts.csv")
    table = pd.read_csv(tmp_path / "shortcuts.csv").set_index(["source", "target"])
    assert table.loc[("site", "label"), ["value", "low", "high", "model", "flagged"]].tolist() == [
        0.931, 0.882, 0.968, 0.95, 1,
    ]  # fmt: skip
    assert table.loc[("scanner", "label"), "flagged"] == 0
    assert table.loc[("batch", "label"), ["value", "flagged", "p_value"]].isna().all()
    assert table.loc[("batch", "label"), "reason"] == "all 100 cases have the value x"
