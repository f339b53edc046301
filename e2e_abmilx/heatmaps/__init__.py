"""Heatmaps: attention and contributions of the patches of a slide, as pictures and as layers for viewers.

* ``attention.py``: the attention, the contributions and the positions of a slide's patches
* ``colours.py``: which numbers are shown, and the colours that they get
* ``raster.py``: patches painted onto the pixels of a picture of the slide
* ``overlay.py``: colours over the thumbnail, with colour bar and scale bar
* ``contact_sheet.py``: the patches with the highest and the lowest values
* ``geojson.py``: squares with measurements for QuPath
* ``ome_zarr.py``: an OME-Zarr image for QuPath, napari and OMERO
* ``folder.py``: all four files of a slide in one folder
"""

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
