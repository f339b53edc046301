"""Patch encoders: networks that turn the pixels of a patch into a feature vector.

- ``timm_encoders.py``: ``ResNetEncoder``, the paper's truncated ResNet, and ``TimmEncoder``, any model of timm
- ``fixed.py``: encoders without training: ``FrozenEncoder``, and ``Precomputed`` for features read from files
- ``augment.py``: crops, flips and normalisation of patches, on the device that holds them
- ``resample.py``: crops of patches, each by a box of its own, resized with antialiasing
- ``chunks.py``: encode a bag in chunks, with gradient checkpointing
- ``weights.py``: load pretrained weights from a file
"""

from e2e_abmilx.encoders.chunks import count_chunks, encode_chunks, encode_in_chunks
from e2e_abmilx.encoders.fixed import FrozenEncoder, Precomputed
from e2e_abmilx.encoders.timm_encoders import IMAGENET_MEAN, IMAGENET_STD, ResNetEncoder, TimmEncoder

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "FrozenEncoder",
    "Precomputed",
    "ResNetEncoder",
    "TimmEncoder",
    "count_chunks",
    "encode_chunks",
    "encode_in_chunks",
]
