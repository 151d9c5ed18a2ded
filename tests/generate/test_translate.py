"""Cached decoding of the encoder-decoder against the obvious one, and against looking at every possible target."""

from __future__ import annotations

import pytest
import torch

from lineal.errors import UsageError
from lineal.generate.attention import look
from lineal.generate.beam import BeamSearch
from lineal.generate.translate import Ids, best_texts, padded, padding_mask, translate
from lineal.models.transformer import Transformer, TransformerConfig

IDS = Ids(start=1, end=2, pad=0)
SOURCES = [[5, 9, 3, 2], [3, 2], [8, 7, 6, 5, 4, 3, 8, 2], [4, 4, 4, 2], [2]]


def tiny(vocab: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64) -> Transformer:
    """A model with opinions, whose sentences end at different lengths."""
    config = TransformerConfig(vocab, 16, 24, 2, 2, 2, context=30, logit_bias=True)
    model = Transformer(config).initialise(seed)
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=made)
        # Random models seldom end by themselves.
        assert model.logit_bias is not None
        model.logit_bias[2] = 2.0
    return model.to(dtype).eval()


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_cached_is_uncached_and_batched_is_single(beams: int, alpha: float) -> None:
    lengths = set()
    for seed in range(4):
        model, search = tiny(seed=seed), BeamSearch(beams, max_new_tokens=12, length_penalty=alpha)
        fast = translate(model, SOURCES, search, IDS)
        slow = translate(model, SOURCES, search, IDS, cached=False)
        single = [translate(model, [source], search, IDS)[0] for source in SOURCES]
        few = translate(model, SOURCES, BeamSearch(beams, 12, alpha, max_batch=2 * beams), IDS)
        for one, *others in zip(fast, slow, single, few, strict=True):
            for other in others:
                assert [h.completion.ids for h in one] == [h.completion.ids for h in other]
                assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-10)
            lengths |= {len(h.completion.ids) for h in one}
    # Otherwise nothing was reordered, dropped or forgotten on the way.
    assert len(lengths) >= 3


def test_float32_takes_the_same_tokens() -> None:
    """In training's own precision, on sentences that run to the limit: 30 tokens, beam 4."""
    model = tiny(40, seed=2, dtype=torch.float32)
    sources = [[3 + (7 * i + j) % 37 for j in range(3 + i)] for i in range(6)]
    search = BeamSearch(4, max_new_tokens=29)
    one, other = translate(model, sources, search, IDS), translate(model, sources, search, IDS, cached=False)
    assert [[h.completion.ids for h in row] for row in one] == [
        [h.completion.ids for h in row] for row in other
    ]


def test_scores_are_the_models_own() -> None:
    model, search = tiny(), BeamSearch(3, max_new_tokens=9, length_penalty=0.7)
    for source, hypotheses in zip(SOURCES, translate(model, SOURCES, search, IDS), strict=True):
        for h in hypotheses:
            ids = h.completion.ids
            given = torch.tensor([[IDS.start, *ids[:-1]]])
            logp_TV = model.logits(model(torch.tensor([source]), given))[0].log_softmax(-1)
            expected = logp_TV.gather(1, torch.tensor(ids)[:, None]).sum().item()
            assert sum(h.completion.logp) == pytest.approx(expected, abs=1e-10)
            assert h.score == pytest.approx(expected / len(ids) ** 0.7, abs=1e-10)


def test_a_beam_of_one_is_greedy() -> None:
    model = tiny(seed=1)
    for source, (best,) in zip(SOURCES, translate(model, SOURCES, BeamSearch(1, 15), IDS), strict=True):
        ids: list[int] = []
        while len(ids) < 15 and (not ids or ids[-1] != IDS.end):
            logits_V = model.logits(model(torch.tensor([source]), torch.tensor([[IDS.start, *ids]])))[0, -1]
            logits_V[[IDS.start, IDS.pad]] = -torch.inf
            ids.append(int(logits_V.argmax()))
        assert list(best.completion.ids) == ids


def test_start_and_pad_are_never_written() -> None:
    for seed in range(3):
        for hypotheses in translate(tiny(5, seed), [[3, 4, 2]] * 2, BeamSearch(4, 10), IDS):
            assert not {IDS.start, IDS.pad} & {i for h in hypotheses for i in h.completion.ids}


def test_the_end_is_no_part_of_the_text() -> None:
    found = translate(tiny(), SOURCES, BeamSearch(2, 12), IDS)
    for ids, hypotheses in zip(best_texts(found, IDS.end), found, strict=True):
        assert IDS.end not in ids and len(ids) >= len(hypotheses[0].completion.ids) - 1


@pytest.mark.parametrize("source", [[], [3] * 31])
def test_a_source_that_cannot_be_read_is_refused(source: list[int]) -> None:
    with pytest.raises(UsageError, match=rf"source 1 has {len(source)} tokens"):
        translate(tiny(), [[3, 2], source], BeamSearch(1, 5), IDS)


def test_mode_comes_back() -> None:
    model = tiny().train()
    translate(model, SOURCES, BeamSearch(1, 3), IDS)
    assert model.training


def test_padding() -> None:
    assert padded([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert padding_mask([[1, 2], [3, 4]]) is None
    mask = padding_mask([[1, 2], [3]])
    assert mask is not None and mask[:, 0, 0].tolist() == [[0, 0], [0, -torch.inf]]


def test_attention_rows_sum_to_one_and_look_back_only() -> None:
    seen = look(tiny(), [3, 4, 5, 2], [1, 6, 7])
    assert seen.encoder_LHSS.shape == (2, 2, 4, 4) and seen.cross_LHTS.shape == (2, 2, 3, 4)
    for weights in (seen.encoder_LHSS, seen.decoder_LHTT, seen.cross_LHTS):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert not seen.decoder_LHTT.triu(1).any() and (seen.decoder_LHTT[..., 0, 0] == 1).all()
