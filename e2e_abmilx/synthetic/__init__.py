"""Small H&E-like slides with known lesions and benign changes that resemble them, for the demo and the tests.

Equal arguments give equal slides and labels on one machine, whatever the number of workers.

* ``cohort``: a label table, and the slides and lesion masks that belong to it
* ``slide``: one slide: its pixels and its file
* ``truth``: where tissue and lesion lie on a slide
* ``nuclei``: the nuclei, by which a lesion differs from normal tissue
"""

from e2e_abmilx.synthetic.cohort import MIN_SLIDES, plan_labels, write_cohort
from e2e_abmilx.synthetic.slide import draw_slide, write_slide
from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Truth

__all__ = ["MASK_DOWNSAMPLE", "MIN_SLIDES", "Truth", "draw_slide", "plan_labels", "write_cohort", "write_slide"]
