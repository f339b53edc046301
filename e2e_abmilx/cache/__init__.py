"""The cache: slides are cut into patches once and kept as one patch store each.

* ``tiling``: the settings that decide the patches of a store: scales, patch size, overlap, tissue
* ``patches``: cuts patches out of a slide, region by region
* ``crosscheck``: compares stored patches with a second reader of the slide
* ``manifest``: ``manifest.csv``, one row per slide
* ``origins``: the settings of a store and the slide file that it was cut from
* ``jobs``: one store to make, by one process at a time
* ``overview``: pictures of slides with their tissue and patches
* ``thumbnails``: the hash of a stored slide's thumbnail
* ``colours``: colour statistics of the tissue of stored slides
* ``build``: the job of one slide: resolution, tissue, grids, patches
* ``workers``: runs jobs in processes or on a Dask cluster
* ``rows``: the rows of slides while they arrive
* ``sending``: one store → a bucket
* ``bucket``: many stores → a bucket, each made in a temporary folder
* ``caching``: ``cache_slides`` and ``verify``, the commands for many slides
* ``push``: copies a cache into a bucket, for training from there
* ``imports/``: makes stores of patches that users already have
"""

from e2e_abmilx.cache.caching import cache_slides, verify
from e2e_abmilx.cache.jobs import CacheError
from e2e_abmilx.cache.origins import is_slide_of, slide_path

__all__ = ["CacheError", "cache_slides", "is_slide_of", "slide_path", "verify"]
