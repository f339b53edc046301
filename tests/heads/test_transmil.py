"""TransMIL, compared with its paper's algorithm and the Nyströmformer's equations, computed in loops over tokens."""

import math

import pytest
import torch
from torch import Tensor

from e2e_abmilx.heads import TransMIL
from e2e_abmilx.heads.transmil import PyramidPosition, nystrom_attention, pseudo_inverse


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of rows of Q to rows of K and V, pair by pair."""
    rows = []
    for q in query:
        weights = torch.stack([(q @ k / math.sqrt(len(q))).exp() for k in key])
        rows.append(sum(w * v for w, v in zip(weights / weights.sum(), value, strict=True)))
    return torch.stack(rows)


def nystrom_reference(query: Tensor, key: Tensor, value: Tensor, num_landmarks: int) -> Tensor:
    """Return Eq. 15 of arXiv:2102.03902 for one head, with whole matrices and six iterations for the inverse."""
    segments = [segment.tolist() for segment in torch.tensor_split(torch.arange(len(query)), num_landmarks)]
    query_marks = torch.stack([query[segment].mean(dim=0) for segment in segments])
    key_marks = torch.stack([key[segment].mean(dim=0) for segment in segments])
    identity = torch.eye(num_landmarks, dtype=query.dtype)
    between = softmax_attention(query_marks, key_marks, identity)
    inverse = between.T / (max(between.sum(dim=0)) * max(between.sum(dim=1)))
    for _ in range(6):
        product = between @ inverse
        inner = 15 * identity - product @ (7 * identity - product)
        inverse = 0.25 * inverse @ (13 * identity - product @ inner)
    return softmax_attention(query, key_marks, identity) @ inverse @ softmax_attention(query_marks, key, value)


def position_reference(layer: PyramidPosition, square: Tensor) -> Tensor:
    """Return PPEG of a square of tokens, ``(side, side, C)``: the token plus its neighbours within each kernel."""
    side, _, features = square.shape
    placed = square + layer.seven.bias
    for kernel in (layer.seven.weight, layer.five.weight, layer.three.weight):
        reach = kernel.shape[-1] // 2
        for row in range(side):
            for column in range(side):
                for down in range(-reach, reach + 1):
                    for right in range(-reach, reach + 1):
                        y, x = row + down, column + right
                        if 0 <= y < side and 0 <= x < side:
                            weights = kernel[:, 0, down + reach, right + reach]
                            placed[row, column] = placed[row, column] + weights * square[y, x]
    assert placed.shape == (side, side, features)
    return placed


def layer_reference(weights: dict[str, Tensor], tokens: Tensor, num_heads: int, num_landmarks: int) -> Tensor:
    """Return one layer's output for tokens of shape ``(N, C)``, head by head."""
    normed = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], weights["norm.weight"], weights["norm.bias"])
    query, key, value = (normed @ weights["query_key_value.weight"].T).chunk(3, dim=-1)
    width = tokens.shape[-1] // num_heads
    heads = []
    for head in range(num_heads):
        q, k, v = (matrix[:, head * width : (head + 1) * width] for matrix in (query, key, value))
        mixed = (
            softmax_attention(q, k, v) if len(tokens) <= num_landmarks else nystrom_reference(q, k, v, num_landmarks)
        )
        neighbours = torch.zeros_like(v)
        for token in range(len(v)):
            for step in range(-16, 17):
                if 0 <= token + step < len(v):
                    neighbours[token] += weights["neighbours.weight"][head, 0, step + 16, 0] * v[token + step]
        heads.append(mixed + neighbours)
    return tokens + torch.cat(heads, dim=1) @ weights["project.0.weight"].T + weights["project.0.bias"]


