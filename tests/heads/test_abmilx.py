"""ABMILX: its equations in plain Python, its properties, its initial weights, its parameter counts."""

import doctest
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.heads import ABMILX, abmilx

Vector = list[float]
Matrix = list[Vector]


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def linear(x: Vector, weight: Matrix, bias: Vector | None) -> Vector:
    return [dot(x, row) + (bias[i] if bias else 0.0) for i, row in enumerate(weight)]


def softmax(x: Vector) -> Vector:
    exponentials = [math.exp(value - max(x)) for value in x]
    return [value / math.fsum(exponentials) for value in exponentials]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def layer_norm(x: Vector, weight: Vector, bias: Vector | None) -> Vector:
    mean = math.fsum(x) / len(x)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in x) / len(x) + 1e-5)
    return [
        w * (v - mean) / deviation + (bias[i] if bias else 0.0) for i, (v, w) in enumerate(zip(x, weight, strict=True))
    ]


def abmilx_by_hand(head: ABMILX, bag: Matrix) -> tuple[Vector, Matrix, Vector]:
    """Return logits, attention per head and embedding of one bag by Eq. 3 and 4, without torch."""
    weights = {name: value.tolist() for name, value in head.state_dict().items()}

    def apply_linear(name: str, x: Vector) -> Vector:
        return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def apply_norm(name: str, x: Vector) -> Vector:
        present = f"{name}.weight" in weights
        return layer_norm(x, weights[f"{name}.weight"], weights.get(f"{name}.bias")) if present else x

    activation = gelu if isinstance(head.activation, torch.nn.GELU) else lambda x: max(x, 0.0)
    hidden = [[activation(x) for x in apply_linear("embed", apply_norm("input_norm", e))] for e in bag]
    d = len(hidden[0]) // head.num_heads
    attention, z = [], []
    for j in range(head.num_heads):
        h = [row[j * d : (j + 1) * d] for row in hidden]
        a = [apply_linear("score.2", [gelu(x) for x in apply_linear("score.0", row)])[0] for row in h]
        if "attention_plus.alpha" in weights:
            query_key = [apply_linear("attention_plus.query_key", apply_norm("attention_plus.norm", row)) for row in h]
            q, k = [row[:d] for row in query_key], [row[d:] for row in query_key]
            u = [softmax([dot(q_i, k_n) / math.sqrt(d) for k_n in k]) for q_i in q]
            alpha = weights["attention_plus.alpha"][0]
            a = [a_i + alpha * dot(u_i, a) for a_i, u_i in zip(a, u, strict=True)]
        p = softmax(a)
        attention.append(p)
        z += [math.fsum(p_n * h_n[i] for p_n, h_n in zip(p, h, strict=True)) for i in range(d)]
    z = apply_linear("project", z)
    if "ffn.1.weight" in weights:
        inner = [gelu(x) for x in apply_linear("ffn.1", apply_norm("ffn.0", z))]
        z = [x + y for x, y in zip(z, apply_linear("ffn.3", inner), strict=True)]
    z = apply_norm("norm", z)
    return apply_linear("classifier", z), attention, z


def random_head(seed: int, *args: int, **options: object) -> ABMILX:
    """Return a head in float64 with all weights drawn at random, including LayerNorms and α, as after training."""
    torch.manual_seed(seed)
    head = ABMILX(*args, **options).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return head


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_heads=st.integers(1, 4),
    head_features=st.integers(1, 10),
    in_features=st.integers(1, 6),
    num_outputs=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    options=st.fixed_dictionaries(
        {
            "score_features": st.none() | st.integers(1, 5),
            "score_bias": st.booleans(),
            "refine": st.booleans(),
            "activation": st.sampled_from(["gelu", "relu"]),
            "norm": st.booleans(),
            "bias": st.booleans(),
            "ffn": st.booleans(),
        }
    ),
)
def test_equals_the_equations_by_hand(
    seed: int,
    num_heads: int,
    head_features: int,
    in_features: int,
    num_outputs: int,
    lengths: list[int],
    options: dict[str, object],
) -> None:
    hidden = num_heads * head_features
    head = random_head(seed, in_features, num_outputs, hidden_features=hidden, num_heads=num_heads, **options)
    features = torch.randn(len(lengths), max(lengths), in_features).double()
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    output = head.attend(features, mask if min(lengths) < max(lengths) else None)
    for row, length in enumerate(lengths):
        by_hand = abmilx_by_hand(head, features[row, :length].tolist())
        in_batch = output.logits[row], output.attention[row, :, :length], output.embedding[row]
        for actual, expected in zip(in_batch, by_hand, strict=True):
            exact = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(actual, exact, atol=1e-10, rtol=1e-10)


