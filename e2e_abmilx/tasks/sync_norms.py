"""BatchNorm synchronised over all processes, for every kind of BatchNorm layer in timm."""

from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn


class TimmSyncBatchNorm(LayerSync):
    """Synchronisation of BatchNorm that keeps the activations in timm's BatchNorm layers.

    PyTorch's conversion, which Lightning uses, replaces timm's ``BatchNormAct2d`` by a plain SyncBatchNorm: an
    EfficientNet would silently lose all of its activations.
    """

    def __init__(self) -> None:
        self._originals: dict[str, nn.Module] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert all BatchNorm layers of a model, in place."""
        self._originals = dict(_norms(model))
        converted: nn.Module = convert_sync_batchnorm(model)
        for name, synced in _norms(converted):
            synced.train(self._originals[name].training)  # frozen norms stay in evaluation mode
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Restore the original layers, with the current weights and statistics."""
        for name, synced in list(_norms(model)):
            original = self._originals[name]
            for tensor_name, parameter in synced.named_parameters(recurse=False):
                setattr(original, tensor_name, parameter)
            for tensor_name, buffer in synced.named_buffers(recurse=False):
                setattr(original, tensor_name, buffer)
            model.set_submodule(name, original.train(synced.training))
        self._originals = {}
        return model


def use_timm_sync(strategy: Strategy) -> None:
    """Make the trainer's ``sync_batchnorm=True`` keep timm's activations; Lightning has no setting for that."""
    if isinstance(strategy, ParallelStrategy) and isinstance(strategy._layer_sync, TorchSyncBatchNorm):
        strategy._layer_sync = TimmSyncBatchNorm()


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    batch_norm = nn.modules.batchnorm._BatchNorm
    return [(name, module) for name, module in model.named_modules() if isinstance(module, batch_norm)]
