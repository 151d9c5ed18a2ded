"""The flat one-token pass against the decoder's own, for every layout, even and ragged rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lineal.generate.step import FlatPass, one_token_pass
from lineal.models.cache import KeyValueCache
from lineal.models.decoder import PRESETS


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_it_is_the_decoders_own_pass(make, layout: str, ragged: bool, rows: int) -> None:
    model = make(layout)
    assert isinstance(one_token_pass(model), FlatPass)
    generator = torch.Generator().manual_seed(1)
    token_BT = torch.randint(13, (rows, 20), generator=generator)
    lengths = [5, 2, 4][:rows] if ragged else [4] * rows
    caches = []
    for _ in range(2):
        caches.append(KeyValueCache(model.config, 4, 20, torch.float64))
        model(token_BT[:, : max(lengths)], cache=caches[-1])
        caches[-1].cut(range(rows), lengths)
    flat = FlatPass(model)
    for t in range(8):
        token_B = token_BT[:, 8 + t]
        plans = [cache.plan(slice(0, rows), rows, 1) for cache in caches]
        expected = model.forward_step(token_B[:, None], caches[0], plans[0])[:, 0]
        torch.testing.assert_close(flat(token_B, caches[1], plans[1]), expected, rtol=0, atol=1e-12)
        for cache in caches:
            cache.advance(slice(0, rows), rows, 1)
    torch.testing.assert_close(caches[0].store, caches[1].store, rtol=0, atol=1e-12)


def test_it_matches_a_whole_forward_pass(make) -> None:
    model = make("qwen3")
    token_BT = torch.randint(13, (2, 12), generator=torch.Generator().manual_seed(0))
    cache, flat, found = KeyValueCache(model.config, 2, 12, torch.float64), FlatPass(model), []
    for t in range(12):
        found.append(flat(token_BT[:, t], cache, cache.plan(None, 2, 1)))
        cache.advance(None, 2, 1)
    torch.testing.assert_close(torch.stack(found, 1), model(token_BT), rtol=0, atol=1e-12)


def test_what_is_not_exactly_as_written_goes_the_decoders_own_way(make) -> None:
    class Adapter(nn.Linear):
        """Stands for LoRA and its like."""

    model = make()
    model.blocks[0].mlp.down = Adapter(96, 24, bias=False)
    assert not isinstance(one_token_pass(model), FlatPass)
    hooked = make()
    hooked.blocks[1].register_forward_hook(lambda *_: None)
    assert not isinstance(one_token_pass(hooked), FlatPass)
    with torch.autocast("cpu", torch.bfloat16):
        assert not isinstance(one_token_pass(make(dtype=torch.float32)), FlatPass)
    assert not isinstance(one_token_pass(make().to("meta")), FlatPass)


def test_large_models_keep_one_copy_of_their_weights(make, monkeypatch) -> None:
    monkeypatch.setattr("lineal.generate.step.FLAT_PARAMETERS", 100)
    assert not isinstance(one_token_pass(make()), FlatPass)