def test_gradient_equals_finite_differences() -> None:
    head = random_head(0, 3, 2, hidden_features=6, num_heads=2, ffn=True)
    features = torch.randn(2, 5, 3).double().requires_grad_()
    mask = torch.tensor([[True] * 5, [True, False, True, True, False]])
    torch.autograd.gradcheck(lambda x: tuple(head.attend(x, mask)), features)


def test_alpha_zero_equals_no_refinement() -> None:
    head = random_head(0, 24, 2, hidden_features=32)
    plain = ABMILX(24, 2, hidden_features=32, refine=False).double().eval()
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("attention_plus")})
    features = torch.randn(2, 37, 24).double()
    assert not torch.allclose(head(features), plain(features))
    with torch.no_grad():
        head.attention_plus.alpha.zero_()
    for refined, unrefined in zip(head.attend(features), plain.attend(features), strict=True):
        assert torch.equal(refined, unrefined)


def test_last_score_bias_has_no_effect() -> None:
    head = random_head(0, 24, 2, hidden_features=32, score_bias=True)
    features = torch.randn(1, 37, 24).double()
    before = head(features)
    before.sum().backward()
    assert head.score[2].bias.grad.abs() < 1e-12
    with torch.no_grad():
        head.score[2].bias += 3
    torch.testing.assert_close(head(features), before, atol=1e-10, rtol=1e-10)


def test_duplicating_some_patches_changes_the_logits() -> None:
    """Hence padding needs a mask and cannot consist of copies of patches."""
    head = random_head(0, 24, 2, hidden_features=32)
    features = torch.randn(1, 37, 24).double()
    assert not torch.allclose(head(torch.cat([features, features[:, :5]], dim=1)), head(features), atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "options", "count"),
    [
        ((256, 2), {"hidden_features": 256}, 135_265),
        ((256, 4), {"hidden_features": 256, "score_bias": True}, 135_810),
        ((256, 6), {"num_heads": 4, "ffn": True}, 2_546_305),
        ((1024, 6), {"hidden_features": 256, "num_heads": 4, "ffn": True}, 868_545),
        ((1024, 2), {"hidden_features": 256}, 332_641),
        ((1024, 2), {"bias": True, "score_bias": True, "norm": False}, 801_028),
    ],
    ids=["BRCA subtyping", "BRCA survival", "PANDA", "PANDA, ResNet-50", "BRCA, ResNet-50", "two-stage"],
)
def test_parameter_counts_equal_the_authors(
    arguments: tuple[int, int], options: dict[str, int | bool], count: int
) -> None:
    assert sum(parameter.numel() for parameter in ABMILX(*arguments, **options).parameters()) == count


def test_initial_weights_are_xavier_normal() -> None:
    torch.manual_seed(0)
    head = ABMILX(1024, 2, bias=True)
    for name, fan in (("embed", 1024 + 512), ("project", 512 + 512), ("attention_plus.query_key", 64 + 128)):
        linear_layer = head.get_submodule(name)
        assert linear_layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.03)
        assert linear_layer.bias is None or not linear_layer.bias.any()


def test_initial_value_of_alpha() -> None:
    for value in (0.5, 1):
        assert ABMILX(8, 2, hidden_features=8, alpha_init=value).attention_plus.alpha.item() == value
    torch.manual_seed(0)
    drawn = torch.stack([ABMILX(8, 2, hidden_features=8).attention_plus.alpha for _ in range(400)])
    assert abs(drawn.mean().item()) < 0.2
    assert drawn.std().item() == pytest.approx(1, abs=0.15)


def test_num_heads_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(ValueError, match="512 is not a multiple of 7; try 8"):
        ABMILX(1024, 2, num_heads=7)


def test_docstring_example() -> None:
    results = doctest.testmod(abmilx)
    assert results.attempted > 0
    assert results.failed == 0


def test_importing_the_heads_imports_torch_only() -> None:
    heavy = "{'lightning', 'zarr', 'matplotlib', 'timm', 'pandas', 'torchvision', 'torchmetrics'}"
    code = f"import sys, e2e_abmilx.heads; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("fixed", [False, True])
def test_alpha_can_be_kept_at_its_initial_value(fixed: bool) -> None:
    torch.manual_seed(0)
    head = ABMILX(8, 2, hidden_features=16, num_heads=2, alpha_init=0.5, alpha_fixed=fixed)
    assert head.watched()["alpha"] == 0.5
    optimizer = torch.optim.AdamW([one for one in head.parameters() if one.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        head(torch.randn(4, 6, 8)).square().sum().backward()
        optimizer.step()
    assert (head.watched()["alpha"] == 0.5) == fixed
    assert "attention_plus.alpha" in head.state_dict()


def test_a_head_without_refinement_has_no_alpha_to_watch() -> None:
    assert ABMILX(8, 2, hidden_features=16, num_heads=2, refine=False).watched() == {}
