"""Encoders from timm: the paper's truncated ResNets, and any other model.

Letters: M patches of any number of bags, S patch side, D encoder features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import timm
from torch import Tensor, nn

from e2e_abmilx.encoders.chunks import batch_norms_of
from e2e_abmilx.encoders.weights import load_weight_file, load_weights
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads.reference import encoder_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TimmEncoder(nn.Module):
    """Any timm model, with its own pooling and without its classifier.

    Attributes:
        num_features: D, the width of the features.
        mean: Channel means that the input is normalised by, for pixels in [0, 1].
        std: Channel standard deviations that the input is normalised by, for pixels in [0, 1].

    Args:
        name: A timm model, such as ``resnet34``, ``convnext_tiny`` or ``vit_small_patch16_224``.
        pretrained: Start from timm's ImageNet weights, downloaded from the model hub or read from its local cache.
        weights: Start from a local weight file instead; it must hold every tensor of the model.
        frozen_norms: Let BatchNorm use its running statistics in training too, without updating them; otherwise it
            normalises each chunk of patches by its own statistics.

    Raises:
        InputError: The model is unknown, or weights cannot be downloaded or do not fit.
    """

    _timm_options: ClassVar[dict[str, Any]] = {"num_classes": 0}

    def __init__(
        self, name: str, *, pretrained: bool = True, weights: Path | None = None, frozen_norms: bool = False
    ) -> None:
        super().__init__()
        self.frozen_norms = frozen_norms
        try:
            self.model: nn.Module = timm.create_model(
                name, pretrained=pretrained and weights is None, **self._timm_options
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights of {name!r} cannot be downloaded ({type(error).__name__}: {error}); start from random weights"
                " (pretrained: false), from a file (weights: FILE), or fill the hub's cache on a machine with a network"
            ) from error
        self.num_features = self._width()
        listed = timm.get_pretrained_cfg(name)  # features_only models have no config of their own
        config = getattr(self.model, "pretrained_cfg", None) or (listed.to_dict() if listed else {})
        self.mean: tuple[float, ...] = tuple(config.get("mean", IMAGENET_MEAN))
        self.std: tuple[float, ...] = tuple(config.get("std", IMAGENET_STD))
        if weights is not None:
            load_weight_file(self.model, weights)
        self.train()  # applies frozen_norms, because Lightning keeps the mode in which it finds a module

    def forward(self, patches: Tensor) -> Tensor:
        """Encode normalised pixels: ``(M, 3, S, S)`` → ``(M, D)``."""
        features: Tensor = self.model(patches)
        return features

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; frozen norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen_norms:
            for norm in batch_norms_of(self):
                norm.eval()
        return self

    def _width(self) -> int:
        return int(self.model.num_features)  # type: ignore[arg-type]


class ResNetEncoder(TimmEncoder):
    """A timm ResNet cut after its third stage, with global average pooling.

    The last stage is left out as in App. B.3 of arXiv:2506.02408: 2,782,784 parameters and D = 256 for
    ``resnet18``, 8,543,296 and D = 1024 for ``resnet50``. Otherwise as :class:`TimmEncoder`.

    Args:
        name: A timm ResNet, such as ``resnet18`` or ``resnet50.tv2_in1k``.
        pretrained: Start from timm's ImageNet weights.
        weights: Start from a local weight file instead.
        frozen_norms: Let BatchNorm use its running statistics in training too.
    """

    _timm_options: ClassVar[dict[str, Any]] = {"features_only": True, "out_indices": (3,)}

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
        """Build the encoder from the authors' end-to-end weights; the depth is inferred from the shapes.

        Args:
            state_dict: The authors' state dict, alone or under ``"model"`` in their checkpoint. Keys of the encoder
                start with ``encoder.`` or ``module.encoder.``; keys of the head are ignored.
            channel_order: Channel order that the weights were trained on. The authors' release decodes patches as
                ``"bgr"`` and normalises them by the RGB means. With ``"bgr"``, the input channels of the first
                convolution, ``mean`` and ``std`` are reversed, so that RGB patches give the authors' features.

        Raises:
            InputError: The weights are not those of a truncated ResNet-18 or ResNet-50.
        """
        weights = encoder_weights(state_dict)
        encoder = cls("resnet50" if "layer3.0.conv3.weight" in weights else "resnet18", pretrained=False)
        load_weights(encoder.model, weights, "the reference weights")
        if channel_order == "bgr":
            encoder.model.conv1.weight.data = weights["conv1.weight"].flip(1).clone()  # type: ignore[union-attr]
            encoder.mean, encoder.std = encoder.mean[::-1], encoder.std[::-1]
        return encoder

    def forward(self, patches: Tensor) -> Tensor:
        """Encode normalised pixels: ``(M, 3, S, S)`` → ``(M, D)``."""
        features: Tensor = self.model(patches)[-1]
        return features.mean(dim=(2, 3))

    def _width(self) -> int:
        return int(self.model.feature_info.channels()[-1])  # type: ignore[union-attr, operator]
