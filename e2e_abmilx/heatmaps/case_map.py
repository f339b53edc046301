"""The attention of a case as one compact file, which a run stores and the viewer reads.

Attention and contributions are float16 on disk. Each row of them is divided by its largest absolute value and multiplied
by the largest float16 before it is rounded, so that neither a sharp peak overflows nor a small value vanishes: the relative error
is at most 2⁻¹¹ (0.05 %) for values of at least 10⁻⁹ of the largest, and smaller ones keep an absolute error below 10⁻¹² of it.

Letters: N patches of a slide, H heads.
"""

import hashlib
import io
import json
import math
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.attention import SlideAttention
from e2e_abmilx.io.atomic import atomic_write

#: Folder of the maps, next to ``predictions.csv``.
ATTENTION = "attention"
MAP_VERSION = 1

_LARGEST = 65504.0  # of float16
_SAME = 1e-5  # relative difference of scores that may come from rounding in a table
_NAME = 60  # characters of a case's name that its file's name starts with
_UNREADABLE = (  # what zipfile, json and numpy raise for files that are cut off, damaged or foreign
    OSError, EOFError, ValueError, KeyError, TypeError, IndexError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile
)  # fmt: skip


class MapError(InputError):
    """The map of a case is missing, damaged, foreign or inconsistent; the message names the remedy."""


@dataclass(frozen=True)
class SlideMap:
    """What a model looked at on one slide of a case.

    Attributes:
        slide: Name of the slide: that of its store, without ``.zarr``.
        store: Absolute path of the store when the map was written.
        size: Width and height of the slide, level-0 pixels.
        mpp: Level-0 µm/px.
        scales: µm/px of each scale, finest first.
        footprints: Side of the square that a patch of each scale covers, level-0 pixels.
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        scale: Number of the scale of each patch, shape ``(N,)``.
        heads: Weights times the number of patches of the case, shape ``(H, N)``: 1 is uniform attention.
        contribution: What each patch adds to the score of the case, shape ``(N,)``; None where that is unknown.
        rank: Rank of each patch among those of the case by mean attention, shape ``(N,)``: 1 is the highest.
        fingerprint: That of the slide's file, as its store has it; None where it is unknown.

    Raises:
        MapError: The arrays have different numbers of patches, or a patch has a scale that is not listed.
    """

    slide: str
    store: str
    size: tuple[int, int]
    mpp: float
    scales: tuple[float, ...]
    footprints: tuple[float, ...]
    coords: NDArray[np.int64]
    scale: NDArray[np.int64]
    heads: NDArray[np.float32]
    contribution: NDArray[np.float32] | None
    rank: NDArray[np.int64]
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        count = len(self.coords)
        flat: list[NDArray[Any]] = [self.scale, self.rank, *([] if self.contribution is None else [self.contribution])]
        consistent = self.coords.shape == (count, 2) and self.heads.ndim == 2 and self.heads.shape[1] == count
        if not consistent or any(array.shape != (count,) for array in flat):
            raise MapError(
                f"the map of {self.slide} has arrays of different numbers of patches; predict the case again"
            )
        listed = len(self.scales) == len(self.footprints)
        if not listed or (count and not 0 <= self.scale.min() <= self.scale.max() < len(self.scales)):
            raise MapError(
                f"the map of {self.slide} has patches of a scale that it does not list; predict the case again"
            )

    @classmethod
    def of(cls, attention: SlideAttention, rank: NDArray[np.int64]) -> Self:
        """Take the attention of a slide, and the rank of its patches among those of the case."""
        store, given = attention.store, attention.contribution
        return cls(
            slide=store.name,
            store=str(store.path.absolute()),
            size=attention.slide_size,
            mpp=attention.slide_mpp,
            scales=store.scales,
            footprints=tuple(map(attention.footprint, range(len(store.scales)))),
            coords=attention.coords,
            scale=attention.scale,
            heads=attention.heads,
            contribution=None if given is None else np.asarray(given.values, np.float32),
            rank=rank,
            fingerprint=store.attributes.get("fingerprint"),
        )

    def mean(self) -> NDArray[np.float32]:
        """Return the mean attention over the heads, shape ``(N,)``."""
        return np.asarray(self.heads.mean(axis=0))


@dataclass(frozen=True)
class CaseMap:
    """What a model looked at in one case.

    Attributes:
        case: Name of the case.
        score: The score that patches contribute to, such as ``"log-odds of tumour"``; None without contributions.
        slides: A map per slide.
        predicted: The scores of the case that were predicted with this attention, by their columns of
            ``predictions.csv``; empty where they are unknown.
    """

    case: str
    score: str | None
    slides: tuple[SlideMap, ...]
    predicted: Mapping[str, float] = field(default_factory=dict)


