"""Which way a decoder's one-token step takes."""

from __future__ import annotations

import torch
from torch import nn

from lineal.generate.flat import FlatPass
from lineal.generate.step import one_token_pass
from lineal.models.cache import KeyValueCache


class Adapter(nn.Linear):
    """Stands for LoRA and its like."""


def test_a_small_decoder_on_a_cpu_goes_the_flat_way(make) -> None:
    for dtype in (torch.float32, torch.float64):
        assert isinstance(one_token_pass(make(dtype=dtype)), FlatPass)


def test_what_is_not_exactly_as_written_goes_the_decoders_own_way(make) -> None:
    model = make()
    model.blocks[0].mlp.down = Adapter(96, 24, bias=False)
    assert not isinstance(one_token_pass(model), FlatPass)
    hooked = make()
    hooked.blocks[1].register_forward_hook(lambda *_: None)
    assert not isinstance(one_token_pass(hooked), FlatPass)
    with torch.autocast("cpu", torch.bfloat16):
        assert not isinstance(one_token_pass(make(dtype=torch.float32)), FlatPass)
    assert not isinstance(one_token_pass(make(dtype=torch.bfloat16)), FlatPass)
    assert not isinstance(one_token_pass(make().to("meta")), FlatPass)


def test_large_models_keep_one_copy_of_their_weights(make, monkeypatch) -> None:
    monkeypatch.setattr("lineal.generate.step.FLAT_PARAMETERS", 100)
    assert not isinstance(one_token_pass(make()), FlatPass)


def test_both_ways_lead_to_the_same_place(make) -> None:
    model, adapted = make(), make()
    down = adapted.blocks[0].mlp.down
    adapter = Adapter(96, 24, bias=False).double()
    adapter.weight = down.weight
    adapted.blocks[0].mlp.down = adapter
    found = []
    for decoder in (model, adapted):
        cache = KeyValueCache(decoder.config, 2, 5, torch.float64)
        read = one_token_pass(decoder)
        for t in range(5):
            hidden_ND = read(torch.tensor([t, 7]), cache, cache.plan(None, 2, 1))
            cache.advance(None, 2, 1)
        found.append(hidden_ND)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
