"""Small H&E-like slides with known answers, for the demo and the tests.

A slide is painted from two maps, as a section is stained twice: how much eosin lies on a pixel (the pink ground of
fibres and clefts) and what share of the pixel is nucleus. A colour table, different on every slide, turns the pair
into RGB. In a lesion the nuclei are large, irregular and pale inside, with a nucleolus, as in a carcinoma. Lesion and
normal tissue get the same mean share of nucleus over the same ground, and the table is linear in that share, so
their mean colours are equal by construction: texture tells a lesion, colour does not.

The same arguments give the same pixels (before compression) and labels on every machine. Every draw comes from
``numpy.random.default_rng(seed)`` as uniform floats or integers, whose streams numpy keeps; arithmetic on pixels is in
integers; the few float64 results are rounded before they count.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from e2e_abmilx.errors import InputError

#: Level-0 pixels along the side of one pixel of the masks.
MASK_DOWNSAMPLE = 8

#: With fewer slides a split may be left without a class or without an event.
MIN_SLIDES = 24

_LEVELS = 4  # the last has the size of the masks
_TILE = 256  # pixels
_SHAPES = 64  # different nuclei of one kind on a slide
_VERSION = 1  # raised when the same settings give other pixels or labels


class Truth(NamedTuple):
    """Where tissue and lesion really are on a slide.

    Attributes:
        tissue: True on tissue, shape ``(side / 8, side / 8)``.
        lesion: True on lesion, same shape; always inside the tissue.
    """

    tissue: NDArray[np.bool_]
    lesion: NDArray[np.bool_]

    @property
    def lesion_share(self) -> float:
        """Lesion area as a share of the tissue area."""
        return float(self.lesion.sum() / self.tissue.sum())


class _Nuclei(NamedTuple):
    """What the nuclei of one kind of tissue look like.

    Attributes:
        diameter: Smallest and largest, in µm.
        elongation: Largest ratio of the two axes.
        waviness: Of the outline, as a share of the radius.
        interior: Darkness inside as a share of the rim's; low is a vesicular nucleus.
        nucleolus: Darkness of the nucleolus as a share of the rim's.
    """

    diameter: tuple[float, float]
    elongation: float
    waviness: float
    interior: float
    nucleolus: float


_NORMAL = _Nuclei(diameter=(6.0, 7.0), elongation=2.2, waviness=0.06, interior=0.85, nucleolus=0.0)
_LESION = _Nuclei(diameter=(10.0, 14.0), elongation=1.5, waviness=0.28, interior=0.42, nucleolus=1.0)


def draw_slide(
    *, seed: int, lesion_share: float, side: int = 2048, mpp: float = 0.5
) -> tuple[NDArray[np.uint8], Truth]:
    """Draw one slide: off-white glass, 1-3 pieces of tissue on 42-58 % of it, 1-3 lesions in that tissue.

    Args:
        seed: Decides all that the other arguments leave open: shapes, nuclei, stain, brightness.
        lesion_share: Lesion area as a share of the tissue area, in [0, 1).
        side: Pixels along the side, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.

    Returns:
        RGB pixels, shape ``(side, side, 3)``, and the truth about them.

    Raises:
        InputError: An argument is out of its range.
    """
    _check_slide(side, mpp, seed)
    if not 0 <= lesion_share < 1:
        raise InputError(
            f"lesion_share is {lesion_share} but must lie in [0, 1), being a share of the tissue; "
            "give 0 for a slide without lesion"
        )
    rng = np.random.default_rng(seed)
    truth, cover = _lay_out(rng, side // MASK_DOWNSAMPLE, lesion_share)
    eosin = _draw_ground(rng, side, mpp)
    nucleus = _draw_nuclei(rng, truth, mpp)
    return _stain(rng, eosin, nucleus, cover), truth


def write_slide(path: Path, *, seed: int, lesion_share: float, side: int = 2048, mpp: float = 0.5) -> Truth:
    """Draw one slide and write it as a tiled, JPEG-compressed TIFF of four levels, each half the one before.

    The resolution tags hold the µm/px. The file takes its name only when it is whole.

    Args:
        path: File to write; its folder is made where missing.
        seed: Decides all that the other arguments leave open.
        lesion_share: Lesion area as a share of the tissue area, in [0, 1).
        side: Pixels along the side, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.

    Returns:
        The truth about the slide.

    Raises:
        InputError: An argument is out of its range.
    """
    image, truth = draw_slide(seed=seed, lesion_share=lesion_share, side=side, mpp=mpp)
    with _finished_or_absent(path) as unfinished:
        _write_pyramid(unfinished, image, mpp)
    return truth


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
    _check_slide(side, mpp, seed)
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
        with _finished_or_absent(mask) as unfinished:
            unfinished.write_bytes(imagecodecs.png_encode(truth.lesion.astype(np.uint8) * 255))

    missing = [index for index in range(slides) if not all(file.exists() for file in files(index))]
    # Threads: nearly all the time is spent in numpy and the JPEG coder, which release the interpreter lock, while a
    # new process would first import the program that called us.
    with ThreadPoolExecutor(workers) as pool:
        written = pool.map(write, missing)
        for _ in tqdm(written, "drawing slides", len(missing), unit="slide", disable=not missing):
            pass
    table = folder / "labels.csv"
    if not table.exists():
        with _finished_or_absent(table) as unfinished:
            labels.to_csv(unfinished, index=False)
    return table


def _check_slide(side: int, mpp: float, seed: int) -> None:
    """Refuse what no slide can be drawn with."""
    if side < _TILE or side % _TILE:
        nearest = max(round(side / _TILE), 1) * _TILE
        raise InputError(
            f"side is {side} pixels but must be a multiple of {_TILE}, the tile of the file; try {nearest}"
        )
    if not 0.1 <= mpp <= 2:
        raise InputError(
            f"mpp is {mpp} µm per pixel but must lie in [0.1, 2], where a nucleus of 6 µm is 3 to 60 pixels wide; "
            "0.5 is a 20x scan"
        )
    if seed < 0:
        raise InputError(f"seed is {seed} but must not be negative; try {-seed}")


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
    with _finished_or_absent(record) as unfinished:
        unfinished.write_text(json.dumps(settings))


def _lay_out(rng: np.random.Generator, side: int, lesion_share: float) -> tuple[Truth, NDArray[np.uint8]]:
    """Place tissue and lesions on the masks' grid of ``side`` pixels.

    Returns:
        The masks, and how far tissue covers each level-0 pixel, 0-255, shape ``(8 side, 8 side)``.
    """
    pieces = int(rng.integers(1, 4))
    turn = 2 * np.pi * (rng.random() + np.arange(pieces) / pieces)
    off_centre = 0.04 if pieces == 1 else 0.28
    heights = _hills(rng, side, 0.5 + off_centre * np.stack([np.sin(turn), np.cos(turn)], axis=1))
    tissue = _highest(heights, round((0.42 + 0.16 * rng.random()) * side**2))

    spots = np.argwhere(tissue)[rng.integers(tissue.sum(), size=int(rng.integers(1, 4)))] / side
    inside = np.where(tissue, _hills(rng, side, spots), -np.inf)
    lesion = _highest(inside, round(lesion_share * tissue.sum()))

    steepness = 12_000  # the edge goes from 0 to 255 within about 10 level-0 pixels of a side of 2048
    cover = np.clip(steepness * (heights - heights[tissue].min()), -4000, 4000).astype(np.int16)
    for _ in range(MASK_DOWNSAMPLE.bit_length() - 1):
        cover = _double(cover)
    return Truth(tissue, lesion), np.clip(cover + 128, 0, 255).astype(np.uint8)


def _hills(rng: np.random.Generator, side: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """A surface, shape ``(side, side)``, with a ragged oval hill at each centre ``(row, column)`` in shares of it."""
    rows, columns = np.mgrid[:side, :side] / side
    hills = []
    for row, column in centres:
        turn, stretch = np.pi * rng.random(), 1 + 0.6 * rng.random()
        along = (columns - column) * np.cos(turn) + (rows - row) * np.sin(turn)
        across = (rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)
        hills.append(-np.hypot(along, across * stretch))
    ragged = _noise(rng, side, {32: 60, 16: 50, 8: 30, 4: 14, 2: 6}) / 800
    towards_edge = np.maximum(abs(rows - 0.5), abs(columns - 0.5))
    surface: NDArray[np.float64] = np.max(hills, axis=0) + ragged - 2 * np.maximum(towards_edge - 0.42, 0)
    return surface


def _highest(surface: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Where a surface has its ``count`` highest values."""
    if count == 0:
        return np.zeros(surface.shape, np.bool_)
    lowest = np.partition(surface, -count, axis=None)[-count]
    return np.asarray(surface >= lowest)


