"""Attention of the encoder-decoder against its sums written out, what masks hide, cached steps, and where dropout comes from."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lineal.models.cache import KeyValueCache
from lineal.models.dropout import Masks
from lineal.models.multihead import CrossAttention, Pass, SelfAttention, attend
from lineal.models.transformer import TransformerConfig

Layer = TypeVar("Layer", bound=nn.Module)
CLOSE: dict[str, Any] = {"atol": 1e-12, "rtol": 0.0}
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    made = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=made, dtype=torch.float64)


def of(layer: Layer, seed: int = 0) -> Layer:
    """The layer in float64 with weights and biases far from nought."""
    layer = layer.double()
    with torch.no_grad():
        for place, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.5 * normal(*parameter.shape, seed=seed + place))
    return layer


def one_head(query: list, key: list, value: list, hidden: set[int]) -> list[list[float]]:
    """Equation 1, number by number: weights exp(q·k / sqrt d) over what is not hidden, and their mean of the values."""
    result = []
    for q in query:
        score = [sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q)) for k in key]
        weight = [0.0 if s in hidden else math.exp(x) for s, x in enumerate(score)]
        mixed = [sum(w * v[d] for w, v in zip(weight, value, strict=True)) for d in range(len(q))]
        result.append([x / sum(weight) for x in mixed])
    return result


def split(x_TD: Tensor, heads: int) -> list[Tensor]:
    """The heads' columns, one after the other."""
    return list(x_TD.split(x_TD.shape[1] // heads, 1))


def many_heads(query_TD: Tensor, key_SD: Tensor, value_SD: Tensor, heads: int) -> Tensor:
    """The heads of one row next to each other, [T, D]."""
    sides = zip(*(split(x, heads) for x in (query_TD, key_SD, value_SD)), strict=True)
    made = [one_head(q.tolist(), k.tolist(), v.tolist(), set()) for q, k, v in sides]
    return torch.cat([torch.tensor(head, dtype=torch.float64) for head in made], 1)


def hiding(source: int, hidden: list[set[int]]) -> Tensor:
    """A mask [B, 1, 1, S] that hides these positions of each row."""
    mask = torch.zeros(len(hidden), 1, 1, source, dtype=torch.float64)
    for row, places in enumerate(hidden):
        mask[row, ..., list(places)] = -math.inf
    return mask


def causal(count: int) -> Tensor:
    """Nothing sees what is behind it, [1, 1, T, T]."""
    return torch.full((count, count), -math.inf, dtype=torch.float64).triu(1)[None, None]


class TestAttend:
    @given(sizes, sizes, sizes, st.integers(2, 5), sizes, seeds)
    def test_each_head_is_equation_1(
        self, rows: int, heads: int, targets: int, sources: int, width: int, seed: int
    ) -> None:
        query = normal(rows, heads, targets, width, seed=seed)
        key, value = (normal(rows, heads, sources, width, seed=seed + n) for n in (1, 2))
        hidden = [{row % sources} for row in range(rows)]
        mask = hiding(sources, hidden)
        fused, plain = (attend(query, key, value, mask, going) for going in (Pass(), Pass(maps=[])))
        for b in range(rows):
            for h in range(heads):
                q, k, v = (x[b, h].tolist() for x in (query, key, value))
                expected = one_head(q, k, v, hidden[b])
                torch.testing.assert_close(fused[b, h].tolist(), expected, **CLOSE)
        torch.testing.assert_close(plain, fused, **CLOSE)

    def test_weights_worked_by_hand(self) -> None:
        """Scores 2·ln 3 / sqrt 4 and 0: weights 3/4 and 1/4."""
        query = torch.tensor([2.0, 0, 0, 0], dtype=torch.float64).view(1, 1, 1, 4)
        key = torch.tensor([[math.log(3), 0, 0, 0], [0.0, 5, 5, 5]], dtype=torch.float64)[None, None]
        value = torch.tensor([[4.0, 0, 8, 1], [0.0, 4, 8, -3]], dtype=torch.float64)[None, None]
        maps: list[Tensor] = []
        found = attend(query, key, value, None, Pass(maps=maps))
        torch.testing.assert_close(found.flatten().tolist(), [3.0, 1.0, 8.0, 0.0], **CLOSE)
        assert maps[0].flatten().tolist() == pytest.approx([0.75, 0.25])

    def test_what_is_hidden_is_neither_seen_nor_taught(self) -> None:
        query, key, value = normal(2, 2, 3, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2)
        mask, other = hiding(5, [{4}, {1, 3}]), value.clone()
        other[0, :, 4], other[1, :, [1, 3]] = 1e6, -1e6
        seen, changed = (attend(query, key, x, mask, Pass()) for x in (value, other))
        torch.testing.assert_close(seen, changed, **CLOSE)
        key.requires_grad_(True)
        value.requires_grad_(True)
        attend(query, key, value, mask, Pass()).square().sum().backward()
        for side in (key, value):
            assert side.grad is not None
            taught = side.grad.abs().sum((1, 3)) > 0
            assert taught.tolist() == [[True] * 4 + [False], [True, False, True, False, True]]

    @given(st.integers(1, 6), seeds)
    def test_maps_sum_to_one_and_look_at_nothing_behind(self, count: int, seed: int) -> None:
        maps: list[Tensor] = []
        x = 3 * normal(2, 2, count, 4, seed=seed)
        attend(x, x, x, causal(count), Pass(maps=maps))
        assert maps[0].shape == (2, 2, count, count) and maps[0].dtype == torch.float32
        torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, count))
        assert not maps[0].triu(1).any() and not maps[0].requires_grad

    def test_scores_of_thousands_are_finite(self) -> None:
        x = 100 * torch.eye(4, dtype=torch.float64)[None, None]
        for going in (Pass(), Pass(maps=[])):
            torch.testing.assert_close(attend(x, x, x, None, going), x)

    def test_bfloat16_is_near_the_same(self) -> None:
        query, key, value = (normal(2, 2, 6, 8, seed=n) for n in range(3))
        mask = hiding(6, [set(), {0, 5}])
        exact = attend(query, key, value, mask, Pass())
        found = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), mask, Pass())
        assert found.dtype == torch.bfloat16 and (found - exact).abs().max() < 0.05

    def test_dropout_falls_on_the_weights_and_maps_are_from_before_it(self) -> None:
        query, key, value = (normal(2, 3, 4, 8, seed=n) for n in range(3))
        maps: list[Tensor] = []
        found = attend(query, key, value, None, Pass(Masks(5, 1), maps), 0.4)
        weight = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(8), -1)
        torch.testing.assert_close(found, Masks(5, 1)(weight, 0.4) @ value, **CLOSE)
        torch.testing.assert_close(maps[0], weight.float())
        kept = attend(query, key, value, None, Pass(Masks(5, 1)), 0.0)
        torch.testing.assert_close(kept, weight @ value, **CLOSE)


