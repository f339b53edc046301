"""Patch encoders."""

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
