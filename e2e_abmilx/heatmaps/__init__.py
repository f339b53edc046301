"""Heatmaps: attention and contributions of the patches of a slide, as pictures and as layers for viewers.

* ``attention.py``: the attention, the contributions and the positions of a slide's patches
* ``colours.py``: which numbers are shown, and the colours that they get
* ``case_map.py``: attention and contributions of a case as one compact file, which a run stores
* ``sheets.py``: patches as rasters with one cell per patch, which the viewer draws
* ``raster.py``: patches painted onto the pixels of a picture of the slide
* ``overlay.py``: colours over the thumbnail, with colour bar and scale bar
* ``contact_sheet.py``: the patches with the highest and the lowest values
* ``geojson.py``: squares with measurements for QuPath
* ``ome_zarr.py``: an OME-Zarr image for QuPath, napari and OMERO
* ``folder.py``: all four files of a slide in one folder
"""

from e2e_abmilx.heatmaps.attention import Contribution, HeatmapError, SlideAttention, check_drawable
from e2e_abmilx.heatmaps.case_map import CaseMap, MapError, SlideMap, case_file_name, read_case_map, write_case_map
from e2e_abmilx.heatmaps.colours import Kind
from e2e_abmilx.heatmaps.contact_sheet import draw_contact_sheet
from e2e_abmilx.heatmaps.folder import write_heatmap
from e2e_abmilx.heatmaps.geojson import write_geojson
from e2e_abmilx.heatmaps.ome_zarr import write_ome_zarr
from e2e_abmilx.heatmaps.overlay import draw_overlay
from e2e_abmilx.heatmaps.raster import Raster
from e2e_abmilx.heatmaps.sheets import Sheet, lay_sheets

__all__ = [
    "CaseMap", "Contribution", "HeatmapError", "Kind", "MapError", "Raster", "Sheet", "SlideAttention", "SlideMap",
    "case_file_name", "check_drawable", "draw_contact_sheet", "draw_overlay", "lay_sheets", "read_case_map",
    "write_case_map", "write_geojson", "write_heatmap", "write_ome_zarr",
]  # fmt: skip