class TestSelfAttention:
    @pytest.mark.parametrize("heads", [1, 2, 4])
    @pytest.mark.parametrize("bias", [True, False])
    def test_heads_are_columns_of_three_matrices_one_below_the_other(self, heads: int, bias: bool) -> None:
        layer, x = of(SelfAttention(8, heads, bias, 0.0)), normal(1, 5, 8, seed=9)
        projected = x[0] @ layer.qkv.weight.T + (layer.qkv.bias if bias else 0)
        query, key, value = projected.detach().split(8, 1)
        expected = many_heads(query, key, value, heads) @ layer.out.weight.T + (layer.out.bias if bias else 0)
        torch.testing.assert_close(layer(x, None, Pass())[0], expected, **CLOSE)

    def test_without_a_mask_order_does_not_matter(self) -> None:
        layer, x, order = of(SelfAttention(8, 2, True, 0.0)), normal(2, 5, 8), [3, 0, 4, 1, 2]
        moved = layer(x[:, order], None, Pass())
        torch.testing.assert_close(moved, layer(x, None, Pass())[:, order], **CLOSE)

    def test_the_first_position_sees_only_itself(self) -> None:
        layer, x = of(SelfAttention(8, 2, False, 0.0)), normal(1, 4, 8)
        expected = x[0, 0] @ layer.qkv.weight[16:].T @ layer.out.weight.T
        torch.testing.assert_close(layer(x, causal(4), Pass())[0, 0], expected, **CLOSE)

    @pytest.mark.parametrize("heads", [1, 4])
    @torch.no_grad()
    def test_cached_steps_are_the_full_pass(self, heads: int) -> None:
        layer, x = of(SelfAttention(8, heads, True, 0.0)), normal(3, 6, 8, seed=4)
        cache = KeyValueCache(TransformerConfig(5, 8, 8, heads, decoder_layers=2), 3, 6, torch.float64)
        found = []
        for t in range(6):
            found.append(layer.step(x[:, t], cache, cache.plan(None, 3, 1), 1))
            cache.advance(None, 3, 1)
        torch.testing.assert_close(torch.stack(found, 1), layer(x, causal(6), Pass()), **CLOSE)
        assert not cache.store[0].any()

    @torch.no_grad()
    def test_rows_of_unequal_length_take_a_step_together(self) -> None:
        layer, x = of(SelfAttention(8, 2, True, 0.0)), normal(2, 5, 8, seed=4)
        cache = KeyValueCache(TransformerConfig(5, 8, 8, 2, decoder_layers=1), 2, 5, torch.float64)
        for row, count in enumerate((4, 2)):
            for t in range(count):
                layer.step(x[row : row + 1, t], cache, cache.plan([row], 1, 1), 0)
                cache.advance([row], 1, 1)
        found = layer.step(torch.stack((x[0, 4], x[1, 2])), cache, cache.plan(None, 2, 1), 0)
        whole = layer(x, causal(5), Pass())
        torch.testing.assert_close(found, torch.stack((whole[0, 4], whole[1, 2])), **CLOSE)


