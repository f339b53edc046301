"""Patch encoders, and running one over a bag in bounded memory.

Letters: M patches of any number of bags, S patch side, D features.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Self

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint as recompute

from e2e_abmilx.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TimmEncoder(nn.Module):
    """Any timm model, with its own pooling and without its classifier.

    Attributes:
        num_features: D, what a head must accept.
        mean: Channel means that its input is normalised by, for pixels in [0, 1].
        std: Channel standard deviations, likewise.

    Args:
        name: A timm model, such as ``resnet34``, ``convnext_tiny`` or ``vit_small_patch16_224``.
        pretrained: Start from timm's ImageNet weights, fetched from the model hub or its local cache.
        weights: A local weight file to start from instead; keys that do not match are an error.
        frozen_norms: BatchNorm normalises by its running statistics, in training too, and leaves them as they are;
            otherwise it takes those of each chunk of patches.

    Raises:
        InputError: The model is unknown, or weights cannot be fetched or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        frozen_norms: bool = False,
    ) -> None:
        super().__init__()
        self.frozen_norms = frozen_norms
        try:
            self.model = self._create(name, pretrained=pretrained and weights is None)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights of {name!r} cannot be fetched ({type(error).__name__}: {error}); start from random ones"
                " (pretrained: false), from a file (weights: FILE), or fill the hub's cache on a machine with a network"
            ) from error
        self.num_features = self._width()
        listed = timm.get_pretrained_cfg(name)  # a model cut to its features has lost its own
        known = getattr(self.model, "pretrained_cfg", None) or (listed.to_dict() if listed else {})
        self.mean: tuple[float, ...] = tuple(known.get("mean", IMAGENET_MEAN))
        self.std: tuple[float, ...] = tuple(known.get("std", IMAGENET_STD))
        if weights is not None:
            _load_file(self.model, weights)
        self.train()  # Lightning leaves modules in the mode that it finds them in

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches.

        Args:
            patches: Normalised pixels, shape ``(M, 3, S, S)``.

        Returns:
            Features, shape ``(M, D)``.
        """
        features: Tensor = self.model(patches)
        return features

    def train(self, mode: bool = True) -> Self:
        """As every module's, but frozen norms stay as they are."""
        super().train(mode)
        if self.frozen_norms:
            for norm in _norms_of(self):
                norm.eval()
        return self

    def _create(self, name: str, *, pretrained: bool) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
        return model

    def _width(self) -> int:
        return int(self.model.num_features)  # type: ignore[arg-type]


class ResNetEncoder(TimmEncoder):
    """A timm ResNet cut after its third stage, with global average pooling.

    The last stage is left out as in App. B.3 of arXiv:2506.02408: 2,782,784 parameters and D = 256 for
    ``resnet18``, 8,543,296 and D = 1024 for ``resnet50``.

    Attributes:
        num_features: D, what a head must accept.
        mean: Channel means that its input is normalised by, for pixels in [0, 1].
        std: Channel standard deviations, likewise.

    Args:
        name: A timm ResNet, such as ``resnet18`` or ``resnet50.tv2_in1k``.
        pretrained: As in :class:`TimmEncoder`.
        weights: As there.
        frozen_norms: As there.

    Raises:
        InputError: Weights cannot be fetched, or do not fit.
    """

    def __init__(
        self,
        name: str = "resnet18",
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        frozen_norms: bool = False,
    ) -> None:
        super().__init__(name, pretrained=pretrained, weights=weights, frozen_norms=frozen_norms)

    @classmethod
    def from_reference(
        cls, state_dict: Mapping[str, object], *, channel_order: Literal["bgr", "rgb"]
    ) -> "ResNetEncoder":
        """Build the encoder from the authors' end-to-end weights; the depth is read off the shapes.

        Args:
            state_dict: Their state dict, alone or under ``"model"`` in their checkpoint; the keys of the encoder
                start with ``encoder.`` or ``module.encoder.``, and those of the head are passed over.
            channel_order: What the weights were trained on. Their release decodes patches as ``"bgr"`` and
                normalises them by the RGB means: then the first convolution's input channels, and ``mean`` and
                ``std``, are turned around, so that RGB patches give the authors' features.

        Raises:
            InputError: The weights are not those of a truncated ResNet-18 or ResNet-50.
        """
        weights = _reference_weights(state_dict)
        encoder = cls("resnet50" if "layer3.0.conv3.weight" in weights else "resnet18", pretrained=False)
        _load(encoder.model, weights, "the reference weights")
        if channel_order == "bgr":
            encoder.model.conv1.weight.data = weights["conv1.weight"].flip(1).clone()  # type: ignore[union-attr]
            encoder.mean, encoder.std = encoder.mean[::-1], encoder.std[::-1]
        return encoder

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches: ``(M, 3, S, S)`` → ``(M, D)``."""
        features: Tensor = self.model(patches)[-1]
        return features.mean(dim=(2, 3))

    def _create(self, name: str, *, pretrained: bool) -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(3,)
        )
        return model

    def _width(self) -> int:
        return int(self.model.feature_info.channels()[-1])  # type: ignore[union-attr, operator]


class FrozenEncoder(nn.Module):
    """An encoder that is used as it is: no gradients, no dropout, BatchNorm by its running statistics.

    Attributes:
        num_features: D of the encoder.
        mean: Channel means of the encoder's input.
        std: Channel standard deviations, likewise.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.num_features = encoder.num_features
        self.mean = getattr(encoder, "mean", IMAGENET_MEAN)
        self.std = getattr(encoder, "std", IMAGENET_STD)
        self.train()

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches: ``(M, 3, S, S)`` → ``(M, D)``, without a graph."""
        with torch.no_grad():
            features: Tensor = self.encoder(patches)
        return features

    def train(self, mode: bool = True) -> Self:
        """As every module's, but the encoder stays in evaluation."""
        super().train(mode)
        self.encoder.eval()
        return self