def _draw_ground(rng: np.random.Generator, side: int, mpp: float) -> NDArray[np.uint8]:
    """Eosin on each pixel, 0-255: wavy bundles of fibres, pale clefts, grain."""
    turn = 2 * np.pi * rng.random()
    step = (
        256 * mpp / 6.0 * np.array([np.sin(turn), np.cos(turn)])
    )  # a fibre, or 256 steps of phase, is 6 µm wide
    down, right = (
        np.rint(np.outer(step, np.arange(side))).astype(np.int64).astype(np.int16)
    )  # wraps, as phases may
    phase = _noise(rng, side, {256: 1600, 128: 500, 64: 300, 32: 150, 16: 60, 8: 20})
    phase += down[:, None]
    phase += right
    wave = np.rint(64 * np.sin(2 * np.pi * np.arange(256) / 256)).astype(np.int16)
    strength = np.clip(_noise(rng, side, {128: 16, 32: 16, 16: 8}) + 14, 0, 40)
    fibres = wave[phase & 255] * strength >> 6
    clefts = 2 * np.clip(_noise(rng, side, {64: 60, 32: 60, 16: 50, 8: 20, 4: 10}) - 62, 0, 50)
    grain = _noise(rng, side, {256: 14, 64: 12, 16: 10, 4: 12, 2: 10, 1: 6})
    eosin: NDArray[np.int16] = 132 + fibres - clefts + grain
    return np.clip(eosin, 0, 255).astype(np.uint8)


