"""What users already have → patch stores: the authors' LMDB, coordinates of other tools, folders of images."""

from e2e_abmilx.cache.imports.images import import_images
from e2e_abmilx.cache.imports.lmdb_slides import import_lmdb
from e2e_abmilx.cache.imports.tiled_slides import import_coords

__all__ = ["import_coords", "import_images", "import_lmdb"]
