"""Lightning data modules: a cohort and its slides or features become batches of bags.

- ``base``: cohort, targets, loaders, resuming
- ``class_ratio``: how often the cases of each class are drawn
- ``model_attention``: the model's attention to all patches, for draws by attention
- ``slides``: bags of patches, for end-to-end training
- ``features``: bags of extracted features, for two-stage training
- ``synthetic``: the demo's slides
"""

from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.datamodules.features import FeatureDataModule
from e2e_abmilx.datamodules.slides import SlideDataModule
from e2e_abmilx.datamodules.synthetic import SyntheticDataModule

__all__ = ["BagDataModule", "FeatureDataModule", "SlideDataModule", "SyntheticDataModule"]
