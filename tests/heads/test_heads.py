"""The contract of all heads. For a new head, add one subclass at the end of this file.

Derive it from ``SetHeadTests`` if the head treats a bag as a set, or from ``HeadTests`` if the order of patches matters.
"""

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from e2e_abmilx.heads import (
    ABMIL,
    ABMILX,
    CLAM,
    DSMIL,
    DTFD,
    RRTMIL,
    BagHead,
    GatedABMIL,
    HeadOutput,
    MaxPool,
    MeanMLP,
    MeanPool,
    MultiBranchCLAM,
    TransMIL,
)
from e2e_abmilx.losses import survival_nll

D, K = 24, 3


def batch_of(bags: list[Tensor], padding: float, *, first: bool = False) -> tuple[Tensor, Tensor]:
    """Return bags of different lengths as one padded batch with its mask; padding comes last unless ``first``."""
    length = max(len(bag) for bag in bags)
    features = torch.full((len(bags), length, D), padding, dtype=bags[0].dtype)
    mask = torch.zeros(len(bags), length, dtype=torch.bool)
    for row, bag in enumerate(bags):
        place = slice(length - len(bag), length) if first else slice(0, len(bag))
        features[row, place] = bag.detach()
        mask[row, place] = True
    return features, mask


def perturbed(head: BagHead) -> BagHead:
    """Return the head in evaluation mode, with all parameters moved from their initial values."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return head.eval()


class HeadTests:
    """The contract of every head."""

    make: ClassVar[Callable[[int, int], BagHead]]
    dead: ClassVar[frozenset[str]] = (
        frozenset()
    )  # parameters without influence, which exist for the authors' weights only

    @pytest.fixture
    def head(self) -> BagHead:
        torch.manual_seed(0)
        return perturbed(type(self).make(D, K))

    def test_shapes(self, head: BagHead) -> None:
        features = torch.randn(2, 7, D)
        output = head.attend(features)
        assert isinstance(output, HeadOutput)
        assert output.logits.shape == (2, K)
        assert output.attention.shape[::2] == (2, 7)
        assert output.embedding.shape[0] == 2
        assert torch.equal(head(features), output.logits)

    def test_attention_is_a_distribution(self, head: BagHead) -> None:
        attention = head.attend(torch.randn(2, 7, D)).attention
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:2]))

    def test_empty_bags_are_refused(self, head: BagHead) -> None:
        """Their attention would be 0/0."""
        mask = torch.ones(3, 5, dtype=torch.bool)
        mask[1] = False
        with pytest.raises(ValueError, match="1 of 3 bags hold no real patch, first bag 1: leave empty bags out"):
            head(torch.randn(3, 5, D), mask)
        for empty in (None, torch.ones(2, 0, dtype=torch.bool)):
            with pytest.raises(ValueError, match="2 of 2 bags hold no real patch, first bag 0"):
                head.attend(torch.randn(2, 0, D), empty)

    def test_bags_in_a_batch_are_independent(self, head: BagHead) -> None:
        features = torch.randn(3, 11, D, requires_grad=True)
        logits = head(features)
        torch.testing.assert_close(logits[1], head(features[1:2])[0], atol=1e-6, rtol=0)
        logits[1].sum().backward()
        assert features.grad is not None
        assert features.grad[1].abs().sum() > 0
        assert not features.grad[[0, 2]].any()

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
    @pytest.mark.parametrize(("padding", "first"), [(0.0, False), (1e4, True), (float("nan"), True)])
    def test_padded_batch_equals_its_single_bags(
        self, head: BagHead, padding: float, first: bool, dtype: torch.dtype, tolerance: float
    ) -> None:
        def close(actual: Tensor | None, expected: Tensor | None) -> None:
            torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)

        head = head.to(dtype)
        bags = [torch.randn(n, D, dtype=dtype, requires_grad=True) for n in (1, 700, 23)]
        features, mask = batch_of(bags, padding, first=first)
        features.requires_grad_()
        label = torch.arange(3) % K
        output = head.attend(features, mask)
        head.training_loss(output, Tensor.mean, label).backward()
        of_batch = {name: parameter.grad for name, parameter in head.named_parameters()}
        head.zero_grad()
        singles = [head.attend(bag.unsqueeze(0)) for bag in bags]
        losses = [head.training_loss(single, Tensor.mean, label[[row]]) for row, single in enumerate(singles)]
        torch.stack(losses).mean().backward()

        assert features.grad is not None
        assert not features.grad[~mask].any()
        assert not output.attention.transpose(1, 2)[~mask].any()
        for row, (bag, single) in enumerate(zip(bags, singles, strict=True)):
            close(output.logits[row], single.logits[0])
            close(output.embedding[row], single.embedding[0])
            close(output.attention[row][:, mask[row]], single.attention[0])
            close(features.grad[row, mask[row]], bag.grad)
        for name, parameter in head.named_parameters():
            close(of_batch[name], parameter.grad)

    def test_all_true_mask_equals_no_mask(self, head: BagHead) -> None:
        features = torch.randn(2, 9, D)
        mask = torch.ones(2, 9, dtype=torch.bool)
        torch.testing.assert_close(head(features, mask), head(features), atol=1e-6, rtol=0)

    def test_one_patch_takes_all_attention(self, head: BagHead) -> None:
        attention = head.attend(torch.randn(2, 1, D)).attention
        torch.testing.assert_close(attention, torch.ones_like(attention))

    def test_gradient_reaches_every_parameter(self, head: BagHead) -> None:
        output = head.double().attend(torch.randn(2, 17, D).double())
        head.training_loss(output, lambda logits: logits.square().sum(), torch.tensor([0, 2])).backward()
        reach = {name: 0 if p.grad is None else p.grad.abs().max() for name, p in head.named_parameters()}
        unreached = {name for name, size in reach.items() if size < 1e-12}
        assert unreached == self.dead

    def test_trains_on_survival(self, head: BagHead) -> None:
        time_bin, event = torch.tensor([0, 2]), torch.tensor([1, 0])
        features = torch.randn(2, 17, D, requires_grad=True)
        output = head.attend(features)
        head.training_loss(output, lambda logits: survival_nll(logits, time_bin, event)).backward()
        assert features.grad is not None
        assert features.grad.isfinite().all()
        assert features.grad.abs().sum() > 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("masked", [False, True])
    def test_autocast_is_close_to_float32(self, head: BagHead, dtype: torch.dtype, masked: bool) -> None:
        features = torch.randn(2, 300, D)
        mask = torch.rand(2, 300) < 0.8 if masked else None
        expected = head.attend(features, mask)
        with torch.autocast("cpu", dtype=dtype):
            output = head.attend(features, mask)
            loss = output.logits.float().square().sum()
        loss.backward()
        assert output.attention.dtype == torch.float32
        torch.testing.assert_close(output.attention.sum(-1), torch.ones(output.attention.shape[:2]))
        tolerance = 0.05 if dtype == torch.bfloat16 else 0.01
        torch.testing.assert_close(output.logits.float(), expected.logits, atol=tolerance, rtol=tolerance)
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_a_head_of_another_dtype_returns_it(self, head: BagHead, dtype: torch.dtype) -> None:
        output = head.to(dtype).attend(torch.randn(2, 9, D, dtype=dtype), torch.ones(2, 9, dtype=torch.bool))
        assert output.logits.dtype == output.embedding.dtype == dtype
        assert output.attention.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)

    def test_arguments_are_not_modified(self, head: BagHead) -> None:
        features, mask = torch.randn(2, 9, D), torch.rand(2, 9) < 0.7
        mask[:, 0] = True
        before = features.clone(), mask.clone()
        head.train()(features, mask)
        assert torch.equal(features, before[0])
        assert torch.equal(mask, before[1])
        head(torch.randn(1, 9, D, requires_grad=True)).sum().backward()  # an in-place change of a leaf would raise

    def test_single_bag_without_batch_dimension_is_refused(self, head: BagHead) -> None:
        with pytest.raises(ValueError, match=re.escape("(37, 24): pass one bag as features.unsqueeze(0)")):
            head(torch.randn(37, D))

    def test_features_of_another_width_are_refused(self, head: BagHead) -> None:
        with pytest.raises(
            ValueError, match=re.escape(f"(B, N, {D}), not (2, 5, 7): build the head with in_features=7")
        ):
            head(torch.randn(2, 5, 7))

    def test_mask_of_another_type_or_shape_is_refused(self, head: BagHead) -> None:
        with pytest.raises(ValueError, match=r"bool of shape \(2, 5\), not torch.float32"):
            head(torch.randn(2, 5, D), torch.ones(2, 5))
        with pytest.raises(ValueError, match=r"bool of shape \(2, 5\), not torch.bool of shape \(5,\)"):
            head(torch.randn(2, 5, D), torch.ones(5, dtype=torch.bool))

    def test_copies_and_pickles(self, head: BagHead) -> None:
        features = torch.randn(2, 5, D)
        assert torch.equal(copy.deepcopy(head)(features), head(features))
        assert torch.equal(pickle.loads(pickle.dumps(head))(features), head(features))

    def test_state_dict_round_trip(self, head: BagHead) -> None:
        features = torch.randn(2, 5, D)
        twin: nn.Module = type(self).make(D, K).eval()
        twin.load_state_dict(head.state_dict())
        assert torch.equal(twin(features), head(features))

    def test_without_dropout_training_equals_evaluation(self, head: BagHead) -> None:
        features = torch.randn(2, 5, D)
        for module in head.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        assert torch.equal(head.train()(features), head.eval()(features))


class SetHeadTests(HeadTests):
    """The contract of a head that treats a bag as a set."""

    @pytest.mark.parametrize("num_patches", [1, 2, 40])
    def test_patch_order_permutes_attention_only(self, head: BagHead, num_patches: int) -> None:
        head = head.double()
        features, order = torch.randn(2, num_patches, D).double(), torch.randperm(num_patches)
        before, after = head.attend(features), head.attend(features[:, order])
        torch.testing.assert_close(after.logits, before.logits, atol=1e-10, rtol=0)
        torch.testing.assert_close(after.attention, before.attention[..., order], atol=1e-10, rtol=0)

    def test_duplicating_the_whole_bag_changes_nothing(self, head: BagHead) -> None:
        features = torch.randn(2, 37, D).double()
        head = head.double()
        torch.testing.assert_close(head(features.repeat(1, 2, 1)), head(features), atol=1e-10, rtol=0)


class ClassHeadTests(SetHeadTests):
    """The contract of a head that needs classes."""

    def test_trains_on_survival(self, head: BagHead) -> None:
        with pytest.raises(ValueError, match="these bags have none: take GatedABMIL"):
            head.training_loss(head.attend(torch.randn(2, 17, D)), Tensor.mean)


class TestABMILX(SetHeadTests):
    make = partial(ABMILX, hidden_features=32, num_heads=4)


class TestABMILXOddHeads(SetHeadTests):
    """Three features per attention head, which fused kernels do not accept."""

    make = partial(ABMILX, hidden_features=15, num_heads=5, score_features=7)


class TestABMILXGrading(SetHeadTests):
    make = partial(ABMILX, hidden_features=32, num_heads=2, ffn=True, activation="relu")


class TestABMILXTwoStage(SetHeadTests):
    make = partial(ABMILX, hidden_features=32, norm=False, ffn=True, bias=True, score_bias=True)
    dead = frozenset({"score.2.bias"})


class TestABMILXUnrefined(SetHeadTests):
    make = partial(ABMILX, hidden_features=32, refine=False)


class TestABMIL(SetHeadTests):
    make = partial(ABMIL, hidden_features=32, attention_features=8)


class TestGatedABMIL(SetHeadTests):
    make = partial(GatedABMIL, hidden_features=32, attention_features=8)


class TestMeanPool(SetHeadTests):
    make = MeanPool


class TestMaxPool(SetHeadTests):
    make = MaxPool


class TestMeanMLP(SetHeadTests):
    make = partial(MeanMLP, hidden_features=32)


class TestDSMIL(SetHeadTests):
    make = partial(DSMIL, hidden_features=32, query_features=8)


class TestCLAM(ClassHeadTests):
    make = partial(CLAM, hidden_features=32, attention_features=8, exclusive=True)


class TestCLAMWithoutExclusiveClasses(ClassHeadTests):
    """Only the instance classifiers of the classes that occur are trained."""

    make = partial(CLAM, hidden_features=32, attention_features=8)


class TestMultiBranchCLAM(ClassHeadTests):
    make = partial(MultiBranchCLAM, hidden_features=32, attention_features=8, exclusive=True)


class TestDTFD(HeadTests):
    make = partial(DTFD, hidden_features=32, attention_features=8)

    def test_without_dropout_training_equals_evaluation(self, head: BagHead) -> None:
        """Training assigns patches at random, except with a single pseudo-bag."""
        features = torch.randn(2, 50, D)
        only = DTFD(D, K, num_pseudo_bags=1, dropout=0.0)
        torch.testing.assert_close(only.train()(features), only.eval()(features))
        several = DTFD(D, K, dropout=0.0).train()
        assert not torch.equal(several(features), several(features))


class TestTransMIL(HeadTests):
    make = partial(TransMIL, hidden_features=32, num_heads=4, num_landmarks=16)


class TestTransMILExact(HeadTests):
    """Sequences shorter than the number of landmarks."""

    make = partial(TransMIL, hidden_features=32, num_heads=4, num_landmarks=1000)


class TestRRTMIL(HeadTests):
    make = partial(RRTMIL, hidden_features=32, num_heads=4, attention_features=8, regions_per_side=2)


@pytest.mark.parametrize("make", [ABMILX, TransMIL, RRTMIL])
def test_num_heads_that_do_not_divide_the_features_are_refused(make: type[BagHead]) -> None:
    with pytest.raises(ValueError, match="512 is not a multiple of 7; try 8"):
        make(D, K, num_heads=7)


@pytest.mark.parametrize(
    ("make", "millions"), [(GatedABMIL, 0.66), (CLAM, 0.79), (TransMIL, 2.67), (DSMIL, 0.87), (RRTMIL, 2.70)]
)
def test_sizes_equal_those_in_the_abmilx_paper(make: type[BagHead], millions: float) -> None:
    """Table 1 of arXiv:2506.02408: 1024 features per patch, two classes."""
    count = sum(parameter.numel() for parameter in make(1024, 2).parameters())
    assert round(count / 1e6, 2) == millions