class Precomputed(nn.Module):
    """The encoder of two-stage training: bags hold features already, and pass through.

    Attributes:
        num_features: D.

    Args:
        num_features: D of the features on disk, such as 1024 for UNI.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, shape ``(M, D)``, as they are."""
        return features


def encode_in_chunks(
    encoder: Callable[[Tensor], Tensor], patches: Tensor, chunk_size: int, *, checkpoint: bool = False
) -> Tensor:
    """Encode any number of patches with the memory of one chunk.

    Chunks are of equal size, to within one patch: BatchNorm takes its statistics from each chunk, and those of a small
    remainder would be its own. With ``checkpoint``, activations are computed
    again in the backward pass instead of kept: gradients and BatchNorm buffers are exactly those of the same
    chunks without it, because the second pass leaves the running statistics alone.

    Args:
        encoder: The encoder; a module whose BatchNorm layers are to be found, or any function.
        patches: Pixels, shape ``(M, 3, S, S)``.
        chunk_size: Patches in a chunk, at most.
        checkpoint: Trade one more forward pass for the activation memory.

    Returns:
        Features, shape ``(M, D)``.

    Raises:
        ValueError: The chunk size is below 1.
    """
    return encode_chunks(
        encoder, torch.tensor_split(patches, count_chunks(len(patches), chunk_size)), checkpoint=checkpoint
    )


def count_chunks(patches: int, chunk_size: int) -> int:
    """How many chunks patches are cut into; at least 1.

    Args:
        patches: Number of patches.
        chunk_size: Patches in a chunk, at most.

    Raises:
        ValueError: The chunk size is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts patches and must be at least 1")
    return max(1, math.ceil(patches / chunk_size))


def encode_chunks(
    encoder: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, checkpoint: bool = False
) -> Tensor:
    """As :func:`encode_in_chunks`, of chunks that were cut already.

    Args:
        encoder: The encoder.
        chunks: Pixels, each of shape ``(m, 3, S, S)``.
        checkpoint: Trade one more forward pass for the activation memory.

    Returns:
        Features, shape ``(M, D)``.
    """
    if not (checkpoint and torch.is_grad_enabled()):
        return torch.cat([encoder(chunk) for chunk in chunks])
    norms = _norms_of(encoder)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(norms)

    return torch.cat(
        [recompute(encoder, chunk, use_reentrant=False, context_fn=contexts) for chunk in chunks]
    )


def _norms_of(encoder: Callable[[Tensor], Tensor]) -> list[_BatchNorm]:
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    return [layer for layer in modules if isinstance(layer, _BatchNorm)]


@contextlib.contextmanager
def _running_statistics_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    """BatchNorm layers normalise by the batch, as in training, but do not update their running statistics."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, kept, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if tracked is None else tracked.clone()
        )  # SyncBatchNorm insists on one
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def _load_file(model: nn.Module, path: Path) -> None:
    """Load a state dict from a file that holds nothing but tensors; its classifier may be left over."""
    if not Path(path).is_file():
        raise InputError(f"weights {path}: there is no such file; check the path")
    if Path(path).suffix == ".safetensors":
        state = load_file(path)
    else:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved.get("state_dict", saved.get("model", saved))
    _load(model, state, f"weights {path}")


def _load(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    missing = sorted(set(own) - set(fitting))
    if missing:
        raise InputError(
            f"{source} do not fit: {len(missing)} of {len(own)} tensors are missing or of another shape,"
            f" first {missing[:3]}; there are {sorted(state)[:3]} …"
        )
    model.load_state_dict(fitting)


def _reference_weights(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of the authors' encoder, under timm's names."""
    nested = state_dict.get("model")
    state = nested if isinstance(nested, Mapping) else state_dict
    bare = {str(key).removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("encoder.") for key in bare):
        bare = {
            key.removeprefix("encoder."): value for key, value in bare.items() if key.startswith("encoder.")
        }
    return {key.removeprefix("model."): value for key, value in bare.items() if isinstance(value, Tensor)}
