"""A plan as a table for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any


def show_plan(facts: Mapping[str, Any]) -> str:
    """Return a plan as lines of text: one row per fact, then the warnings."""
    lines = []
    for title, rows in (
        ("cohort", _cohort(facts["cohort"])),
        ("cache", _cache(facts["cache"])),
        ("training", _training(facts["training"], facts["time"])),
        ("memory", _memory(facts["memory"])),
        ("loaders and disk", _room(facts["room"], facts["time"])),
        ("power", _power(facts["power"])),
    ):
        lines += [f"{title if number == 0 else '':18}{name:24}{text}" for number, (name, text) in enumerate(rows)]
    return "\n".join([*lines, *(f"warning: {line}" for line in facts["warnings"])])


Rows = Iterator[tuple[str, str]]


def _cohort(cohort: Mapping[str, Any]) -> Rows:
    for split, counts in cohort["splits"].items():
        text = f"{counts['cases']} cases, {counts['slides']} slides"
        if "events" in counts:
            text += f", {counts['events']} events"
        if "classes" in counts:
            text += "; " + ", ".join(f"{name}: {count}" for name, count in counts["classes"].items())
        if "smallest" in counts:
            text += f"; {counts['smallest']:g} to {counts['largest']:g}"
        yield split, text
    if cohort["cases_without_slides"]:
        yield "cases without slides", str(cohort["cases_without_slides"])


def _cache(cache: Mapping[str, Any]) -> Rows:
    about = "about " if cache["to_cache"] else ""
    counts = " + ".join(f"{count:,}" for count in cache["patches_by_scale"])
    of_the_cohort = f"{about}{counts} of the cohort, finest scale first" if counts else "unknown"
    yield ("patches" if cache["patch_side"] else "features"), of_the_cohort
    yield "size", f"{about}{_gb(cache['gigabytes'])}, {cache['stored']} slides stored"
    if cache["to_cache"]:
        yield (
            "to cache first",
            (
                f"{cache['to_cache']} slides, about {_gb(cache['new_gigabytes'])} and {_hours(cache['hours'])},"
                f" from {cache['sampled']} of them"
            ),
        )


def _training(steps: Mapping[str, Any], time: Mapping[str, Any]) -> Rows:
    yield "steps", f"{steps['steps']:,}: {steps['epochs']} epochs of {steps['steps_per_epoch']:,} (at most)"
    yield "patch passes", f"{steps['patch_passes']:,}, {steps['bag_patches']:.0f} patches in an average bag"
    evaluated = f"{steps['validations']} × {steps['val_patches']:,} patches, test {steps['test_patches']:,}"
    yield "validations", evaluated
    if time["hours"] is None:
        yield "hours", "unknown: use --probe, which runs a few steps on this machine"
        return
    rate = f", evaluates {time['eval_rate']:.0f} patches/s" if time["eval_rate"] else ""
    source = "" if time["real"] else "; on random patches, without reading"
    yield "hours", f"{_hours(time['hours'])} on this machine: {time['step_s']:.3g} s a batch{rate}{source}"


def _memory(memory: Mapping[str, Any]) -> Rows:
    fixed = ", ".join(f"{name} {_gb(memory[name])}" for name in ("weights", "gradients", "optimizer"))
    yield "held", fixed + (f", average {_gb(memory['average'])}" if memory["average"] else "")
    per_chunk = f", of a chunk {memory['per_chunk_patch'] * 1e3:.3g} MB" if memory["per_chunk_patch"] else ""
    yield "a patch", f"{memory['per_patch'] * 1e3:.3g} MB{per_chunk}, {memory['precision']}"
    yield "peak", f"{_gb(memory['peak'])} in training, {_gb(memory['peak_evaluation'])} in evaluation"
    if gpu := memory.get("gpu"):
        yield (
            f"GPU of {gpu['gigabytes']:g} GB",
            (
                f"needs {_gb(gpu['peak'])} of {_gb(gpu['for_tensors'])} (0.6 GB for CUDA and {gpu['margin']:.0%} kept free)"
            ),
        )
        yield (
            "largest that fits",
            (
                f"patches_per_bag {gpu['largest_patches_per_bag']:,}, or batch_size {gpu['largest_batch_size']}, or"
                f" train_chunk_size {gpu['largest_chunk']:,}"
                + ("" if memory["gradient_checkpointing"] else " (chunks save memory with gradient_checkpointing only)")
            ),
        )


def _room(room: Mapping[str, Any], time: Mapping[str, Any]) -> Rows:
    text = f"{room['workers']}, each with {room['prefetched']} batches"
    if room["workers_needed"] is not None:
        text += (
            f"; the model takes {time['model_rate']:.0f} patches/s and a worker reads {time['decode_rate']:.0f}:"
            f" {room['workers_needed']} needed"
        )
    yield "workers", text
    if room["shared_memory"] is not None:
        yield "/dev/shm", f"{_of(room['shared_memory'], room['shared_memory_free'])}"
    yield "disk, cache", _of(room["cache_disk"], room["cache_disk_free"])
    yield "disk, checkpoints", _of(room["run_disk"], room["run_disk_free"])


def _power(rows: list[dict[str, Any]]) -> Rows:
    if not rows:
        yield "", "no test case"
    for row in rows:
        counts = ", ".join(f"{number} {name}" for name, number in row["counts"].items())
        name = f"{row['measure']}, {row['cases']}"
        if row["half_width"] is None:
            yield name, f"undefined ({counts})"
            continue
        found = "none" if row["difference"] is None else f"{row['difference']:.3f}"
        yield name, (f"{row['assumed']:g} ± {row['half_width']:.3f}; smallest difference {found} ({counts})")
    yield (
        "assumed",
        "80 % power, two-sided α 0.05, paired models whose estimates correlate by 0.5; ± is a 95 % interval",
    )


def _of(needed: float, free: float) -> str:
    return f"{_gb(needed / 1e9)} of {_gb(free / 1e9)} free"


def _gb(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.1f} MB"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
