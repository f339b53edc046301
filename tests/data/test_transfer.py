import imagecodecs
import numpy as np
import torch

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, Target, collate, make_bag
from e2e_abmilx.data.jpegs import Jpegs
from e2e_abmilx.data.transfer import decode_patches

CPU = torch.device("cpu")


def _bag(values: list[int], *, encoded: bool) -> Bag:
    """A bag of flat patches of the given brightness."""
    pixels = np.stack([np.full((8, 8, 3), value, np.uint8) for value in values])
    streams = Jpegs.of([imagecodecs.jpeg8_encode(patch) for patch in pixels])
    zeros = torch.zeros(len(values), dtype=torch.int64)
    patches = streams if encoded else torch.from_numpy(pixels)
    return make_bag(Case("c", ("a",)), Target(0), patches, zeros, torch.zeros(len(values), 2), last=True)


def test_decoded_patches_replace_padding_correctly() -> None:
    values = [[40], [80, 120, 200]]
    decoded = decode_patches(collate([_bag(one, encoded=True) for one in values]), CPU)
    pixels = collate([_bag(one, encoded=False) for one in values])
    assert isinstance(decoded.patches, torch.Tensor)
    assert decoded.patches.shape == pixels.patches.shape == (2, 3, 3, 8, 8)
    assert (decoded.patches.int() - pixels.patches.int()).abs().max() <= 1
    assert not decoded.patches[0, 1:].any()


def test_other_batches_are_left_unchanged() -> None:
    batch = collate([_bag([40], encoded=False)])
    assert decode_patches(batch, CPU) is batch
