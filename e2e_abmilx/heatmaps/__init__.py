"""What a head attends to and what patches contribute, over the slide: pictures, QuPath's GeoJSON, an OME-Zarr."""

from e2e_abmilx.heatmaps.attention import Contribution, HeatmapError, SlideAttention, check_drawable
from e2e_abmilx.heatmaps.colours import Kind
from e2e_abmilx.heatmaps.contact_sheet import draw_contact_sheet
from e2e_abmilx.heatmaps.folder import write_heatmap
from e2e_abmilx.heatmaps.geojson import write_geojson
from e2e_abmilx.heatmaps.ome_zarr import write_ome_zarr
from e2e_abmilx.heatmaps.overlay import draw_overlay
from e2e_abmilx.heatmaps.raster import Raster

__all__ = [
    "Contribution",
    "HeatmapError",
    "Kind",
    "Raster",
    "SlideAttention",
    "check_drawable",
    "draw_contact_sheet",
    "draw_overlay",
    "write_geojson",
    "write_heatmap",
    "write_ome_zarr",
]
