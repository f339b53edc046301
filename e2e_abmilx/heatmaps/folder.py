"""All files of one slide's heatmap, in one folder."""

import shutil
from pathlib import Path

from e2e_abmilx.heatmaps.attention import SlideAttention
from e2e_abmilx.heatmaps.colours import Kind
from e2e_abmilx.heatmaps.contact_sheet import draw_contact_sheet
from e2e_abmilx.heatmaps.geojson import write_geojson
from e2e_abmilx.heatmaps.ome_zarr import write_ome_zarr
from e2e_abmilx.heatmaps.overlay import draw_overlay

_DPI = 200


def write_heatmap(attention: SlideAttention, folder: Path, *, kind: Kind = "attention", title: str = "") -> None:
    """Write ``overlay.png``, ``patches.geojson``, ``<kind>.ome.zarr`` and ``contact_sheet.png``.

    The folder gets its name, and replaces an earlier one, only when all files are complete.

    Args:
        attention: Attention of the slide, and contributions if they are known: the GeoJSON holds them whatever the kind.
        folder: Folder to write.
        kind: Meaning of the colours: attention relative to uniform attention, its rank, or the contribution.
        title: Title of the pictures, such as the prediction; by default the slide's name.

    Raises:
        HeatmapError: The kind is ``"contribution"`` and the contributions are unknown.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    draw_overlay(attention, kind=kind, title=title).savefig(partial / "overlay.png", dpi=_DPI)
    write_geojson(attention, partial / "patches.geojson")
    write_ome_zarr(attention, partial / f"{kind}.ome.zarr", kind=kind)
    draw_contact_sheet(attention, kind=kind, title=title).savefig(partial / "contact_sheet.png", dpi=_DPI)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
