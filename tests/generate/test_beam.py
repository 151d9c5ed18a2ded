"""Beam search against looking at every possible completion of a small model."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lineal.errors import UsageError
from lineal.generate.beam import BeamSearch
from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder

PROMPTS = [[1, 2], [3], [1, 2, 3]]


@pytest.fixture(scope="module")
def small(make) -> Decoder:
    """Four tokens, so that all completions of four can be counted: 3 + 9 ... at most 4^4."""
    return make(vocab_size=4, width=8, inner=32, context=9, seed=5)


@torch.no_grad()
def everything(
    model: Decoder, prompt: list[int], longest: int, alpha: float
) -> list[tuple[float, tuple[int, ...]]]:
    """Every completion with its score, best first; token 0 ends."""
    found = []

    def extend(ids: tuple[int, ...], total: float) -> None:
        if ids and (ids[-1] == 0 or len(ids) == longest):
            found.append((total / len(ids) ** alpha, ids))
            return
        logp_V = model.logits(model(torch.tensor([[*prompt, *ids]])))[0, -1].log_softmax(-1)
        for token in range(4):
            extend((*ids, token), total + logp_V[token].item())

    extend((), 0.0)
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_completions(small: Decoder, alpha: float) -> None:
    found = BeamSearch(beams=64, max_new_tokens=4, length_penalty=alpha)(small, PROMPTS, 0)
    for prompt, hypotheses in zip(PROMPTS, found, strict=True):
        best = everything(small, prompt, 4, alpha)[: len(hypotheses)]
        assert len(hypotheses) == 64
        assert [h.completion.ids for h in hypotheses] == [ids for _, ids in best]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in best], abs=1e-12)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_a_narrow_beam_gives_true_scores_in_order(small: Decoder, beams: int) -> None:
    search = BeamSearch(beams=beams, max_new_tokens=6, length_penalty=0.7)
    for prompt, hypotheses in zip(PROMPTS, search(small, PROMPTS, 0), strict=True):
        assert 1 <= len(hypotheses) <= beams
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for h in hypotheses:
            ids, logp = h.completion.ids, h.completion.logp
            with torch.no_grad():
                logp_TV = small.logits(small(torch.tensor([[*prompt, *ids]])))[0].log_softmax(-1)
            exact = [logp_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(ids)]
            assert logp == pytest.approx(exact, abs=1e-12)
            assert h.score == pytest.approx(sum(exact) / len(ids) ** 0.7, abs=1e-12)
            assert (h.completion.finish == "stop") == (ids[-1] == 0)
            assert h.completion.finish == "stop" or len(prompt) + len(ids) == 9 or len(ids) == 6


def test_one_prompt_alone_is_the_same_as_among_others(small: Decoder) -> None:
    search = BeamSearch(beams=3, max_new_tokens=5)
    together = search(small, PROMPTS, 0)
    for prompt, hypotheses in zip(PROMPTS, together, strict=True):
        alone = search(small, [prompt], 0)[0]
        assert [h.completion.ids for h in alone] == [h.completion.ids for h in hypotheses]
    in_turns = BeamSearch(beams=3, max_new_tokens=5, max_batch=3)(small, PROMPTS, 0)
    assert [[h.completion.ids for h in g] for g in in_turns] == [
        [h.completion.ids for h in g] for g in together
    ]


def test_one_beam_without_an_end_is_greedy(small: Decoder) -> None:
    greedy = generate(small, PROMPTS, Sampling(max_new_tokens=5, temperature=0))
    found = BeamSearch(beams=1, max_new_tokens=5)(small, PROMPTS)
    assert [g[0].ids for g in greedy] == [g[0].completion.ids for g in found]


def test_blocked_ngrams_occur_once_in_prompt_and_completion(small: Decoder) -> None:
    plain = BeamSearch(beams=3, max_new_tokens=6)
    blocked = BeamSearch(beams=3, max_new_tokens=6, no_repeat_ngram=2)
    repeats = 0
    for prompt, free, kept in zip(PROMPTS, plain(small, PROMPTS), blocked(small, PROMPTS), strict=True):
        repeats += sum(_repeats([*prompt, *h.completion.ids]) for h in free)
        for h in kept:
            assert not _repeats([*prompt, *h.completion.ids])
            ids, logp = h.completion.ids, h.completion.logp
            with torch.no_grad():
                logp_TV = small.logits(small(torch.tensor([[*prompt, *ids]])))[0].log_softmax(-1)
            # Blocking takes tokens away and leaves the probabilities of the others as they are.
            exact = [logp_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(ids)]
            assert logp == pytest.approx(exact, abs=1e-12)
    assert repeats > 0


def _repeats(ids: list[int]) -> bool:
    pairs = list(pairwise(ids))
    return len(set(pairs)) < len(pairs)


def test_it_is_what_transformers_finds(make) -> None:
    transformers = pytest.importorskip("transformers")
    ours = make("gpt2", seed=3)
    shape = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 40}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=13, **shape, bos_token_id=None, eos_token_id=None)
    ).double()
    from lineal.models.hf.maps import GPT2, to_theirs

    tensors = to_theirs(GPT2, ours.config, dict(ours.named_parameters()))
    theirs.load_state_dict({k: v.clone() for k, v in tensors.items()}, strict=False)
    theirs.eval()
    for ngram in (0, 2):
        search = BeamSearch(beams=4, max_new_tokens=9, length_penalty=0.8, no_repeat_ngram=ngram)
        for prompt, hypotheses in zip(PROMPTS, search(ours, PROMPTS), strict=True):
            expected = theirs.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), num_beams=4, max_new_tokens=9,
                do_sample=False, length_penalty=0.8, no_repeat_ngram_size=ngram, num_return_sequences=4, pad_token_id=0,
            )  # fmt: skip
            assert [list(h.completion.ids) for h in hypotheses] == expected[:, len(prompt) :].tolist()


def test_any_of_several_tokens_ends_it(small: Decoder) -> None:
    search = BeamSearch(beams=4, max_new_tokens=6, stop_ids=(1,))
    for hypotheses in search(small, PROMPTS, 0):
        for h in hypotheses:
            *inner, last = h.completion.ids
            assert not {0, 1} & set(inner)
            assert (h.completion.finish == "stop") == (last in (0, 1))


def test_length_penalty_counts_the_end_token() -> None:
    assert BeamSearch(length_penalty=2.0).score(-8.0, 2) == -2.0
    assert BeamSearch(length_penalty=0.0).score(-8.0, 5) == -8.0


@pytest.mark.parametrize(
    "field", ["beams", "max_new_tokens", "length_penalty", "max_batch", "no_repeat_ngram"]
)
def test_settings_that_mean_nothing_are_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} is -1"):
        BeamSearch(**{field: -1})  # type: ignore[arg-type]


def test_a_prompt_that_fills_the_context_is_refused(small: Decoder) -> None:
    with pytest.raises(UsageError, match="context is 9"):
        BeamSearch()(small, [[1] * 9], 0)
