"""Patch encoders: truncated ResNets and any timm model.

Letters: M patches of any number of bags, S patch side, D features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

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
            load_weight_file(self.model, weights)
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
            for norm in batch_norms_of(self):
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
        weights = encoder_weights(state_dict)
        encoder = cls("resnet50" if "layer3.0.conv3.weight" in weights else "resnet18", pretrained=False)
        load_weights(encoder.model, weights, "the reference weights")
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
