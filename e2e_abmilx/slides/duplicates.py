"""Slides that are copies of each other, recognised by a hash of their thumbnails.

A copy may be renamed, saved in another format or at another quality or resolution, turned or mirrored, or slightly
recoloured. Its hash differs in few bits; hashes of different slides differ in about half of them, and in a quarter where
many slides and all eight orientations are compared.
"""

import io
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from e2e_abmilx.errors import InputError

#: Largest fraction of bits in which the hashes of one slide differ.
SAME_SLIDE = 0.12

_SIDE = 16  # frequencies along each axis, one bit each
_DIGITS = _SIDE**2 // 4
_SMALL = 64  # pixels along the side of the tissue's picture
_LARGE = 512  # pixels along the longer side of the thumbnail that is hashed
_FAINT = 0.05  # darkness, as a fraction of the glass's light, up to which a pixel counts as glass
_SPREAD = 1.9  # half side of the tissue's box in standard deviations; a full rectangle has 1.73
_ROWS = 128  # slides compared at once, which limits the memory


def thumbnail_hash(thumbnail: NDArray[np.uint8]) -> str | None:
    """Return the hash of a slide as 64 hexadecimal digits; None if its thumbnail shows too little to tell it apart.

    The hash is that of the tissue: coloured pixels darker than the glass are cut out by a box around their centre, whose
    sides follow their standard deviation, because on a slide with little tissue its position alone would decide most
    bits. The box is averaged to 64 × 64 pixels, and the bits are the signs of the 16 × 16 lowest frequencies of its
    cosine transform. None is returned where JPEG compression alone changes many bits, so that noise decides them: a
    blank or grey thumbnail, or a tiny speck of tissue.

    Args:
        thumbnail: RGB pixels of the whole slide, shape ``(h, w, 3)``, ideally 512 pixels or more along its longer side.
    """
    picture = Image.fromarray(thumbnail)
    shrink = max(1.0, max(picture.size) / _LARGE)
    width, height = (max(1, round(side / shrink)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    with io.BytesIO() as file:
        picture.save(file, "jpeg", quality=90)
        copied = _hash_bits(Image.open(file))
    bits = _hash_bits(picture)
    if bits is None or copied is None or (bits != copied).mean() > SAME_SLIDE / 2:
        return None
    return np.packbits(bits).tobytes().hex()


def hash_distance(one: str, other: str) -> float:
    """Return the fraction of bits in which two hashes differ, in the orientation in which fewest do.

    Raises:
        InputError: A hash is not 64 hexadecimal digits.
    """
    return float(_nearest([one], [other])[0])


def find_same(hashes: Mapping[str, str], known: Collection[str]) -> dict[str, float]:
    """Return the slides that are among the known ones, each with its distance from the nearest of these.

    Args:
        hashes: Hash of each slide, by its name.
        known: Hashes of known slides.

    Raises:
        InputError: A hash is not 64 hexadecimal digits.
    """
    if not hashes or not known:
        return {}
    distances = _nearest(list(hashes.values()), list(known))
    return {name: float(found) for name, found in zip(hashes, distances, strict=True) if found <= SAME_SLIDE}


def _hash_bits(picture: Image.Image) -> NDArray[np.bool_] | None:
    """Return the signs of low frequencies, shape ``(16, 16)``; None if there is no tissue."""
    tissue = _absorption(picture)
    weight = np.minimum(tissue, 0.15)  # above that, a pixel is tissue and counts fully
    if not weight.any():
        return None
    sides = [_extent(weight.sum(axis)) for axis in (0, 1)]
    pad = max(0, *(int(np.ceil(max(-low, high - size))) for (low, high), size in zip(sides, picture.size, strict=True)))
    (left, right), (top, bottom) = [(low + pad, high + pad) for low, high in sides]
    padded = Image.fromarray(np.pad(tissue, pad))
    small = padded.resize((_SMALL, _SMALL), Image.Resampling.BOX, box=(left, top, right, bottom))
    bits: NDArray[np.bool_] = dctn(np.asarray(small, np.float64), norm="ortho")[:_SIDE, :_SIDE] > 0
    bits[0, 0] = False  # the mean, which is positive everywhere
    return bits


def _absorption(picture: Image.Image) -> NDArray[np.float32]:
    """Return how much darker than the glass each coloured pixel is, as a fraction of its light; 0 elsewhere.

    Grey things, such as frames, shadows and dust, look alike on many slides. Colour is averaged over 8 × 8 pixels,
    because JPEG files hold it coarsely.
    """
    width, height = (max(1, side // 8) for side in picture.size)
    blurred = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32)
    light = blurred.sum(axis=2)
    # a mean of many pixels changes little where a percentile would jump between tissue and glass
    glass = np.maximum(blurred[light >= np.quantile(light, 0.75)].mean(axis=0), 1)
    dark = np.maximum(1 - _FAINT - np.asarray(picture, np.float32) @ (1 / 3 / glass), 0)
    coloured = np.clip((np.ptp(blurred / glass, axis=2) - 0.02) / 0.06, 0, 1)
    coloured = np.asarray(Image.fromarray(coloured).resize(picture.size, Image.Resampling.BILINEAR))
    absorbed: NDArray[np.float32] = dark * coloured
    return absorbed


def _extent(weight: NDArray[np.float32]) -> tuple[float, float]:
    """Return where the weights along one axis begin and end, in pixels."""
    at = np.arange(len(weight)) + 0.5
    centre = np.average(at, weights=weight)
    reach = _SPREAD * np.sqrt(np.average((at - centre) ** 2, weights=weight) + 1 / 12)
    return float(centre - reach), float(centre + reach)


def _nearest(hashes: list[str], known: list[str]) -> NDArray[np.float32]:
    """Return the distance of each hash from the nearest of the known ones, over the eight orientations."""
    there = _unpack(known).reshape(len(known), -1).T
    rows = []
    for start in range(0, len(hashes), _ROWS):
        turned = _orientations(_unpack(hashes[start : start + _ROWS]))
        agreement = np.max([(each.reshape(len(each), -1) @ there).max(axis=1) for each in turned], axis=0)
        rows.append((1 - agreement / _SIDE**2) / 2)
    return np.concatenate(rows)


def _orientations(signs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the hashes of the turned and mirrored slides, each ``(n, 16, 16)``.

    Mirroring a picture changes the signs of its odd frequencies along that axis, and exchanging its axes transposes them.
    """
    odd = np.where(np.arange(_SIDE) % 2, np.float32(-1), np.float32(1))
    found = [signs, signs.transpose(0, 2, 1)]
    found += [each * odd for each in found]
    return found + [each * odd[:, None] for each in found]


def _unpack(hashes: list[str]) -> NDArray[np.float32]:
    """Return the bits of hashes as -1 and 1, shape ``(n, 16, 16)``."""
    for text in hashes:
        if len(text) != _DIGITS or not set(text) <= set("0123456789abcdef"):
            raise InputError(
                f"the hash of a thumbnail is {text!r}; it must be {_DIGITS} hexadecimal digits: compute it with"
                " thumbnail_hash"
            )
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    return 2 * np.unpackbits(packed, axis=1).astype(np.float32).reshape(-1, _SIDE, _SIDE) - 1
