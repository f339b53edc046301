"""Take pictures of the viewer on a run with headless Chromium: two widths, light and dark.

    e2e-abmilx fit --config configs/demo.yaml
    python benchmarks/viewer_pictures.py --run runs/demo --out runs/demo/pictures --readme .github/viewer.webp

A state is what the page writes after the # of its address; by default the first case, with the curtain a third across.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from e2e_abmilx.viewer import view

SIZES = {"wide": (1400, 900), "narrow": (800, 1000)}  # pixels
QUALITY = 90  # of the README's picture, about 150 kB


def find_browser() -> str:
    """Return the path of Chromium or Chrome."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    sys.exit("no chromium, chromium-browser or google-chrome is on the PATH; install one of them")


def photograph(browser: Browser, address: str, size: tuple[int, int], scheme: str, path: Path) -> None:
    """Write a screenshot of the page when its slide and pictures are drawn."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page.goto(address)
    page.wait_for_function("() => Panes.list.length && Panes.list.every((pane) => pane.ready)")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)  # tiles fade in
    page.screenshot(path=path)
    page.close()


def main() -> None:
    """Serve the run and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a tested run")
    parser.add_argument("--out", type=Path, required=True, help="folder of the four pictures")
    parser.add_argument("--readme", type=Path, help="file of the picture in the README: wide and light")
    parser.add_argument("--state", default="curtain=0.33", help="what stands after the # of the address")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with view(args.run) as viewer, sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium does not start its sandbox as root
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        for name, size in SIZES.items():
            for scheme in ("light", "dark"):
                path = args.out / f"viewer_{name}_{scheme}.png"
                photograph(browser, f"{viewer.url}#{args.state}", size, scheme, path)
                print(f"{path}: {size[0]} × {size[1]} px")
        browser.close()
    if args.readme:
        with Image.open(args.out / "viewer_wide_light.png") as image:
            image.convert("RGB").save(args.readme, quality=QUALITY, method=6)
        print(f"{args.readme}: {args.readme.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
