"""Size, PSNR and decoding time of JPEG qualities and chroma subsamplings on real slides: the reason for the defaults.

Run ``python benchmarks/store_quality.py [--slides FOLDER]``. Patches are not aligned with the slide's own JPEG blocks,
and are taken as read and reduced twofold, so that the slide's own compression favours no setting. Decoding is measured
in CPU time.

Result: 90 is the lowest quality that keeps every patch of every slide above 30 dB, with 4:2:0 if the slide's own JPEG
has subsampled its colour already (gastrectomy, no_mpp), with 4:4:4 if it has not (CMU-1).
"""

import argparse
import time
from pathlib import Path

import imagecodecs
import numpy as np
import tiffslide
from skimage.transform import downscale_local_mean

P = 256
N = 60
SETTINGS = [(chroma, quality) for chroma in ("420", "422", "444") for quality in (75, 80, 85, 90, 95)]


def tissue_patches(path: Path, reduction: int) -> list[np.ndarray]:
    """Cut N random tissue patches from a slide, reduced by area averaging."""
    rng = np.random.default_rng(0)
    patches: list[np.ndarray] = []
    side = P * reduction
    with tiffslide.TiffSlide(path) as slide:
        width, height = slide.dimensions
        while len(patches) < N:
            corner = int(rng.integers(width - side)) | 1, int(rng.integers(height - side)) | 1
            region = np.asarray(slide.read_region(corner, 0, (side, side), as_array=True))[..., :3]
            if np.ptp(region, axis=2).mean() > 15:  # coloured, so tissue
                reduced = downscale_local_mean(region, (reduction, reduction, 1))
                patches.append(np.rint(reduced).astype(np.uint8))
    return patches


def psnr(stored: np.ndarray, patch: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio over the three channels, dB."""
    error = np.mean((stored.astype(np.float64) - patch) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def main() -> None:
    """Print one table per slide and reduction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "slides")
    folder = parser.parse_args().slides
    for name in ("CMU-1-Small-Region.svs", "gastrectomy.svs", "no_mpp.tiff"):
        for reduction in (1, 2):
            patches = tissue_patches(folder / name, reduction)
            print(f"\n{name}, {'as read' if reduction == 1 else 'reduced twofold'}, {N} patches of {P}²")
            print(f"{'chroma':>6}{'quality':>9}{'kB':>7}{'PSNR mean':>11}{'least':>7}{'decode µs':>11}")
            for chroma, quality in SETTINGS:
                jpegs = [imagecodecs.jpeg8_encode(patch, level=quality, subsampling=chroma) for patch in patches]
                start = time.thread_time()
                stored = [imagecodecs.jpeg8_decode(jpeg) for jpeg in jpegs]
                decode = (time.thread_time() - start) / N
                kept = [psnr(*pair) for pair in zip(stored, patches, strict=True)]
                size = np.mean([len(jpeg) for jpeg in jpegs]) / 1e3
                dB = f"{np.mean(kept):11.1f}{min(kept):7.1f}"
                print(f"{chroma:>6}{quality:9}{size:7.1f}{dB}{decode * 1e6:11.0f}")


if __name__ == "__main__":
    main()
