"""Lightning data modules: cohort + cache, or cohort + features, → bags."""

from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.datamodules.features import FeatureDataModule
from e2e_abmilx.datamodules.slides import SlideDataModule
from e2e_abmilx.datamodules.synthetic import SyntheticDataModule

__all__ = ["BagDataModule", "FeatureDataModule", "SlideDataModule", "SyntheticDataModule"]
