"""What every causal decoder promises, checked on each layout."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.models.attention import KeyValueCache
from lineal.models.decoder import PRESETS, Decoder

VOCAB, CONTEXT = 11, 16


def make(layout: str) -> Decoder:
    shape = {"vocab_size": VOCAB, "width": 16, "layers": 2, "heads": 4, "inner": 64, "context": CONTEXT}
    decoder = Decoder(PRESETS[layout](**shape)).initialise(0).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return decoder


DECODERS = {layout: make(layout) for layout in PRESETS}
layouts = pytest.mark.parametrize("layout", list(PRESETS))


@st.composite
def tokens(draw: st.DrawFn, rows: tuple[int, int] = (1, 3)) -> torch.Tensor:
    """A rectangle of ids."""
    shape = draw(st.integers(*rows)), draw(st.integers(1, CONTEXT))
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 999))))


@torch.no_grad()
def logits(layout: str, token_BT: torch.Tensor) -> torch.Tensor:
    return DECODERS[layout].logits(DECODERS[layout](token_BT))


@layouts
@given(token_BT=tokens(), data=st.data())
def test_a_future_token_cannot_change_past_logits(layout, token_BT, data):
    t = data.draw(st.integers(0, token_BT.shape[1] - 1))
    changed = token_BT.clone()
    changed[:, t:] = (changed[:, t:] + 1) % VOCAB
    before, after = logits(layout, token_BT), logits(layout, changed)
    torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-12)
    assert (after[:, t] - before[:, t]).abs().max() > 1e-6


@layouts
@given(token_BT=tokens())
def test_a_past_token_changes_later_logits(layout, token_BT):
    changed = token_BT.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCAB
    difference = (logits(layout, changed) - logits(layout, token_BT)).abs().amax(-1)
    assert (difference > 1e-9).all()


@layouts
@given(token_BT=tokens(), data=st.data())
def test_cached_equals_uncached(layout, token_BT, data):
    decoder = DECODERS[layout]
    rows, width = token_BT.shape
    cuts = sorted(data.draw(st.sets(st.integers(1, width - 1))) if width > 1 else [])
    cache = KeyValueCache(decoder.config, rows, width, torch.float64)
    bounds = [0, *cuts, width]
    parts = [decoder(token_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(bounds)]
    found = decoder.logits(torch.cat(parts, 1)).detach()
    torch.testing.assert_close(found, logits(layout, token_BT), rtol=0, atol=1e-10)


@layouts
@given(token_BT=tokens(), padding=st.integers(0, 5), pad=st.integers(0, VOCAB - 1))
def test_right_padding_is_harmless(layout, token_BT, padding, pad):
    width = min(CONTEXT, token_BT.shape[1] + padding)
    padded = torch.full((len(token_BT), width), pad)
    padded[:, : token_BT.shape[1]] = token_BT
    found = logits(layout, padded)[:, : token_BT.shape[1]]
    torch.testing.assert_close(found, logits(layout, token_BT), rtol=0, atol=1e-12)


@layouts
@given(token_BT=tokens(rows=(2, 4)))
def test_rows_of_a_batch_are_independent(layout, token_BT):
    whole = logits(layout, token_BT)
    for row in range(len(token_BT)):
        alone = logits(layout, token_BT[row : row + 1])[0]
        torch.testing.assert_close(whole[row], alone, rtol=0, atol=1e-12)


@layouts
def test_padding_gets_exactly_no_gradient(layout):
    decoder = make(layout)
    token_BT = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    grads = []
    for pad in (0, 9):
        token_BT[0, 3:] = pad
        decoder.zero_grad()
        logp = decoder.logits(decoder(token_BT)).log_softmax(-1)
        (logp[0, :3, 1].sum() + logp[1, :, 1].sum()).backward()
        grads.append(
            [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in decoder.parameters()]
        )
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
