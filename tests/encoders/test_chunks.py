"""Encoding in chunks: equal sizes, exact gradients, exact BatchNorm statistics."""

import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.encoders import ResNetEncoder, encode_in_chunks
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import ClassificationTask


def _run(name: str, chunk_size: int, *, checkpoint: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Features, parameter gradients and buffers of one training step."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(name, pretrained=False).train()
    patches = torch.rand(10, 3, 32, 32)
    features = encode_in_chunks(encoder, patches, chunk_size, checkpoint=checkpoint)
    (features * torch.linspace(0, 1, features.numel()).view_as(features)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    return features, gradients, dict(encoder.named_buffers())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("chunk_size", [3, 5, 10])
def test_gradient_checkpointing_changes_neither_gradients_nor_batchnorm(name: str, chunk_size: int) -> None:
    features, gradients, buffers = _run(name, chunk_size, checkpoint=False)
    other_features, other_gradients, other_buffers = _run(name, chunk_size, checkpoint=True)
    torch.testing.assert_close(other_features, features)
    assert len(gradients) == len(other_gradients) > 40
    for key, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[key], gradient, rtol=1e-6, atol=1e-6)
    for key, buffer in buffers.items():
        torch.testing.assert_close(other_buffers[key], buffer, rtol=1e-6, atol=1e-6)


class _ByChunk(nn.Module):
    """The slow reference: the encoder takes all patches at once, and only BatchNorm processes them by chunk."""

    def __init__(self, norm: nn.Module, chunk_size: int) -> None:
        super().__init__()
        self.norm, self.chunk_size = norm, chunk_size

    def forward(self, maps: Tensor) -> Tensor:
        chunks = maps.tensor_split(-(-len(maps) // self.chunk_size))
        return torch.cat([self.norm(chunk) for chunk in chunks])


def _norms_by_chunk(module: nn.Module, chunk_size: int) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _ByChunk(child, chunk_size))
        else:
            _norms_by_chunk(child, chunk_size)


def _batch(seed: int, lengths: list[int]) -> Bag:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    patches = torch.randint(0, 256, (*mask.shape, 3, 32, 32), dtype=torch.uint8, generator=generator)
    zeros, label = torch.zeros(mask.shape, dtype=torch.long), torch.arange(len(lengths)) % 2
    coords = torch.stack([zeros, zeros], dim=-1)
    return Bag(patches, mask, zeros, coords, label, label.float(), label, ("a", "b")[: len(lengths)], True)


def _two_accumulated_steps(
    name: str, dtype: torch.dtype, chunk_size: int, *, chunked: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    task = ClassificationTask(
        ResNetEncoder(name, pretrained=False),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=32, num_heads=4, dropout=0.0),
        2,
        train_chunk_size=chunk_size if chunked else 1000,
        gradient_checkpointing=chunked,
    )
    task.to(dtype).train()
    if not chunked:
        _norms_by_chunk(task.encoder, chunk_size)
    for seed in (1, 2):
        bag = _batch(seed, [5, 9])
        task.bag_loss(task(bag).logits, bag).backward()
    gradients = {key: value.grad for key, value in task.named_parameters() if value.grad is not None}
    named = [*gradients.items()], [*task.named_buffers()]
    return tuple({key.replace(".norm.", "."): value for key, value in pairs} for pairs in named)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "chunk_size", "dtype", "tolerance"),
    [  # for 14 real patches: a chunk size that does not divide 14, one that does, and 14 itself
        *((name, size, torch.float64, 1e-13) for name in ("resnet18", "resnet50") for size in (4, 7, 14)),
        # convolutions of 4 patches round differently from those of 14: by 3e-6 of the largest gradient
        *((name, 4, torch.float32, 5e-6) for name in ("resnet18", "resnet50")),
    ],
)
def test_chunks_with_gradient_checkpointing_equal_one_pass(
    name: str, chunk_size: int, dtype: torch.dtype, tolerance: float
) -> None:
    gradients, buffers = _two_accumulated_steps(name, dtype, chunk_size, chunked=True)
    expected_gradients, expected_buffers = _two_accumulated_steps(name, dtype, chunk_size, chunked=False)
    assert gradients.keys() == expected_gradients.keys()
    assert len(gradients) > 50
    for key, gradient in gradients.items():
        largest = max(float(expected_gradients[key].abs().max()), 1.0)
        torch.testing.assert_close(gradient, expected_gradients[key], rtol=0, atol=tolerance * largest, msg=key)
    assert buffers.keys() == expected_buffers.keys()
    for key, buffer in buffers.items():
        torch.testing.assert_close(buffer, expected_buffers[key], rtol=tolerance, atol=tolerance, msg=key)


@pytest.mark.parametrize(("patches", "chunk_size", "sizes"), [(65, 64, [33, 32]), (14, 4, [4, 4, 3, 3]), (3, 8, [3])])
def test_chunks_have_equal_sizes(patches: int, chunk_size: int, sizes: list[int]) -> None:
    seen: list[int] = []

    def encoder(chunk: Tensor) -> Tensor:
        seen.append(len(chunk))
        return chunk.mean((2, 3))

    assert len(encode_in_chunks(encoder, torch.rand(patches, 3, 2, 2), chunk_size)) == patches
    assert seen == sizes


def test_no_patch_is_normalised_alone() -> None:
    """A remainder of one patch would be, and its features could not be compared with those of the other patches."""
    torch.manual_seed(0)
    encoder = ResNetEncoder(pretrained=False).train()
    patches = torch.rand(65, 3, 32, 32)
    with torch.no_grad():
        together, chunked = encoder(patches), encode_in_chunks(encoder, patches, 64)
    apart = (chunked - together).norm(dim=1) / together.norm(dim=1)
    assert apart.max() < 3 * apart.median()  # a patch that is normalised alone differs by 48 %


def test_chunks_do_not_change_features_in_evaluation() -> None:
    encoder = ResNetEncoder(pretrained=False).eval()
    patches = torch.rand(7, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encode_in_chunks(encoder, patches, 3), encoder(patches), rtol=1e-5, atol=1e-5)


def test_any_function_can_be_the_encoder() -> None:
    assert encode_in_chunks(lambda x: x.mean((2, 3)), torch.rand(5, 3, 4, 4), 2).shape == (5, 3)


def test_a_chunk_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk_size is 0"):
        encode_in_chunks(lambda x: x, torch.rand(4, 8), 0)
