"""Whole-slide images: what is in the file, how many µm a pixel has, and its pixels."""

from e2e_abmilx.slides.resolution import PLAUSIBLE_MPP, Resolution
from e2e_abmilx.slides.slide import SNAP, ReadPlan, Slide
from e2e_abmilx.slides.slide_error import SlideError

__all__ = ["PLAUSIBLE_MPP", "SNAP", "ReadPlan", "Resolution", "Slide", "SlideError"]
