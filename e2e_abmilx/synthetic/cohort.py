"""A cohort: a label table, and the slides and lesion masks that belong to it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.progress import show_progress
from e2e_abmilx.synthetic.slide import check_slide, write_slide

#: With fewer slides a split could lack a class or an event.
MIN_SLIDES = 24

_VERSION = 3  # raised when the same settings give other pixels or labels


def plan_labels(slides: int, *, seed: int) -> pd.DataFrame:
    """Draw the label table of a cohort, one row per slide; :func:`write_cohort` describes its columns.

    Survival time is Weibull with shape 3, scale 100 months and log-hazard 22 × ``lesion_fraction``. Follow-up ends at
    random between 12 and 150 months, independently of the lesion.

    Raises:
        InputError: There are fewer than 24 slides.
    """
    if slides < MIN_SLIDES:
        raise InputError(
            f"slides is {slides}; it must be at least {MIN_SLIDES}, so that every split has both classes and events: ask"
            f" for {MIN_SLIDES}"
        )
    rng = np.random.default_rng(seed)
    grade = np.resize([0, 1, 0, 2], slides)[np.argsort(rng.random(slides))]
    smallest, largest = np.array([(0, 0), (0.08, 0.18), (0.25, 0.45)])[grade].T
    lesion_fraction = (smallest + (largest - smallest) * rng.random(slides)).round(4)
    survival = 100 * (-np.log(1 - rng.random(slides)) / np.exp(22 * lesion_fraction)) ** (1 / 3)
    follow_up = 12 + 138 * rng.random(slides)
    # Lesion and benign changes together are as large without a lesion, so that the area of normal tissue tells nothing.
    benign_fraction = (0.50 + 0.20 * rng.random(slides) - lesion_fraction).round(4)
    event = (survival <= follow_up).astype(int)

    # Cases are assigned in the order of grade and event, so that the splits are alike in both.
    split = np.empty(slides, object)
    by_outcome = np.lexsort((rng.random(slides), event, grade))
    split[by_outcome] = np.resize(["train", "test", "train", "val", "train", "test"], slides)
    return pd.DataFrame(
        {
            "case": [f"case-{i:03d}" for i in range(slides)],
            "slide": [f"slide-{i:03d}" for i in range(slides)],
            "lesion": (grade > 0).astype(int),
            "grade": grade,
            "time": np.minimum(survival, follow_up).round(2),
            "event": event,
            "split": split,
            "lesion_fraction": lesion_fraction,
            "benign_fraction": benign_fraction,
        }
    )


def write_cohort(
    folder: Path, *, slides: int = 48, side: int = 2048, mpp: float = 0.5, seed: int = 0, num_workers: int = 2
) -> Path:
    """Write slides, their true lesion masks and a label table; files that exist already are not drawn again.

    ``folder/slides/<slide>.tiff`` are the slides. ``folder/masks/<slide>.png`` are the masks: 255 on lesion, else 0,
    one pixel per 8 × 8 level-0 pixels. ``folder/labels.csv`` has one row per slide:

    - ``case``, ``slide``: identifiers; every case has one slide.
    - ``lesion``: 1 on half of the slides.
    - ``grade``: 0 no lesion, 1 a small one (8-18 % of the tissue), 2 a large one (25-45 %).
    - ``time`` in months, ``event`` (1 = happened): survival, shorter with a larger lesion; about 30 % are censored.
    - ``split``: 50 % ``train``, 17 % ``val``, 33 % ``test``, alike in grade and event.
    - ``lesion_fraction``: lesion area as a fraction of the tissue area.
    - ``benign_fraction``: area of benign changes, which resemble a lesion and which every slide has, likewise. Lesion and
      benign changes together are 50-70 % of the tissue, with or without a lesion.

    Args:
        folder: A new or empty folder, or one that an earlier call with the same settings has begun or filled.
        slides: Number of slides, at least 24.
        side: Pixels along the side of a slide, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.
        seed: Determines labels and slides.
        num_workers: Slides drawn at the same time; does not change the result.

    Returns:
        The path of ``labels.csv``.

    Raises:
        InputError: An argument is out of its range, or the folder holds something else.
    """
    check_slide(side, mpp, seed)
    if num_workers < 1:
        raise InputError(f"num_workers is {num_workers}; it must be at least 1: give the number of cores")
    labels = plan_labels(slides, seed=seed)
    seeds = np.random.SeedSequence(seed).generate_state(slides)  # the i-th depends only on seed and i
    _claim(folder, {"version": _VERSION, "slides": slides, "side": side, "mpp": mpp, "seed": seed})

    files = [(folder / f"slides/{name}.tiff", folder / f"masks/{name}.png") for name in labels["slide"]]
    missing = [index for index, (slide, mask) in enumerate(files) if not (slide.exists() and mask.exists())]

    def draw(index: int) -> None:
        slide, mask = files[index]
        areas = {name: float(labels[name][index]) for name in ("lesion_fraction", "benign_fraction")}
        truth = write_slide(slide, seed=int(seeds[index]), **areas, side=side, mpp=mpp)
        with atomic_write(mask) as unfinished:
            Image.fromarray(truth.lesion.astype(np.uint8) * 255).save(unfinished, "png")

    # Threads suffice: numpy, scipy and the JPEG encoder release the interpreter lock.
    with ThreadPoolExecutor(num_workers) as pool, show_progress("drawing", len(missing), "slides") as progress:
        for _ in pool.map(draw, missing):
            progress.advance()
    table = folder / "labels.csv"
    if not table.exists():
        with atomic_write(table) as unfinished:
            labels.to_csv(unfinished, index=False)
    return table


def _claim(folder: Path, settings: dict[str, float]) -> None:
    """Record the settings in a folder, or refuse the folder if it holds another cohort or anything else."""
    record = folder / "cohort.json"
    held = (
        [path for path in folder.iterdir() if not path.name.startswith(f".{record.name}.")] if folder.exists() else []
    )
    if record.exists():  # asked after the listing, so that a record that another process writes now is seen
        found = json.loads(record.read_text())
        if found != settings:
            raise InputError(
                f"{folder} holds a synthetic cohort with other settings, {found} instead of {settings}; name another"
                " folder, or delete this one"
            )
        return
    if held:
        raise InputError(
            f"{folder} is not empty and holds no synthetic cohort, which needs its own folder; name a new one"
        )
    with atomic_write(record) as unfinished:
        unfinished.write_text(json.dumps(settings))
