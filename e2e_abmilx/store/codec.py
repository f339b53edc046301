"""The JPEG codec of patches, used by zarr-python and by this package's own reader and writer."""

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

Subsampling = Literal["420", "422", "444"]

JPEG_QUALITY = 90  # benchmarks/store_quality.py prints the table behind this choice

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_BASELINE_FRAME, _SCAN = 0xC0, 0xDA  # markers: the frame header of a baseline stream, the start of its pixels

try:
    # If imagecodecs brings this codec, use its class, so that zarr never finds two codecs of one name.
    from imagecodecs.zarr import Jpeg as JpegCodec
except ImportError:

    @dataclass(frozen=True, kw_only=True)
    class JpegCodec(ArrayBytesCodec):  # type: ignore[no-redef]
        """The zarr v3 codec ``imagecodecs_jpeg``: each chunk is one JPEG stream.

        It supports only the settings that a patch store uses; imagecodecs' codec of the same name has more.

        Args:
            level: JPEG quality, 1 to 100.
            subsampling: Chroma subsampling, ``"420"``, ``"422"`` or ``"444"``.
        """

        is_fixed_size = False
        level: int | None = None
        subsampling: Subsampling | None = None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Self:
            """Create the codec from its entry in ``zarr.json``."""
            settings = data.get("configuration", {})
            if unknown := settings.keys() - {"level", "subsampling"}:
                raise ValueError(
                    f"this array has the JPEG settings {sorted(unknown)}, which only imagecodecs' own codec"
                    " supports; install imagecodecs-zarr"
                )
            return cls(**settings)

        def to_dict(self) -> dict[str, Any]:
            """Return the codec's entry in ``zarr.json``."""
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
            """Raise NotImplementedError, as zarr expects of a codec whose output has no fixed size."""
            raise NotImplementedError


# The entry point in pyproject.toml covers programs that import only zarr; this call covers a checkout that is not
# installed.
register_codec("imagecodecs_jpeg", JpegCodec)


def encode_patch(patch: NDArray[np.uint8], quality: int | None, subsampling: Subsampling | None) -> bytes:
    """Encode one patch, uint8 of shape (P, P, 3), as a JPEG stream."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(patch), level=quality, subsampling=subsampling))


def jpeg_shape(jpeg: bytes) -> tuple[int, int, int]:
    """Return height, width and number of components of a baseline JPEG stream, from its header.

    Raises:
        ValueError: The stream is not baseline JPEG, or it is truncated.
    """
    start = 2
    if jpeg[:2] == _JPEG_START and jpeg[-2:] == _JPEG_END:
        while jpeg[start : start + 1] == b"\xff" and jpeg[start + 1] != _SCAN:
            if jpeg[start + 1] == _BASELINE_FRAME and len(jpeg) >= start + 10:
                height, width, components = struct.unpack_from(">HHB", jpeg, start + 5)
                return height, width, components
            start += 2 + int.from_bytes(jpeg[start + 2 : start + 4])
    raise ValueError("it is not a complete baseline JPEG stream")
