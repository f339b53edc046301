"""Everything of one slide's heatmap, in one folder."""

import shutil
from pathlib import Path

from numpy.typing import ArrayLike

from e2e_abmilx.heatmaps.attention import Contribution, SlideAttention
from e2e_abmilx.heatmaps.colours import Kind
from e2e_abmilx.heatmaps.contact_sheet import draw_contact_sheet
from e2e_abmilx.heatmaps.geojson import write_geojson
from e2e_abmilx.heatmaps.ome_zarr import write_ome_zarr
from e2e_abmilx.heatmaps.overlay import draw_overlay
from e2e_abmilx.store import PatchStore

_DPI = 200


def write_heatmap(
    store: PatchStore,
    coords: ArrayLike,
    scale: ArrayLike,
    attention: ArrayLike,
    folder: Path,
    *,
    bag_size: int | None = None,
    contribution: Contribution | None = None,
    kind: Kind = "attention",
    title: str = "",
) -> None:
    """Write all that can be looked at of a slide.

    That is ``overlay.png``, ``patches.geojson``, ``<kind>.ome.zarr`` and ``contact_sheet.png``. The folder
    takes its name, and the place of an earlier one, only when it is whole.

    Args:
        store: The slide's patches.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``, in the order of the store.
        scale: Scale of each patch, shape ``(N,)``.
        attention: Weights, shape ``(H, N)``; each row sums to 1 over the bag.
        folder: Folder to make.
        bag_size: Patches in the whole bag, where it holds other slides too; by default N.
        contribution: What each patch adds to a score; among the measurements whatever the kind.
        kind: What colours stand for: attention relative to uniform, its rank, or the contribution.
        title: What to say above the pictures, such as the prediction; by default the slide's name.

    Raises:
        HeatmapError: The store does not say where its patches lie, or they lie elsewhere; or contributions are
            asked for and not there.
    """
    slide = SlideAttention.from_weights(
        store, coords, scale, attention, bag_size=bag_size, contribution=contribution
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    draw_overlay(slide, kind=kind, title=title).savefig(partial / "overlay.png", dpi=_DPI)
    write_geojson(slide, partial / "patches.geojson")
    write_ome_zarr(slide, partial / f"{kind}.ome.zarr", kind=kind)
    draw_contact_sheet(slide, kind=kind, title=title).savefig(partial / "contact_sheet.png", dpi=_DPI)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
