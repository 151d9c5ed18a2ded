"""The key-value cache: what is read through it is what would be read without it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.models.attention import KeyValueCache
from lineal.models.decoder import Decoder, llama_config


def tiny(layers: int = 2) -> Decoder:
    config = llama_config(13, 16, layers, 4, 32, 24, kv_heads=2)
    return Decoder(config).initialise(0).double().eval()


def make_cache(decoder: Decoder, slots: int = 6, length: int = 24) -> KeyValueCache:
    return KeyValueCache(decoder.config, slots, length, decoder.dtype)


def test_token_by_token_equals_all_at_once(build, layout, token_BT):
    decoder = build(layout)
    cache = make_cache(decoder)
    parts = [decoder(token_BT[:, :5], cache=cache)]
    parts += [decoder(token_BT[:, t : t + 1], cache=cache) for t in range(5, 12)]
    torch.testing.assert_close(torch.cat(parts, 1), decoder(token_BT))
    assert cache.lengths == [12, 12, 12, 0, 0, 0]
    assert cache.length_B.tolist() == cache.lengths


@pytest.mark.parametrize("rows", [slice(2, 5), [4, 1, 3]])
def test_rows_may_stand_anywhere_and_have_any_length(build, layout, token_BT, rows):
    decoder = build(layout)
    cache = make_cache(decoder)
    lengths = [3, 7, 5]
    decoder(token_BT[:, :7], cache=cache, rows=rows)
    numbers = list(range(6))[rows] if isinstance(rows, slice) else rows
    cache.cut(numbers, lengths)
    exact = decoder(token_BT)
    for step in range(4):
        at = [length + step for length in lengths]
        token_B1 = token_BT[torch.arange(3), at][:, None]
        hidden = decoder(token_B1, cache=cache, rows=rows)
        torch.testing.assert_close(hidden[:, 0], exact[torch.arange(3), at])


def test_several_tokens_may_follow_rows_of_different_lengths(build, layout, token_BT):
    decoder = build(layout)
    cache = make_cache(decoder)
    lengths = [3, 7, 5]
    decoder(token_BT[:, :7], cache=cache)
    cache.cut([0, 1, 2], lengths)
    more = torch.stack([token_BT[b, n : n + 4] for b, n in enumerate(lengths)])
    hidden = decoder(more, cache=cache)
    exact = decoder(token_BT)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(hidden[b], exact[b, n : n + 4])


def test_positions_given_set_the_lengths(build, layout, token_BT):
    decoder = build(layout)
    cache = make_cache(decoder)
    decoder(token_BT[:, :7], cache=cache)
    position_B1 = torch.tensor([[3], [7], [5]])
    token_B1 = token_BT.gather(1, position_B1)
    hidden = decoder(token_B1, position_B1, cache=cache)
    torch.testing.assert_close(hidden[:, 0], decoder(token_BT)[torch.arange(3), position_B1[:, 0]])
    assert cache.lengths[:3] == [4, 8, 6]


def test_a_shared_prompt_is_read_once(build, layout, token_BT):
    decoder = build(layout)
    cache = make_cache(decoder)
    decoder(token_BT[:1, :6], cache=cache, rows=[2])
    cache.copy(2, [0, 1, 2, 4])
    assert cache.lengths == [6, 6, 6, 0, 6, 0]
    hidden = decoder(token_BT[:, 6:7], cache=cache, rows=[0, 1, 4])
    whole = torch.cat((token_BT[:1, :6].expand(3, 6), token_BT[:, 6:7]), 1)
    torch.testing.assert_close(hidden, decoder(whole)[:, 6:])


def test_static_steps_equal_planned_ones(build, layout, token_BT):
    decoder = build(layout)
    planned, static = make_cache(decoder), make_cache(decoder)
    for cache in (planned, static):
        decoder(token_BT[:, :7], cache=cache)
        cache.cut([0, 1, 2], [3, 7, 5])
    position_B1 = torch.tensor([[3], [7], [5]])
    token_B1 = token_BT.gather(1, position_B1)
    hidden = decoder.forward_step(token_B1, static, static.plan_static(position_B1))
    torch.testing.assert_close(hidden, decoder(token_B1, cache=planned))


@given(st.data())
def test_compact_keeps_the_rows_and_their_memory(data):
    slots = data.draw(st.integers(1, 6))
    keep = data.draw(st.lists(st.integers(0, slots - 1), unique=True))
    decoder = tiny(1)
    cache = make_cache(decoder, slots, 8)
    token_BT = torch.arange(slots)[:, None].expand(slots, 3)
    decoder(token_BT, cache=cache)
    cache.cut(range(slots), [1 + slot % 3 for slot in range(slots)])
    before, lengths = cache.store.clone(), list(cache.lengths)
    order = cache.compact(keep)
    assert sorted(order) == sorted(keep)
    for slot, source in enumerate(order):
        assert cache.lengths[slot] == lengths[source]
        held = slice(0, lengths[source])
        assert torch.equal(cache.store[:, :, slot, :, held], before[:, :, source, :, held])
    assert not any(cache.lengths[len(keep) :])
    unmoved = [slot for slot in keep if slot < len(keep)]
    assert all(order[slot] == slot for slot in unmoved)


def test_rows_leave_and_others_join(build, layout, token_BT):
    decoder = build(layout)
    cache = make_cache(decoder)
    decoder(token_BT[:, :4], cache=cache)
    order = cache.compact([1, 2])
    decoder(token_BT[:1, :6], cache=cache, rows=[2])
    rows_BT = token_BT[[*order, 0]]
    lengths = [4, 4, 6]
    token_B1 = torch.stack([rows_BT[b, n : n + 1] for b, n in enumerate(lengths)])
    hidden = decoder(token_B1, cache=cache, rows=slice(0, 3))
    exact = decoder(rows_BT)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(hidden[b, 0], exact[b, n])


def test_adopted_rows_and_grown_memory_read_the_same(build, layout, token_BT):
    decoder = build(layout)
    small, large = make_cache(decoder, 2, 6), make_cache(decoder, 6, 8)
    decoder(token_BT[:2, :6], cache=small)
    small.cut([1], [4])
    large.adopt(small, [1, 0, 1], 1)
    assert large.lengths == [0, 4, 6, 4, 0, 0]
    large.grow(20)
    assert large.length == 20
    token_B1 = torch.stack([token_BT[1, 4:5], token_BT[0, 6:7], token_BT[1, 4:5]])
    hidden = decoder(token_B1, cache=large, rows=slice(1, 4))
    exact = decoder(token_BT)
    torch.testing.assert_close(hidden[:, 0], torch.stack([exact[1, 4], exact[0, 6], exact[1, 4]]))


def test_what_lies_beyond_a_row_is_never_seen(build, layout, token_BT):
    decoder = build(layout)
    clean, dirty = make_cache(decoder), make_cache(decoder)
    for cache in (clean, dirty):
        decoder(token_BT[:, :6], cache=cache)
        cache.cut([0, 1, 2], [2, 6, 4])
    for row, length in enumerate(dirty.lengths[:3]):
        dirty.store[:, :, row, :, length:] = 1e6
    token_B1 = token_BT[:, :1]
    assert torch.equal(decoder(token_B1, cache=dirty), decoder(token_B1, cache=clean))


def test_no_gradient_flows_through_a_cache(build, token_BT):
    decoder = build("llama")
    assert not decoder(token_BT, cache=make_cache(decoder)).requires_grad


def test_misuse_is_refused():
    decoder = tiny(1)
    with pytest.raises(UsageError, match="context is 24"):
        make_cache(decoder, 1, 25)
    cache = make_cache(decoder, 2, 4)
    token_BT = torch.zeros(2, 3, dtype=torch.int64)
    decoder(token_BT, cache=cache)
    with pytest.raises(UsageError, match="the cache holds 4"):
        decoder(token_BT, cache=cache)
    assert cache.lengths == [3, 3]
    with pytest.raises(UsageError, match="cannot be cut to 4"):
        cache.cut([0], [4])
    with pytest.raises(UsageError, match="2 rows of tokens were given for 1 slots"):
        decoder(token_BT, cache=cache, rows=[0])
    with pytest.raises(UsageError, match="packed documents"):
        decoder(token_BT, segment_BT=token_BT, cache=cache)


def test_its_memory_is_what_it_says():
    cache = KeyValueCache(llama_config(13, 16, 3, 4, 32, 24, kv_heads=2), 5, 10)
    assert cache.bytes == 3 * 5 * 2 * 2 * 10 * 4 * 4