class TestCrossAttention:
    @pytest.mark.parametrize("bias", [True, False])
    def test_queries_are_of_the_target_keys_and_values_of_the_source(self, bias: bool) -> None:
        layer, x, memory = of(CrossAttention(6, 3, bias, 0.0)), normal(1, 2, 6), normal(1, 5, 6, seed=1)
        query = x[0] @ layer.query.weight.T + (layer.query.bias if bias else 0)
        both = memory[0] @ layer.kv.weight.T + (layer.kv.bias if bias else 0)
        key, value = both.detach().split(6, 1)
        expected = many_heads(query.detach(), key, value, 3) @ layer.out.weight.T
        expected = expected + (layer.out.bias if bias else 0)
        torch.testing.assert_close(layer(x, memory, None, Pass())[0], expected, **CLOSE)

    def test_remembered_keys_and_values_give_the_same(self) -> None:
        layer, x, memory = of(CrossAttention(8, 2, True, 0.0)), normal(2, 3, 8), normal(2, 4, 8, seed=1)
        key, value = layer.remember(memory)
        assert key.shape == value.shape == (2, 2, 4, 4)
        mask = hiding(4, [set(), {3}])
        whole = layer(x, memory, mask, Pass())
        for t in range(3):
            found = layer.look(x[:, t : t + 1], key, value, mask, Pass())
            torch.testing.assert_close(found[:, 0], whole[:, t], **CLOSE)

    @given(st.permutations(range(5)), seeds)
    def test_the_order_of_the_source_does_not_matter(self, order: list[int], seed: int) -> None:
        layer, x = of(CrossAttention(4, 2, False, 0.0)), normal(1, 2, 4, seed=seed)
        memory, mask = normal(1, 5, 4, seed=seed + 1), hiding(5, [{1, 2}])
        moved = layer(x, memory[:, order], mask[..., order], Pass())
        torch.testing.assert_close(moved, layer(x, memory, mask, Pass()), **CLOSE)

    def test_a_source_of_one_token_is_all_there_is_to_see(self) -> None:
        layer, memory = of(CrossAttention(4, 2, False, 0.0)), normal(1, 1, 4)
        expected = memory[0] @ layer.kv.weight[4:].T @ layer.out.weight.T
        for seed in range(3):
            found = layer(normal(1, 3, 4, seed=seed), memory, None, Pass())[0]
            torch.testing.assert_close(found, expected.expand(3, 4), **CLOSE)

    def test_padding_changes_nothing_and_is_taught_nothing(self) -> None:
        layer, x, memory = of(CrossAttention(8, 2, True, 0.0)), normal(1, 3, 8), normal(1, 6, 8, seed=1)
        memory.requires_grad_(True)
        found = layer(x, memory, hiding(6, [{4, 5}]), Pass())
        torch.testing.assert_close(found, layer(x, memory[:, :4], None, Pass()), **CLOSE)
        (grad,) = torch.autograd.grad(found.square().sum(), memory)
        assert not grad[:, 4:].any() and grad[:, :4].any(-1).all()


