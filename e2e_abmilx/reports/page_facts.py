"""The facts about each run: how it was trained, on which machine, and with which versions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.records import fit_seconds, read_record
from e2e_abmilx.reports.tables import run_names
from e2e_abmilx.runs.read import Run, read_metrics


def fact_tables(runs: Sequence[Run]) -> list[Table]:
    """Return tables with one row per fact; a dash stands for what a run did not record."""
    names, records = run_names(runs), [read_record(run.folder) for run in runs]
    training = [dict(_training(run, record)) for run, record in zip(runs, records, strict=True)]
    versions = [
        {name: version for name, version in record["versions"].items() if version is not None} for record in records
    ]
    return [
        _tabulate("Training", names, training),
        _tabulate("Machine", names, [dict(_machine(record)) for record in records]),
        _tabulate("Versions", names, [one or {"e2e_abmilx": "–"} for one in versions]),
    ]


def _tabulate(caption: str, names: Sequence[str], facts: Sequence[Mapping[str, object]]) -> Table:
    """Return a table in which runs with the same facts share a column."""
    groups: dict[tuple[object, ...], list[str]] = {}
    titles = list(dict.fromkeys(title for one in facts for title in one))
    for name, one in zip(names, facts, strict=True):
        groups.setdefault(tuple(one.get(title, "–") for title in titles), []).append(name)
    rows = [[title, *values] for title, *values in zip(titles, *groups, strict=True)]
    return Table(caption, ["run", *map(", ".join, groups.values())], rows)


def _training(run: Run, record: dict[str, Any]) -> Iterator[tuple[str, object]]:
    fit, best, parameters = record["fit"], record["best"], record["parameters"]
    yield "seed", _known(run.settings.get("seed_everything"))
    yield "fold", _known(run.data.get("fold"))
    yield "precision", record.get("precision") or "–"
    yield "parameters of the encoder", _known(parameters.get("encoder"), ",.0f")
    yield "parameters of the head", _known(parameters.get("head"), ",.0f")
    metrics = read_metrics(run.folder)
    trained = metrics[metrics["train/loss_epoch"].notna()] if "train/loss_epoch" in metrics else metrics[:0]
    for name in ("epoch", "step"):
        yield f"{name}s", int(trained[name].max()) + 1 if len(trained) else "–"
    yield "best epoch, counted from 0", _known(best.get("epoch"), ",.0f")
    direction = {"min": "lowest ", "max": "highest "}.get(best.get("mode"), "")  # older runs did not record it
    chosen = f"{direction}{best.get('monitor')} {_known(best.get('value'), '.4g')}"
    yield "selected by", chosen if best.get("monitor") else "–"
    yield "threshold", _threshold(record["threshold"])
    yield "started (UTC)", f"{fit['started']:%Y-%m-%d %H:%M}" if fit.get("started") else "–"
    yield "duration of the fit", _duration(fit_seconds(record))
    yield "duration per epoch", _duration(fit.get("seconds_per_epoch"))
    yield "duration of the test", _duration(record["test"].get("seconds"))
    yield "times resumed", _known(fit.get("times_resumed"), ",.0f")


def _threshold(fitted: Mapping[str, Any]) -> str:
    if not fitted:
        return "–"
    how = f" ({fitted['rule']}, {fitted['cases']} {fitted['split']} cases)" if fitted.get("rule") else ""
    return f"{fitted['value']:.4g}{how}"


def _machine(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    hardware = record["hardware"]
    gpus = hardware.get("gpus", [])
    models = [f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus)]
    yield "GPUs", ", ".join(models) or ("none" if hardware.get("cpu") else "–")
    yield "CPU", hardware.get("cpu") or "–"
    yield "cores", _known(hardware.get("cores"), ",.0f")
    yield "memory, GiB", _known(hardware.get("memory_gib"), ",.0f")
    yield "processes", _known(hardware.get("processes"), ",.0f")


def _known(value: object, form: str = "") -> str:
    return "–" if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
