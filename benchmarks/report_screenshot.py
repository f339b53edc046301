"""Write the HTML report of a run and take screenshots with headless Chromium: two widths, light and dark.

    e2e-abmilx fit --config configs/demo.yaml
    e2e-abmilx predict --config runs/demo/fit.yaml --ckpt_path runs/demo/best.ckpt --trainer.callbacks+=AttentionHeatmap
    python benchmarks/report_screenshot.py --run runs/demo --out runs/demo/pictures --readme .github/report.png

The picture in the README shows the first two screens of the wide, light page side by side.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from e2e_abmilx.reports import report

WIDTHS = {"wide": 1200, "narrow": 400}  # pixels
SCHEMES = {"light": 1, "dark": 0}  # the numbers of Chromium's setting
TALLEST = 12000  # pixels; the rest of a longer page is cut off
# height of a screen in pixels, scale and number of colours of the README's picture, which keep it below 200 kB
SCREEN, SCALE, COLOURS = 1745, 0.55, 256


def find_browser() -> str:
    """Return the path of Chromium or Chrome."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    sys.exit("no chromium, chromium-browser or google-chrome is on the PATH; install one of them")


def photograph(page: Path, width: int, scheme: int) -> Image.Image:
    """Return a screenshot of the page, cropped to its content."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "page.png")
        command = [
            find_browser(), "--headless=new", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}",
            f"--window-size={width},{TALLEST}", f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={picture}", page.resolve().as_uri(),
        ]  # fmt: skip
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium does not start its sandbox as root
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(picture).convert("RGB")
    ground = Image.new("RGB", image.size, image.getpixel((0, TALLEST - 1)))
    *_, end = ImageChops.difference(image, ground).getbbox()
    return image.crop((0, 0, width, end + 24))


def lay_side_by_side(image: Image.Image) -> Image.Image:
    """Return the first two screens of a page side by side, scaled down and with few colours."""
    spread = Image.new("RGB", (2 * image.width, SCREEN), image.getpixel((0, 0)))
    for column in range(2):
        screen = image.crop((0, column * SCREEN, image.width, min((column + 1) * SCREEN, image.height)))
        spread.paste(screen, (column * image.width, 0))
    size = (round(spread.width * SCALE), round(spread.height * SCALE))
    return spread.resize(size, Image.Resampling.LANCZOS).quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE)


def main() -> None:
    """Write the report and its screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a tested run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the four screenshots")
    parser.add_argument("--readme", type=Path, help="file of the picture in the README")
    args = parser.parse_args()
    report(args.run, html=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for size, width in WIDTHS.items():
        for name, scheme in SCHEMES.items():
            image = photograph(args.run / "report.html", width, scheme)
            path = args.out / f"report_{size}_{name}.png"
            image.save(path)
            print(f"{path}: {image.width} × {image.height} px")
            if args.readme and (size, name) == ("wide", "light"):
                lay_side_by_side(image).save(args.readme, optimize=True)
                print(f"{args.readme}: {args.readme.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
