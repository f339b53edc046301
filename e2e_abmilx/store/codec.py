"""The JPEG codec of patch stores, as zarr-python and as the fast reader use it."""

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, Literal, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

__all__ = ["JPEG_QUALITY", "JpegCodec", "Subsampling", "encode_patch", "jpeg_shape"]

JPEG_QUALITY = 90  # benchmarks/store_quality.py prints the table behind this choice


_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


_BASELINE_FRAME, _SCAN = 0xC0, 0xDA  # markers: the frame header of a baseline stream, and the first pixels


Subsampling = Literal["420", "422", "444"]


try:
    # Where imagecodecs has its own codec, ours is that very class: zarr never has to choose between two.
    from imagecodecs.zarr import Jpeg as JpegCodec
except ImportError:

    @dataclass(frozen=True, kw_only=True)
    class JpegCodec(ArrayBytesCodec):  # type: ignore[no-redef]
        """The zarr v3 codec ``imagecodecs_jpeg``: a chunk is one JPEG stream.

        It knows those settings of imagecodecs' codec of the same name that a patch store uses.

        Args:
            level: JPEG quality, 1 to 100.
            subsampling: Chroma subsampling, ``"420"``, ``"422"`` or ``"444"``.
        """

        is_fixed_size = False
        level: int | None = None
        subsampling: Subsampling | None = None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Self:
            """Make the codec from its entry in ``zarr.json``."""
            settings = data.get("configuration", {})
            if unknown := settings.keys() - {"level", "subsampling"}:
                raise ValueError(
                    f"this array's JPEG settings {sorted(unknown)} need imagecodecs' own codec:"
                    " install imagecodecs-zarr"
                )
            return cls(**settings)

        def to_dict(self) -> dict[str, Any]:
            """The codec's entry in ``zarr.json``."""
            settings = {"level": self.level, "subsampling": self.subsampling}
            known = {key: value for key, value in settings.items() if value is not None}
            return {"name": "imagecodecs_jpeg", "configuration": known}

        async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = await asyncio.to_thread(imagecodecs.jpeg8_decode, chunk_data.as_numpy_array())
            return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

        async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = chunk_data.as_numpy_array().reshape(chunk_spec.shape[-3:])
            jpeg = await asyncio.to_thread(encode_patch, pixels, self.level, self.subsampling)
            return chunk_spec.prototype.buffer.from_bytes(jpeg)

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:  # noqa: ANN401
            """Raise what zarr expects of a codec whose output has no fixed size."""
            raise NotImplementedError


# The entry point serves programs that import only zarr; this line serves a checkout that is not installed.
register_codec("imagecodecs_jpeg", JpegCodec)


def encode_patch(patch: NDArray[np.uint8], quality: int | None, subsampling: Subsampling | None) -> bytes:
    """Encode a patch, uint8 of shape (P, P, 3), as the store does."""
    return bytes(
        imagecodecs.jpeg8_encode(np.ascontiguousarray(patch), level=quality, subsampling=subsampling)
    )


def jpeg_shape(jpeg: bytes) -> tuple[int, int, int]:
    """Height, width and components of a complete baseline JPEG stream, from its header.

    Raises:
        ValueError: If it is something else, or ends too early.
    """
    start = 2
    if jpeg[:2] == _JPEG_START and jpeg[-2:] == _JPEG_END:
        while jpeg[start : start + 1] == b"\xff" and jpeg[start + 1] != _SCAN:
            if jpeg[start + 1] == _BASELINE_FRAME and len(jpeg) >= start + 10:
                height, width, components = struct.unpack_from(">HHB", jpeg, start + 5)
                return height, width, components
            start += 2 + int.from_bytes(jpeg[start + 2 : start + 4])
    raise ValueError("it is not a complete baseline JPEG stream")
