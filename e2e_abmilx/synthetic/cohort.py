"""A cohort: slides, masks and a label table that hold together."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.progress import show_progress
from e2e_abmilx.synthetic.drawing import check_slide
from e2e_abmilx.synthetic.pyramid import write_slide

#: With fewer slides a split may be left without a class or without an event.
MIN_SLIDES = 24

_VERSION = 1  # raised when the same settings give other pixels or labels


def plan_labels(slides: int, *, seed: int) -> pd.DataFrame:
    """Draw the label table of a cohort, one row a slide; see :func:`write_cohort` for its columns.

    Survival time is Weibull with shape 3, scale 100 months and log-hazard 20 × ``lesion_share``; follow-up ends at
    random between 12 and 150 months, whatever the lesion.

    Args:
        slides: Number of rows, at least 24.
        seed: Decides the table, together with ``slides``.

    Raises:
        InputError: There are too few slides.
    """
    if slides < MIN_SLIDES:
        raise InputError(
            f"slides is {slides} but must be {MIN_SLIDES} or more, so that every split has both classes and events; "
            f"ask for {MIN_SLIDES}"
        )
    rng = np.random.default_rng(seed)
    grade = np.resize([0, 1, 0, 2], slides)[np.argsort(rng.random(slides))]
    smallest, largest = np.array([(0, 0), (0.10, 0.22), (0.30, 0.50)])[grade].T
    lesion_share = (smallest + (largest - smallest) * rng.random(slides)).round(4)
    happens = 100 * (-np.log(1 - rng.random(slides)) / np.exp(20 * lesion_share)) ** (1 / 3)
    seen_until = 12 + 138 * rng.random(slides)
    event = (happens <= seen_until).astype(int)

    # Cases sorted by grade and event are dealt out like cards, so that the splits are alike in both.
    split = np.empty(slides, object)
    by_outcome = np.lexsort((rng.random(slides), event, grade))
    split[by_outcome] = np.resize(["train", "test", "train", "val", "train", "test"], slides)
    return pd.DataFrame(
        {
            "case": [f"case-{i:03d}" for i in range(slides)],
            "slide": [f"slide-{i:03d}" for i in range(slides)],
            "lesion": (grade > 0).astype(int),
            "grade": grade,
            "time": np.minimum(happens, seen_until).round(2),
            "event": event,
            "split": split,
            "lesion_share": lesion_share,
        }
    )


def write_cohort(
    folder: Path, *, slides: int = 48, side: int = 2048, mpp: float = 0.5, seed: int = 0, workers: int = 2
) -> Path:
    """Write slides, their true lesion masks and a label table; what a run before has finished is left alone.

    ``folder/slides/<slide>.tiff`` are the slides and ``folder/masks/<slide>.png`` the masks: 255 on lesion, else 0,
    one pixel for 8 × 8 level-0 pixels. ``folder/labels.csv`` has one row a slide:

    - ``case``, ``slide``: identifiers; every case has one slide.
    - ``lesion``: 1 on half of the slides.
    - ``grade``: 0 no lesion, 1 a small one (10-22 % of the tissue), 2 a large one (30-50 %).
    - ``time`` in months, ``event`` (1 = happened): survival, the shorter the larger the lesion; about 30 % of the
      cases are censored.
    - ``split``: 50 % ``train``, 17 % ``val``, 33 % ``test``, alike in grade and event.
    - ``lesion_share``: lesion area as a share of the tissue area.

    Args:
        folder: A new or empty folder, or one that this function filled or began to fill with the same settings.
        slides: Number of slides, at least 24.
        side: Pixels along the side of a slide, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.
        seed: Decides all that the other arguments leave open.
        workers: Slides drawn at a time; changes nothing in the result.

    Returns:
        The path of ``labels.csv``.

    Raises:
        InputError: An argument is out of its range, or the folder holds something else.
    """
    check_slide(side, mpp, seed)
    if workers < 1:
        raise InputError(f"workers is {workers} but must be 1 or more; give the number of cores")
    labels = plan_labels(slides, seed=seed)
    seeds = np.random.SeedSequence(seed).generate_state(slides)  # the i-th depends on seed and i only
    _claim(folder, {"version": _VERSION, "slides": slides, "side": side, "mpp": mpp, "seed": seed})

    def files(index: int) -> tuple[Path, Path]:
        name = labels["slide"][index]
        return folder / "slides" / f"{name}.tiff", folder / "masks" / f"{name}.png"

    def write(index: int) -> None:
        slide, mask = files(index)
        share = float(labels["lesion_share"][index])
        truth = write_slide(slide, seed=int(seeds[index]), lesion_share=share, side=side, mpp=mpp)
        with atomic_write(mask) as unfinished:
            unfinished.write_bytes(imagecodecs.png_encode(truth.lesion.astype(np.uint8) * 255))

    missing = [index for index in range(slides) if not all(file.exists() for file in files(index))]
    # Threads: nearly all the time is spent in numpy and the JPEG coder, which release the interpreter lock, while a
    # new process would first import the program that called us.
    with ThreadPoolExecutor(workers) as pool, show_progress("drawing", len(missing), "slides") as progress:
        for _ in pool.map(write, missing):
            progress.advance()
    table = folder / "labels.csv"
    if not table.exists():
        with atomic_write(table) as unfinished:
            labels.to_csv(unfinished, index=False)
    return table


def _claim(folder: Path, settings: dict[str, float]) -> None:
    """Record the settings in a folder, or refuse it when it holds another cohort or anything else."""
    record = folder / "cohort.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found != settings:
            raise InputError(
                f"{folder} holds a synthetic cohort of other settings, {found} instead of {settings}; "
                "name another folder, or delete this one"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} is not empty and holds no synthetic cohort, which needs a folder of its own; name a new one"
        )
    with atomic_write(record) as unfinished:
        unfinished.write_text(json.dumps(settings))
