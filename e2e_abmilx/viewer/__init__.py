"""The viewer: the slides of a run in the browser, with what the model looked at.

- ``command``: the command ``view``
- ``viewing``: the function ``view`` for notebooks and scripts
- ``viewed_run``: the run that is being looked at: its cases with their slides, and the pictures of them
- ``run_cases``: the cases of a run, most wrong first, and their maps
- ``predictions``: predictions as numbers and as words
- ``documents``, ``map_documents``: the JSON that the page reads
- ``reviews``: ``review.csv``, what people note about cases
- ``slide_sources``: where the pixels of a slide come from
- ``open_slides``: slide files, a few open at a time
- ``pictures``: rectangles of a slide, from its file or as a mosaic of its patches
- ``levels``: the tiles of deep zoom
- ``jpeg_cache``: the tiles that were used last
- ``server``, ``routes``: the server, and which address gives what
- ``export``: a static copy that opens without a server
- ``static``: the page
"""

from e2e_abmilx.viewer.viewing import Viewer, view

__all__ = ["Viewer", "view"]