class TestMasks:
    @given(st.floats(2**-16, 0.99), seeds, st.integers(0, 10**6))
    def test_each_element_takes_16_bits_of_one_stream(self, p: float, seed: int, step: int) -> None:
        cut = round(p * 65536)
        random = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, step])))
        stream, scale = Masks(seed, step), 65536 / (65536 - cut)
        for shape in ((3, 4), (8,), (2, 2, 6)):
            number = np.frombuffer(random.bytes(2 * math.prod(shape)), dtype=np.int16).astype(int)
            expected = torch.from_numpy(np.where(number + 32768 < cut, 0.0, scale)).view(shape)
            assert torch.equal(stream(torch.ones(shape, dtype=torch.float64), p), expected)

    def test_the_border_itself_is_kept(self) -> None:
        """Of 400,000 numbers some are exactly the border of p = 1/2, which in two's complement is 0."""
        number = np.frombuffer(
            np.random.Generator(np.random.SFC64(np.random.SeedSequence([9]))).bytes(800_000), np.int16
        )
        dropped = Masks(9)(torch.ones(400_000), 0.5)
        assert (number == 0).any() and torch.equal(dropped != 0, torch.from_numpy(number >= 0))

    def test_every_place_is_kept_as_often_as_it_should_and_is_unbiased(self) -> None:
        """Over 4,000 steps of one seed, at each of 50 places: within five standard errors."""
        x = normal(50, seed=3)
        mean = torch.stack([Masks(7, step)(x, 0.3) for step in range(4000)]).mean(0) / x
        assert (mean - 1).abs().max() < 5 * math.sqrt(0.3 / 0.7 / 4000)

    def test_steps_and_draws_are_independent(self) -> None:
        """Two masks of p = 1/2 agree at half of the places: 10,000 of them, within five standard errors."""
        x, stream = torch.ones(10_000), Masks(1, 1)
        first = stream(x, 0.5)
        for other in (stream(x, 0.5), Masks(1, 2)(x, 0.5), Masks(2, 1)(x, 0.5)):
            assert abs((first == other).double().mean().item() - 0.5) < 5 * 0.005

    def test_nothing_of_torchs_or_numpys_generators_is_used(self) -> None:
        x = torch.ones(40)
        before, numbers = torch.get_rng_state(), str(np.random.get_state())
        first = Masks(3)(x, 0.5)
        torch.randn(5)
        assert torch.equal(Masks(3)(x, 0.5), first)
        torch.set_rng_state(before)
        Masks(3)(x, 0.5)
        assert torch.equal(torch.get_rng_state(), before) and str(np.random.get_state()) == numbers

    def test_a_share_below_half_of_a_bit_is_none(self) -> None:
        x = torch.ones(1000)
        assert Masks(0)(x, 2**-17) is x and Masks(0)(x, 2**-18) is x
        assert Masks(0)(x, 2**-16).max().item() == pytest.approx(65536 / 65535)
        assert Masks(0)(x, 0.999999).isfinite().all()

    def test_negative_seeds_are_seeds(self) -> None:
        x = torch.ones(100)
        assert torch.equal(Masks(-1)(x, 0.5), Masks(2**64 - 1)(x, 0.5))
        assert not torch.equal(Masks(-1)(x, 0.5), Masks(1)(x, 0.5))

    @pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
    def test_the_dtype_stays_and_so_does_x(self, kind: torch.dtype) -> None:
        x = torch.ones(6, 4, dtype=kind).t()
        dropped = Masks(2)(x, 0.5)
        assert dropped.dtype == kind and dropped.shape == (4, 6) and (x == 1).all()
        assert torch.equal(dropped, Masks(2)(torch.ones(4, 6, dtype=kind), 0.5))

    def test_a_pass_without_masks_drops_nothing(self) -> None:
        x = torch.ones(100)
        assert Pass().drop(x, 0.9) is x
        assert torch.equal(Pass(Masks(4)).drop(x, 0.9), Masks(4)(x, 0.9))