@pytest.mark.parametrize("num_patches", [1, 2, 5, 9, 20, 23])
@torch.no_grad()
def test_equals_algorithm_2(num_patches: int) -> None:
    torch.manual_seed(0)
    head = TransMIL(5, 3, hidden_features=8, num_heads=2, num_landmarks=7).double().eval()
    for parameter in head.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    features = torch.randn(num_patches, 5).double()

    hidden = (features @ head.embed[0].weight.T + head.embed[0].bias).relu()
    side = math.ceil(math.sqrt(num_patches))
    filled = [hidden[place % num_patches] for place in range(side**2)]
    tokens = torch.stack([head.class_token, *filled])
    tokens = layer_reference(head.first.state_dict(), tokens, 2, 7)
    placed = position_reference(head.position, tokens[1:].reshape(side, side, 8))
    tokens = torch.cat([tokens[:1], placed.reshape(side**2, 8)])
    tokens = layer_reference(head.second.state_dict(), tokens, 2, 7)
    embedding = head.norm(tokens[0])

    output = head.attend(features.unsqueeze(0))
    torch.testing.assert_close(output.embedding[0], embedding, atol=1e-8, rtol=0)
    torch.testing.assert_close(output.logits[0], head.classifier(embedding), atol=1e-8, rtol=0)


@torch.no_grad()
def test_attention_is_the_class_tokens_row_with_weights_of_copies_added() -> None:
    torch.manual_seed(0)
    head = TransMIL(5, 3, hidden_features=8, num_heads=2).double().eval()
    features = torch.randn(1, 6, 5).double()  # the first three are repeated to fill a square of 9
    hidden = head.embed(features)
    tokens = torch.cat([head.class_token.expand(1, 1, -1), hidden, hidden[:, :3]], dim=1)
    tokens = head.position(head.first(tokens)[0], 3)
    query, key, _ = head.second.query_key_value(head.second.norm(tokens))[0].chunk(3, dim=-1)
    for number in range(2):
        own = slice(4 * number, 4 * number + 4)
        row = softmax_attention(query[:1, own], key[:, own], torch.eye(10).double())[0]
        patches = [row[1 + n] + (row[7 + n] if n < 3 else 0) for n in range(6)]
        expected = torch.stack(patches) / sum(patches)
        torch.testing.assert_close(head.attend(features).attention[0, number], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("num_landmarks", [12, 40])
def test_as_many_landmarks_as_tokens_give_softmax_attention(num_landmarks: int) -> None:
    query, key, value = torch.randn(3, 1, 1, 12, 4, dtype=torch.float64)
    attended = nystrom_attention(query, key, value, num_landmarks)[0, 0]
    expected = softmax_attention(query[0, 0], key[0, 0], value[0, 0])
    torch.testing.assert_close(attended, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("num_tokens", "num_landmarks"), [(12, 4), (13, 4), (15, 4), (12, 11), (9, 1)])
def test_nystrom_equals_equation_15(num_tokens: int, num_landmarks: int) -> None:
    query, key, value = torch.randn(3, 2, 3, num_tokens, 4, dtype=torch.float64)
    attended = nystrom_attention(query, key, value, num_landmarks)
    for bag in range(2):
        for head in range(3):
            expected = nystrom_reference(query[bag, head], key[bag, head], value[bag, head], num_landmarks)
            torch.testing.assert_close(attended[bag, head], expected, atol=1e-6, rtol=0)


def test_nystrom_approaches_softmax_attention_with_more_landmarks() -> None:
    torch.manual_seed(0)
    walk = torch.randn(3, 1, 1, 400, 8, dtype=torch.float64).cumsum(dim=3) / 8  # neighbours are similar
    exact = nystrom_attention(*walk, 400)
    errors = [(nystrom_attention(*walk, landmarks) - exact).norm() for landmarks in (2, 4, 16)]
    assert errors[0] > errors[1] > errors[2]


def test_iterations_reach_the_pseudo_inverse() -> None:
    torch.manual_seed(0)
    attention = torch.randn(2, 3, 10, 10, dtype=torch.float64).mul(3).softmax(dim=-1)
    expected = torch.linalg.pinv(attention)
    torch.testing.assert_close(pseudo_inverse(attention, 40), expected, atol=1e-6, rtol=1e-6)


def test_position_encoding_does_not_change_the_class_token() -> None:
    layer = PyramidPosition(4)
    tokens = torch.randn(2, 10, 4)
    assert torch.equal(layer(tokens, 3)[:, 0], tokens[:, 0])


def test_order_matters() -> None:
    head = TransMIL(5, 3, hidden_features=8, num_heads=2).eval()
    features = torch.randn(1, 20, 5)
    assert not torch.allclose(head(features), head(features.flip(1)), atol=1e-3)
