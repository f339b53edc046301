"""Small H&E-like slides with known answers, for the demo and the tests.

The same arguments give the same pixels (before compression) and labels on every machine. Every draw comes from
``numpy.random.default_rng(seed)`` as uniform floats or integers, whose streams numpy keeps; arithmetic on pixels is in
integers; the few float64 results are rounded before they count.
"""

from e2e_abmilx.synthetic.cohort import MIN_SLIDES, plan_labels, write_cohort
from e2e_abmilx.synthetic.drawing import draw_slide
from e2e_abmilx.synthetic.pyramid import write_slide
from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Truth

__all__ = [
    "MASK_DOWNSAMPLE",
    "MIN_SLIDES",
    "Truth",
    "draw_slide",
    "plan_labels",
    "write_cohort",
    "write_slide",
]
