"""Whole-slide images: their files, their resolution in µm per pixel, their pixels, and where they hold tissue.

* ``slide_files``: the slides that a folder, a list or a table names
* ``listing``: the slides in a folder and the folders below it
* ``dicom``: DICOM series, each of which is one slide
* ``slide``: an open slide: its levels, regions and thumbnail
* ``resolution``: µm per pixel: the values that a file states, and the one that is believed
* ``bounds``: the part of a slide that holds pixels
* ``background``: the colour of a slide where it has no pixels
* ``thumbnail``: the whole slide in small, without damaged tiles
* ``readers``: the reader that is trusted with a file, ``tiff_reader`` or ``openslide_reader``
* ``pyramids``: the image of a TIFF that is the slide
* ``encodings``: how a TIFF stores its pixels, and which reader decodes that correctly
* ``tiles``: one level of a TIFF, read tile by tile
* ``tissue``: the tissue mask of a thumbnail
* ``grid``: patches on the tissue, at a fine and a coarse scale
* ``duplicates``: copies of a slide, recognised by a hash of the thumbnail
"""

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides.resolution import PLAUSIBLE_MPP, Resolution
from e2e_abmilx.slides.slide import SNAP, ReadPlan, Slide

__all__ = ["PLAUSIBLE_MPP", "SNAP", "ReadPlan", "Resolution", "Slide", "SlideError"]
