"""The documents that the page reads: ``run.json``, and ``case/<id>.json`` for each case.

Addresses in them are relative and hold only numbers, so that names of cases and slides need no quoting.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from e2e_abmilx.viewer.levels import TILE, num_levels
from e2e_abmilx.viewer.map_documents import map_document
from e2e_abmilx.viewer.predictions import facts_of, prediction_in_words, survival_of, truth_in_words
from e2e_abmilx.viewer.reviews import VERDICTS, Review, latest_verdicts
from e2e_abmilx.viewer.viewed_run import ViewedRun

Document = dict[str, Any]


def run_document(viewed: ViewedRun, *, read_only: bool = False, cases: Sequence[int] | None = None) -> Document:
    """Return the document of a run.

    Args:
        viewed: The run.
        read_only: Whether reviews cannot be saved.
        cases: Numbers of the cases; by default all.
    """
    run = viewed.runs[0]
    reviews, problems = viewed.reviews.read()
    notes = [note for one in viewed.runs for note in one.notes]
    for other in viewed.runs[1:]:
        if left_out := len(set(other.names) - set(run.names)):
            notes.append(f"Cases of {other.folder} that {run.folder} does not have: {left_out:,}, not listed here.")
    verdicts = latest_verdicts(reviews)
    listed = []
    for number in range(len(viewed.names)) if cases is None else cases:
        name = viewed.names[number]
        row = run.row(name)
        listed.append(
            {
                "id": number,
                "name": name,
                "label": truth_in_words(row, run.task),
                "prediction": prediction_in_words(row, run.task),
                "correctness": _known(row["correctness"]),
                "thumbnail": f"case/{number}/thumbnail.jpg",
                "verdict": verdicts.get(name),
                "has_map": any(one.has_map(name) for one in viewed.runs),
            }
        )
    return {
        "title": str(run.folder),
        "task": run.task,
        "read_only": read_only,
        "runs": [str(one.folder) for one in viewed.runs],
        "verdicts": list(VERDICTS),
        "note": " ".join(dict.fromkeys(notes + problems)) or None,
        "cases": listed,
    }


def case_document(viewed: ViewedRun, number: int) -> Document:
    """Return the document of a case."""
    case, run = viewed.case(number), viewed.runs[0]
    row = run.row(case.name)
    slides = [_slide_document(viewed, number, place) for place in range(len(case.slides))]
    facts = facts_of(row, run.task)
    for other in viewed.runs[1:]:
        words = prediction_in_words(other.row(case.name), other.task) if case.name in other.names else "none"
        facts.append([f"prediction of {other.folder}", words])
    counts = [len(one.maps[0].coords) for one in case.slides if one.maps[0]]
    facts += [["patches", f"{sum(counts):,}"]] if counts else []
    reviews = [review_document(review) for review in viewed.reviews.read()[0] if review.case == case.name]
    return {
        "id": number,
        "name": case.name,
        "facts": facts,
        "survival": survival_of(row),
        "note": " ".join(case.notes) or None,
        "reviews": reviews,
        "slides": slides,
    }


def review_document(review: Review) -> Document:
    """Return a review as the page shows it."""
    return {name: getattr(review, name) for name in ("verdict", "note", "time", "slide", "x_um", "y_um")}


def encode(document: Document) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def _slide_document(viewed: ViewedRun, case: int, slide: int) -> Document:
    source, maps = viewed.slide(case, slide)
    base, scores = f"case/{case}/slide/{slide}", viewed.case(case).scores
    size = source.picture.size
    picture = {
        "kind": "tiles", "tile_size": TILE, "levels": num_levels(size), "url": f"{base}/tile/{{level}}_{{x}}_{{y}}.jpg",
    }  # fmt: skip
    documents = [
        one and map_document(one, score, f"{base}/patch/{run}_{{scale}}_{{patch}}.jpg")
        for run, (one, score) in enumerate(zip(maps, scores, strict=True))
    ]
    return {
        "name": source.name,
        "note": viewed.note(case, slide),
        "width": size[0],
        "height": size[1],
        "mpp": source.mpp,
        "picture": picture,
        "maps": documents,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
