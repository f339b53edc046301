import types

import imagecodecs
import numpy as np
import pytest
import torch

from e2e_abmilx.data import jpegs
from e2e_abmilx.data.jpegs import Jpegs, import_decoders, join_jpegs
from e2e_abmilx.errors import InputError


def _streams(count: int) -> list[bytes]:
    """Flat grey patches of increasing brightness."""
    return [imagecodecs.jpeg8_encode(np.full((16, 16, 3), 20 * k, np.uint8)) for k in range(count)]


def test_streams_decode_to_their_pixels_in_order() -> None:
    pixels = Jpegs.of(_streams(5)).decode(torch.device("cpu"))
    assert (pixels.shape, pixels.dtype) == ((5, 3, 16, 16), torch.uint8)
    assert pixels[:, 0, 0, 0].tolist() == pytest.approx([0, 20, 40, 60, 80], abs=1)


def test_joined_buffers_are_one_buffer() -> None:
    streams = _streams(4)
    joined = join_jpegs([Jpegs.of(streams[:1]), Jpegs.of(streams[1:])])
    whole = Jpegs.of(streams)
    assert torch.equal(joined.data, whole.data)
    assert torch.equal(joined.sizes, whole.sizes)


@pytest.mark.parametrize("failure", [ImportError("absent"), OSError("built for another torch"), None])
def test_a_missing_or_old_torchcodec_is_named(monkeypatch: pytest.MonkeyPatch, failure: Exception | None) -> None:
    def load(name: str) -> types.ModuleType:
        if failure:
            raise failure
        return types.ModuleType(name)  # an old release, without decode_jpeg

    monkeypatch.setattr(jpegs, "import_module", load)
    with pytest.raises(InputError, match=r"needs torchcodec 0.16 or later.*pip install 'e2e-abmilx\[gpu\]'"):
        import_decoders()
