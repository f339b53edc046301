"""A report as text, CSV and JSON."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.reports.comparison import Comparison
from e2e_abmilx.reports.measures import Measure
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.summary import Spread, Summary
from e2e_abmilx.runs.read import Run


def common_folder(runs: Sequence[Run]) -> Path:
    """Return the folder that contains all of these runs; the folder of a single run itself."""
    return Path(os.path.commonpath([run.folder.resolve() for run in runs]))


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return the path of each run in their common folder; for a single run, the name of its folder."""
    folder = common_folder(runs)
    if len(runs) == 1:
        return [folder.name]
    return [os.path.relpath(run.folder.resolve(), folder) for run in runs]


def text(report: Report) -> str:
    """Return tables for a terminal, followed by the meaning of their columns."""
    parts = [_summary_table(summary, report.measures) for summary in report.summaries.values()]
    if report.comparison:
        parts.append(_comparison_table(report, report.comparison))
    definitions = (f"{measure.title}: {measure.definition}" for measure in report.measures.values())
    return "\n\n".join([*parts, "\n".join([*explanations(report), *definitions, *report.notes])])


def write_csv(report: Report, path: Path) -> None:
    """Write one row per number: ``set, row, measure, cases, value, std, low, high, p_value``.

    ``row`` is the folder of a run, ``mean`` (whose ``std`` is over runs), ``pooled`` or ``difference``; other standard
    deviations and the 95 % intervals are those of the bootstrap. Undefined numbers are empty.
    """
    columns = ["set", "row", "measure", "cases", "value", "std", "low", "high", "p_value"]
    table = pd.DataFrame(_rows(report), columns=columns, dtype=object)
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def write_json(report: Report, path: Path) -> None:
    """Write the whole report; undefined numbers are null."""
    content = {
        "measures": {name: {"title": one.title, "definition": one.definition} for name, one in report.measures.items()},
        "runs": _summary_content(report.summary),
        "against": _summary_content(report.against) if report.against else None,
        "comparison": plain(report.comparison),
        "notes": report.notes,
    }
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def decimals(value: float) -> str:
    """Return a number with three decimals, or a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def with_interval(value: Estimate) -> str:
    """Return a number with its 95 % interval, or a dash if it is undefined."""
    if math.isnan(value.point):
        return decimals(value.point)
    return f"{decimals(value.point)} ({decimals(value.low)} to {decimals(value.high)})"


def explanations(report: Report) -> Iterator[str]:
    """Explain means, pooled values and intervals."""
    n_resamples = next(iter(report.summary.per_run[0].values())).n_resamples
    if max(len(summary.runs) for summary in report.summaries.values()) > 1:
        yield "mean ± std: over runs, with n - 1"
        yield (
            "pooled: all test cases, each predicted by the run that tested it; AUC, C-index and correlations thus compare"
            " scores of different models"
        )
    yield f"95 %: percentiles of {n_resamples} bootstrap resamples of cases"
    if report.comparison:
        yield "p: two-sided, for no difference, by the paired bootstrap; not corrected for the number of measures"


def comparison_title(comparison: Comparison) -> str:
    """Return the title of a table of differences."""
    return (
        f"first − second, on {comparison.cases} shared cases ({comparison.only_first} only in the first,"
        f" {comparison.only_second} only in the second)"
    )


def _summary_table(summary: Summary, measures: Mapping[str, Measure]) -> str:
    names = run_names(summary.runs)
    sizes = [len(run.predictions) for run in summary.runs]
    rows = [["run", "cases", *(measure.title for measure in measures.values())]]

    def add(name: str, cases: str, numbers: Iterator[float]) -> None:
        rows.append([name, cases, *map(decimals, numbers)])

    for name, size, values in zip(names, sizes, summary.per_run, strict=True):
        add(name, str(size), (one.point for one in values.values()))
    if len(names) > 1:
        add("mean", "", (one.mean for one in summary.spread.values()))
        add("± std", "", (one.std for one in summary.spread.values()))
    if summary.pooled:
        pooled = summary.pooled.values()
        if len(names) > 1:
            add("pooled", str(sum(sizes)), (one.point for one in pooled))
        add("  95 % from", "", (one.low for one in pooled))
        add("  to", "", (one.high for one in pooled))
    return f"{common_folder(summary.runs)}\n{align(rows)}"


def _comparison_table(report: Report, comparison: Comparison) -> str:
    rows = [["", "first", "second", "difference", "95 % from", "to", "p"]]
    for name, (first, second, (difference, p_value)) in comparison.compared.items():
        numbers = [first, second, difference.point, difference.low, difference.high, p_value]
        rows.append([report.measures[name].title, *map(decimals, numbers)])
    return f"{comparison_title(comparison)}\n{align(rows)}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return columns two spaces apart, the first one aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for label, summary in zip(("runs", "against"), report.summaries.values(), strict=False):
        folders = [str(run.folder) for run in summary.runs]
        sizes = [len(run.predictions) for run in summary.runs]
        rows: list[tuple[str, int | None, Mapping[str, Estimate | Spread]]] = [
            *zip(folders, sizes, summary.per_run, strict=True),
            ("mean", None, summary.spread),
            ("pooled", sum(sizes), summary.pooled or {}),
        ]
        for row, cases, values in rows:
            for name, one in values.items():
                yield {"set": label, "row": row, "measure": name, "cases": cases, **_numbers(one)}
    if report.comparison:
        for name, (_, _, (change, p_value)) in report.comparison.compared.items():
            about = {"set": "runs - against", "row": "difference", "measure": name, "cases": report.comparison.cases}
            yield {**about, **_numbers(change), "p_value": p_value}


def _numbers(one: Estimate | Spread) -> dict[str, float]:
    return {**one._asdict(), "value": one.mean if isinstance(one, Spread) else one.point}


def _summary_content(summary: Summary) -> dict[str, Any]:
    return {
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.settings.get("seed_everything"),
                "fold": run.data.get("fold"),
                "cases": len(run.predictions),
                "measures": plain(values),
            }
            for run, values in zip(summary.runs, summary.per_run, strict=True)
        ],
        "spread": plain(summary.spread),
        "pooled": plain(summary.pooled),
    }


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return named tuples as dictionaries, and NaN as None, which JSON writes as null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
