"""Imports: patches that users already have become patch stores.

* ``attributes``: what every imported store records
* ``lmdb_files``: the LMDB databases of the authors of ABMILX, read without running what is pickled in them
* ``lmdb_import``: ``import_lmdb``
* ``coords_files``: the patch coordinates that TRIDENT and CLAM write
* ``coords_import``: ``import_coords``, which cuts slides at those coordinates
* ``image_names``: numbers in the names of images: level-0 pixels, or columns and rows of tiles
* ``image_import``: ``import_images``, for folders of patch images
"""

from e2e_abmilx.cache.imports.coords_import import import_coords
from e2e_abmilx.cache.imports.image_import import import_images
from e2e_abmilx.cache.imports.lmdb_import import import_lmdb

__all__ = ["import_coords", "import_images", "import_lmdb"]
