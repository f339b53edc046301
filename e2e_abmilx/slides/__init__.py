"""Whole-slide images: their files, their resolution in µm per pixel, their pixels, and where they hold tissue.

Which slides there are

* ``slide_files``: the slides that a folder, a list or a table names
* ``listing``: the slides in a folder and the folders below it
* ``dicom``: DICOM series, of which each is one slide

An open slide

* ``slide``: ``Slide``: its resolution, its levels, regions and thumbnail
* ``resolution``: µm per pixel: what a file states and what is believed
* ``bounds``: the part of a slide that holds pixels
* ``thumbnail``: the whole slide in small, without damaged tiles
* ``background``: the colour of a slide where it has no pixels

Readers

* ``readers``: the reader that is trusted with a file
* ``tiff_reader``, ``openslide_reader``: the two readers
* ``pyramids``: which image of a TIFF is the slide
* ``encodings``: how a TIFF stores pixels, and which reader decodes that correctly
* ``tiles``: the tiles of one level of a TIFF

Tissue

* ``tissue``: tissue mask of a thumbnail
* ``grid``: patches on the tissue, at a fine and a coarse scale
"""

from e2e_abmilx.slides.resolution import PLAUSIBLE_MPP, Resolution
from e2e_abmilx.slides.slide import SNAP, ReadPlan, Slide
from e2e_abmilx.slides.slide_error import SlideError

__all__ = ["PLAUSIBLE_MPP", "SNAP", "ReadPlan", "Resolution", "Slide", "SlideError"]
