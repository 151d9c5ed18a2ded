"""The flat one-token pass against the decoder's own, for every layout, few and many rows, even and ragged."""

from __future__ import annotations

import pytest
import torch

from lineal.generate import between
from lineal.generate.between import rows_core
from lineal.generate.flat import FEW, TURN_AFTER, FlatPass
from lineal.models.cache import KeyValueCache
from lineal.models.decoder import PRESETS, Decoder

LENGTHS = [5, 2, 4, 1, 3, 5, 2]


def compare(model: Decoder, rows: int, ragged: bool, tolerance: float = 1e-12) -> None:
    """Both passes read the same tokens after the same prompts; hidden states and caches must agree."""
    token_BT = torch.randint(13, (rows, 20), generator=torch.Generator().manual_seed(1))
    lengths = LENGTHS[:rows] if ragged else [4] * rows
    caches = []
    for _ in range(2):
        caches.append(KeyValueCache(model.config, rows + 1, 20, model.dtype))
        model(token_BT[:, : max(lengths)], cache=caches[-1])
        caches[-1].cut(range(rows), lengths)
    flat, here = FlatPass(model), slice(0, rows)
    for t in range(TURN_AFTER + 6):
        token_B = token_BT[:, 8 + t]
        plans = [cache.plan(here, rows, 1) for cache in caches]
        expected = model.forward_step(token_B[:, None], caches[0], plans[0])[:, 0]
        torch.testing.assert_close(flat(token_B, caches[1], plans[1]), expected, rtol=0, atol=tolerance)
        for cache in caches:
            cache.advance(here, rows, 1)
    torch.testing.assert_close(caches[0].store, caches[1].store, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 7])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_it_is_the_decoders_own_pass(make, layout: str, ragged: bool, rows: int) -> None:
    compare(make(layout), rows, ragged)


@pytest.mark.parametrize("ragged", [False, True])
def test_with_several_threads_torch_reads_the_cache(make, ragged: bool) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compare(make("qwen3"), 7, ragged)
    finally:
        torch.set_num_threads(threads)


def test_threads_share_a_large_caches_rows(make, monkeypatch) -> None:
    monkeypatch.setattr(between, "SHARED_ABOVE", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for rows, ragged in ((1, False), (2, True), (7, True)):
            compare(make("qwen3", torch.float32), rows, ragged, 1e-4)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_float32_agrees_as_well_as_float32_can(make, monkeypatch, layout: str, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setenv("LINEAL_COMPILED", "0")
    elif rows_core() is None:
        pytest.skip("nothing was compiled at install")
    for rows, ragged in ((3, True), (1, False), (7, False)):
        compare(make(layout, torch.float32), rows, ragged, 1e-4)


@pytest.mark.parametrize("rows", [1, 5])
def test_it_matches_a_whole_forward_pass_while_rows_leave(make, rows: int) -> None:
    model = make("qwen2")
    token_BT = torch.randint(13, (rows, 14), generator=torch.Generator().manual_seed(0))
    cache, flat = KeyValueCache(model.config, rows, 14, torch.float64), FlatPass(model)
    expected_BTD = model(token_BT)
    for t in range(14):
        left = max(1, rows - t // 3)
        here = slice(0, left)
        hidden_BD = flat(token_BT[:left, t].contiguous(), cache, cache.plan(here, left, 1))
        torch.testing.assert_close(hidden_BD, expected_BTD[:left, t], rtol=0, atol=1e-12)
        cache.advance(here, left, 1)


def test_answers_are_not_overwritten_by_the_next_step(make) -> None:
    model = make()
    cache, flat = KeyValueCache(model.config, 1, 9, torch.float64), FlatPass(model)
    first = flat(torch.tensor([3]), cache, cache.plan(None, 1, 1))
    kept = first.clone()
    cache.advance(None, 1, 1)
    flat(torch.tensor([4]), cache, cache.plan(None, 1, 1))
    assert torch.equal(first, kept)


def test_extreme_gates_give_limits_and_no_warnings(make, recwarn) -> None:
    model = make(dtype=torch.float32)
    with torch.no_grad():
        model.blocks[0].mlp.gate_up.weight *= 1e4
    cache = KeyValueCache(model.config, 1, 9)
    step = cache.plan(None, 1, 1)
    found = FlatPass(model)(torch.tensor([3]), cache, step)
    assert found.isfinite().all()
    torch.testing.assert_close(
        found, model.forward_step(torch.tensor([[3]]), cache, step)[:, 0], rtol=1e-4, atol=1e-4
    )
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_the_weights_are_left_alone(make) -> None:
    model = make()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    compare(model, 2, True)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
