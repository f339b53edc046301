"""The predictions of a run as rows of numbers, and as the words that a person reads."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.read import columns_named, in_words

_NUMBERS = ("time", "event", "risk", "value", "predicted_value", "threshold")
_CORRECTNESS = {
    "classification": "probability of the label", "multi_label": "mean probability of the truth",
    "survival": "fraction of its pairs in right order", "regression": "fraction of cases with no smaller error",
}  # fmt: skip
_PREFIXES = ("probability_", "survival_", "label_", "std_", "min_", "max_")


def read_rows(path: Path) -> pd.DataFrame:
    """Read ``predictions.csv`` of a test or a prediction, indexed by case; the truth may be unknown.

    Returns:
        The columns of the file, numbers as floats, NaN where a number is unknown.

    Raises:
        InputError: It is missing, no table of predictions, or has two rows of a case.
    """
    if not path.is_file():
        folds = sorted(fold.parent for fold in path.parent.glob("fold-*/predictions.csv"))
        cure = "name the folder of a run whose test is finished, or one of `predict`"
        if folds:
            cure = f"{path.parent} is a cross-validation; name one of its {len(folds)} folds, such as {folds[0]}"
        raise InputError(f"{path} is missing; {cure}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); test or predict again") from error
    scores = columns_named("probability_", table) + [name for name in ("risk", "predicted_value") if name in table]
    if "case" not in table or not scores:
        raise InputError(
            f"{path} has the columns {', '.join(map(str, table))}; the viewer needs case, and probability_<class>, risk or"
            " predicted_value"
        )
    if table.empty:
        raise InputError(f"{path} has no case; test or predict again")
    if table["case"].duplicated().any():
        case = table["case"][table["case"].duplicated()].iloc[0]
        raise InputError(f"{path} has two rows of case {case!r}; a case is predicted once, so predict again")
    numbers = [name for name in map(str, table) if name in _NUMBERS or name.startswith(_PREFIXES)]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    if table[scores].isna().any(axis=None):
        case = table["case"][table[scores].isna().any(axis=1)].iloc[0]
        raise InputError(f"{path} has text where case {case!r} needs a number; test or predict again")
    return table.set_index("case")


def task_of(rows: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Return ``"classification"``, ``"multi_label"``, ``"survival"`` or ``"regression"``."""
    if "predicted_value" in rows:
        return "regression"
    if "risk" in rows:
        return "survival"
    target = ((settings.get("data") or {}).get("init_args") or {}).get("target")
    probabilities = rows[columns_named("probability_", rows)].to_numpy(float)
    one_class = bool(np.allclose(probabilities.sum(axis=1), 1, atol=1e-3))  # those of one label add up to 1
    several = bool(columns_named("label_", rows)) or target == "multi_label" or not one_class
    return "multi_label" if several else "classification"


def truth_in_words(row: Mapping[str, Any], task: str) -> str:
    """Return the truth of a case, such as ``"tumour"`` or ``"event at 30.1 months"``; empty where it is unknown."""
    if task == "survival":
        if not _known(row, "time", "event"):
            return ""
        return f"{'event' if row['event'] == 1 else 'censored'} at {row['time']:.4g} months"
    if task == "regression":
        return f"{row['value']:.4g}" if _known(row, "value") else ""
    if task == "multi_label":
        labels = {name.removeprefix("label_"): value for name, value in row.items() if name.startswith("label_")}
        known = any(not math.isnan(value) for value in labels.values())
        return in_words(list(labels), labels.values()) if known else ""
    return str(row.get("label") or "")


def prediction_in_words(row: Mapping[str, Any], task: str) -> str:
    """Return the prediction of a case, such as ``"normal 0.93"`` or ``"risk 1.52"``."""
    if task == "survival":
        return f"risk {row['risk']:.3g}"
    if task == "regression":
        return f"{row['predicted_value']:.4g}"
    probability = _named("probability_", row)
    if task == "multi_label":
        return in_words(list(probability), [value >= 0.5 for value in probability.values()])
    best = max(probability, key=lambda name: probability[name])
    return f"{best} {probability[best]:.2f}"


def facts_of(row: Mapping[str, Any], task: str) -> list[list[str]]:
    """Return what is known and predicted of a case, as titles and values in the order to be shown."""
    facts = []
    if truth := truth_in_words(row, task):
        facts.append(
            [{"survival": "outcome", "regression": "value", "multi_label": "labels"}.get(task, "label"), truth]
        )
    for name, title in (("risk", "risk"), ("predicted_value", "predicted value")):
        if name in row:
            facts.append([title, _with_std(row, name, ".4g")])
    facts += [
        [f"probability of {name}", _with_std(row, f"probability_{name}", ".3f")] for name in _named("probability_", row)
    ]
    if str(row.get("predicted") or "") and task == "classification":
        facts.append(["predicted", str(row["predicted"])])
    if _known(row, "threshold"):
        classes = list(_named("probability_", row))
        of = f" of {classes[1]}" if len(classes) == 2 else ""  # it applies to the second of two classes
        score = row[f"probability_{classes[1]}"] if of else row.get("risk")
        reached = "" if score is None else ", reached" if score >= row["threshold"] else ", not reached"
        facts.append([f"threshold{of or ' of the risk' * ('risk' in row)}", f"{row['threshold']:.3g}{reached}"])
    if _known(row, "correctness"):
        facts.append([_CORRECTNESS[task], f"{row['correctness']:.3f}"])
    return facts


def survival_of(row: Mapping[str, Any]) -> dict[str, object] | None:
    """Return the predicted curve of a discrete-time survival model and the outcome; None without a curve."""
    curve = {float(months): value for months, value in _named("survival_", row).items() if _is_number(months, value)}
    if not curve:
        return None
    return {
        "months": list(curve),
        "probability": list(curve.values()),
        "time": row["time"] if _known(row, "time") else None,
        "event": int(row["event"]) if _known(row, "event") else None,
    }


def _named(prefix: str, row: Mapping[str, Any]) -> dict[str, float]:
    return {str(name).removeprefix(prefix): value for name, value in row.items() if str(name).startswith(prefix)}


def _known(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), float) and math.isfinite(row[name]) for name in names)


def _with_std(row: Mapping[str, Any], name: str, digits: str) -> str:
    spread = f" ± {row[f'std_{name}']:.2g} (std of the models)" if _known(row, f"std_{name}") else ""
    return f"{row[name]:{digits}}{spread}"


def _is_number(text: str, value: float) -> bool:
    try:
        return math.isfinite(float(text)) and math.isfinite(value)
    except ValueError:
        return False
