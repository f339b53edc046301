"""A trained model as a thing: loaded, it predicts slides; exported, it is a folder of plain files.

- ``inputs``: slides, stores and features, made into the bags that a model takes
- ``predictions``: the prediction for a case
- ``model``: one or several trained tasks that predict slides
- ``folder``: a model as a folder of plain files
- ``loading``: models loaded from checkpoints, runs, cross-validations, folders and the hub
- ``cohorts``: the cases that a command predicts
- ``predict``: the command ``predict --model``
- ``leaks``: cases that a model has seen in training
- ``evaluate``: the command ``evaluate``
- ``export/``: the command ``export``: model card, ONNX, hub
"""

from e2e_abmilx.models.loading import load_model
from e2e_abmilx.models.model import Model
from e2e_abmilx.models.predictions import CasePrediction

__all__ = ["CasePrediction", "Model", "load_model"]