def case_file_name(case: str) -> str:
    """Return the name of a case's file: the start of the case's name in plain letters, and a digest of all of it.

    Any name of a case works on any file system, and names that differ only in signs, letter case or their end have
    different files.
    """
    digest = hashlib.blake2b(case.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{re.sub('[^A-Za-z0-9-]', '_', case[:_NAME])}-{digest}.npz"


def write_case_map(folder: Path, case_map: CaseMap) -> Path:
    """Write ``folder/attention/<file>.npz``, complete or not at all, in place of an earlier one; return its path."""
    header: dict[str, Any] = {"version": MAP_VERSION, "case": case_map.case, "score": case_map.score}
    header |= {"predicted": _as_numbers(case_map.predicted), "slides": []}
    arrays: dict[str, Any] = {}
    for number, one in enumerate(case_map.slides):
        facts = {name: value for name, value in vars(one).items() if not isinstance(value, np.ndarray)}
        header["slides"].append(facts)
        arrays |= {f"{name}_{number}": array for name, array in _encode(one).items()}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path = Path(folder, ATTENTION, case_file_name(case_map.case))
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def read_case_map(folder: Path, case: str, scores: Mapping[str, Any] | None = None) -> CaseMap:
    """Read the map of a case from ``folder/attention``.

    Args:
        folder: The folder with ``predictions.csv``: of a run, of a test, or of a prediction.
        case: Name of the case.
        scores: Its row of ``predictions.csv``, by column; a map that was stored with other scores is refused.

    Raises:
        MapError: There is none, it is damaged or of another release, or it is of another case or prediction.
    """
    path = Path(folder, ATTENTION, case_file_name(case))
    if not path.exists():
        raise MapError(f"no attention of case {case!r} is stored in {path.parent}; {_command(Path(folder))}")
    try:
        found = _read(path)
    except MapError:
        raise
    except _UNREADABLE as error:
        reason = f"{path} is damaged or is no map of this package ({type(error).__name__}: {error})"
        raise MapError(f"{reason}; {_command(Path(folder))}") from error
    if found.case != case:
        raise MapError(f"{path} is of case {found.case!r} and not of {case!r}; {_command(Path(folder))}")
    for name, value in found.predicted.items():
        shown = (scores or {}).get(name, value)
        if not math.isclose(shown, value, rel_tol=_SAME, abs_tol=1e-12):
            raise MapError(
                f"the attention in {path} is of another prediction than predictions.csv: {name} of case {case!r} is"
                f" {value:.6g} there and {shown:.6g} here; {_command(Path(folder))}"
            )
    return found


def _read(path: Path) -> CaseMap:
    """Read a map; each array is read wholly, so that its checksum is checked, before it is parsed."""
    with zipfile.ZipFile(path) as archive:
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
        }
    header = json.loads(arrays["header"].tobytes())
    if header["version"] != MAP_VERSION:
        raise MapError(
            f"{path} has version {header['version']} and this release reads {MAP_VERSION}; predict the case again, or"
            " install the release that wrote it"
        )
    slides = [_decode(facts, arrays, number) for number, facts in enumerate(header["slides"])]
    return CaseMap(header["case"], header["score"], tuple(slides), _as_numbers(header.get("predicted", {})))


def _encode(one: SlideMap) -> dict[str, NDArray[Any]]:
    """Return the arrays of a slide as they are stored: the smallest integers that fit, and scaled float16."""
    arrays = {name: _smallest(getattr(one, name)) for name in ("coords", "scale", "rank")}
    arrays["heads"], arrays["heads_peak"] = _to_half(one.heads)
    if one.contribution is not None:
        halves, arrays["contribution_peak"] = _to_half(one.contribution[None])
        arrays["contribution"] = halves[0]
    return arrays


def _decode(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], number: int) -> SlideMap:
    """Return a slide from its entry in the header and its arrays."""
    contribution = None
    if f"contribution_{number}" in arrays:
        halves = arrays[f"contribution_{number}"][None]
        contribution = _from_half(halves, arrays[f"contribution_peak_{number}"])[0]
    return SlideMap(
        slide=facts["slide"],
        store=facts["store"],
        size=(int(facts["size"][0]), int(facts["size"][1])),
        mpp=facts["mpp"],
        scales=tuple(facts["scales"]),
        footprints=tuple(facts["footprints"]),
        coords=arrays[f"coords_{number}"].astype(np.int64),
        scale=arrays[f"scale_{number}"].astype(np.int64),
        heads=_from_half(arrays[f"heads_{number}"], arrays[f"heads_peak_{number}"]),
        contribution=contribution,
        rank=arrays[f"rank_{number}"].astype(np.int64),
        fingerprint=facts.get("fingerprint"),
    )


def _as_numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in dict(scores).items()}


def _smallest(values: NDArray[np.int64]) -> NDArray[Any]:
    """Return whole numbers as int32 where they fit."""
    fits = not values.size or np.abs(values).max() < 2**31
    return values.astype(np.int32 if fits else np.int64)


def _to_half(rows: NDArray[np.floating]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Return rows ``(H, N)`` as float16 relative to the largest finite absolute value of each, and those, ``(H,)``."""
    single = rows.astype(np.float32)
    finite = np.where(np.isfinite(single), np.abs(single), 0)
    peak = finite.max(axis=1, initial=0).astype(np.float32)
    divisor = np.where(peak > 0, peak, 1).astype(np.float64)
    return (single * (_LARGEST / divisor[:, None])).astype(np.float16), peak


def _from_half(halves: NDArray[np.float16], peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what :func:`_to_half` was given, in float32."""
    return np.asarray(halves.astype(np.float64) * (peak.astype(np.float64)[:, None] / _LARGEST), np.float32)


def _command(folder: Path) -> str:
    """Return what writes the maps of a folder."""
    run = folder if (folder / "fit.yaml").exists() else folder.parent
    if not (run / "fit.yaml").exists():
        return "predict its cases again with this release, which stores their attention"
    config, checkpoint = (shlex.quote(str(run / name)) for name in ("fit.yaml", "best.ckpt"))
    command = f"`e2e-abmilx test --config {config} --ckpt_path {checkpoint}`"
    return f"{command} writes it into {run / 'test' / ATTENTION}, for `e2e-abmilx view --run {shlex.quote(str(run / 'test'))}`"