def _draw_nuclei(rng: np.random.Generator, truth: Truth, mpp: float) -> NDArray[np.uint8]:
    """Share of each level-0 pixel that is nucleus, 0-255, of one mean on normal tissue and on lesion."""
    side = MASK_DOWNSAMPLE * len(truth.tissue)
    mean_share = 0.14 + 0.04 * rng.random()
    margin = round(_LESION.diameter[1] / mpp)
    canvas = np.zeros((side + 2 * margin, side + 2 * margin), np.uint16)
    for kind, region in ((_NORMAL, truth.tissue & ~truth.lesion), (_LESION, truth.lesion)):
        shapes = _shape_nuclei(rng, kind, mpp)
        size = shapes.shape[1]
        spacing = float(np.sqrt(shapes.sum() / (255 * _SHAPES * mean_share)))
        centres = _scatter(rng, side, spacing)
        centres = centres[region[tuple(centres.T // MASK_DOWNSAMPLE)]]
        corners = (centres + margin - size // 2).tolist()
        for (top, left), shape in zip(
            corners, rng.integers(_SHAPES, size=len(corners)).tolist(), strict=True
        ):
            canvas[top : top + size, left : left + size] += shapes[shape]
    return np.minimum(canvas[margin:-margin, margin:-margin], 255).astype(np.uint8)


def _scatter(rng: np.random.Generator, side: int, spacing: float) -> NDArray[np.int64]:
    """Points ``(row, column)`` on a square, shape ``(n, 2)``: one in every ``spacing``² pixels, seldom too close."""
    n = int(side / spacing) + 2
    rows, columns = np.mgrid[:n, :n] + 0.7 * (rng.random((2, n, n)) - 0.5)
    columns[1::2] -= 0.5  # every other row is shifted, as in a honeycomb
    points = (spacing * np.stack([rows.ravel(), columns.ravel()], axis=1)).astype(np.int64)
    return points[((points >= 0) & (points < side)).all(axis=1)]


def _shape_nuclei(rng: np.random.Generator, kind: _Nuclei, mpp: float) -> NDArray[np.uint8]:
    """Draw 64 nuclei of a kind, shape ``(64, size, size)``: the share of each pixel that is nucleus, 0-255."""

    def draw(low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * rng.random((_SHAPES, 1, 1))

    radius = draw(*kind.diameter) / 2 / mpp
    size = 2 * round(0.75 * kind.diameter[1] / mpp) + 1
    rows, columns = np.mgrid[:size, :size] - size // 2
    turn, stretch = draw(0, np.pi), np.sqrt(draw(1, kind.elongation))
    along = (columns * np.cos(turn) + rows * np.sin(turn)) / stretch
    across = (rows * np.cos(turn) - columns * np.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    waves = sum(draw(0, 1) / lobes * np.cos(lobes * angle + draw(0, 2 * np.pi)) for lobes in (2, 3, 4, 5))
    depth = radius * (1 + kind.waviness * waves) - np.hypot(along, across)  # pixels below the outline

    rim = np.clip(1.3 - depth * mpp / 1.2, 0, 1)
    clumps = gaussian_filter(rng.random((_SHAPES, size, size)) - 0.5, sigma=(0, 0.5 / mpp, 0.5 / mpp))
    chromatin = kind.interior + (1 - kind.interior) * rim + 1.6 * clumps
    turn, off_centre = draw(0, 2 * np.pi), draw(0, 0.4) * radius
    away = np.hypot(columns - off_centre * np.cos(turn), rows - off_centre * np.sin(turn))
    nucleolus = kind.nucleolus * np.clip(draw(1.0, 1.6) / mpp - away + 0.5, 0, 1)
    darkness: NDArray[np.float64] = (
        draw(0.7, 1) * np.clip(depth + 0.5, 0, 1) * np.maximum(chromatin, nucleolus)
    )
    return np.rint(255 * np.clip(darkness, 0, 1)).astype(np.uint8)


def _stain(
    rng: np.random.Generator, eosin: NDArray[np.uint8], nucleus: NDArray[np.uint8], cover: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colour the maps, each ``(side, side)`` and 0-255, with a stain and a light of this slide's own."""

    def near(red: float, green: float, blue: float, spread: float) -> NDArray[np.float64]:
        return np.array([red, green, blue]) * (1 + spread * (2 * rng.random(3) - 1))

    light = near(240, 238, 241, spread=0.02)
    density = near(0.08, 0.38, 0.20, spread=0.2) * (0.85 + 0.3 * rng.random())  # of the most eosin, log10
    purple = near(105, 72, 140, spread=0.12)
    levels = np.arange(256) / 255
    pink = light * 10 ** -np.outer(levels, density)
    table = np.rint(pink + levels[:, None, None] * (purple - pink)).astype(np.uint8)  # (nucleus, eosin, RGB)

    wide = cover.astype(np.uint16)
    glass = 10  # a trace of eosin, so that bare glass is not one flat colour
    entry = (nucleus * wide // 255) << 8 | eosin * np.maximum(wide, glass) // 255
    image = np.empty((*entry.shape, 3), np.uint8)
    for channel in range(3):
        image[..., channel] = table[..., channel].ravel()[entry]
    return image


def _noise(rng: np.random.Generator, side: int, amplitudes: dict[int, int]) -> NDArray[np.int16]:
    """Sum of smooth random surfaces, shape ``(side, side)``.

    Args:
        rng: Source of the random numbers.
        side: Pixels along the side, a multiple of the widest cell.
        amplitudes: ``{cell width in pixels, a power of two: amplitude}``.
    """
    width = max(amplitudes)
    surface = np.zeros((side // width, side // width), np.int16)
    while True:
        amplitude = amplitudes.get(width, 0)
        surface += rng.integers(-amplitude, amplitude, size=surface.shape, dtype=np.int16, endpoint=True)
        if width == 1:
            return surface
        surface = _double(surface)
        width //= 2


def _double(surface: NDArray[np.int16]) -> NDArray[np.int16]:
    """Enlarge ``(n, n)`` to ``(2n, 2n)``: along each axis a new pixel is 3/4 its own old one and 1/4 the nearest."""
    n = len(surface)
    old = np.pad(surface, 1, mode="edge")
    wide = np.empty((n + 2, 2 * n), np.int16)
    own = 3 * old[:, 1:-1] + 2
    np.add(own, old[:, :-2], out=wide[:, 0::2])
    np.add(own, old[:, 2:], out=wide[:, 1::2])
    wide >>= 2
    both = np.empty((2 * n, 2 * n), np.int16)
    own = 3 * wide[1:-1] + 2
    np.add(own, wide[:-2], out=both[0::2])
    np.add(own, wide[2:], out=both[1::2])
    both >>= 2
    return both


def _write_pyramid(path: Path, image: NDArray[np.uint8], mpp: float) -> None:
    """Write an image as a tiled TIFF, its smaller levels as SubIFDs of the one page."""
    with tifffile.TiffWriter(path) as tiff:
        for level in range(_LEVELS):
            pixels_per_cm = 1e4 / (mpp * 2**level)
            tiff.write(
                image,
                photometric="rgb",
                tile=(_TILE, _TILE),
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subifds=_LEVELS - 1 if level == 0 else 0,
                subfiletype=0 if level == 0 else 1,
                metadata=None,
                software="e2e-abmilx",
                maxworkers=1,
            )
            image = _halve(image)


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 × 2 pixels of an image ``(H, W, 3)``."""
    pairs = image[0::2].astype(np.uint16) + image[1::2]
    return ((pairs[:, 0::2] + pairs[:, 1::2] + 2) >> 2).astype(np.uint8)


@contextmanager
def _finished_or_absent(path: Path) -> Iterator[Path]:
    """Lend a temporary path in the same folder, which becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
