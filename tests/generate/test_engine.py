"""Batched completions against a naive loop that reads the whole text again for every token."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import NonFiniteError, UsageError
from lineal.generate import engine
from lineal.generate.beam import BeamSearch
from lineal.generate.draw import draw, temper
from lineal.generate.engine import Interrupted, generate
from lineal.generate.penalties import Memory, shape
from lineal.generate.prefill import Speaker
from lineal.generate.random import reference_uniform, row_key
from lineal.generate.recurrent import Recurrent
from lineal.generate.sampling import Sampling
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.cache import KeyValueCache
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.gating import ExpertsConfig
from lineal.models.lstm import LSTMConfig, RecurrentModel
from lineal.types import Completion

PROMPTS = [[3], [5, 1, 7], [2, 2], [12, 11, 10, 9, 8, 7], [5, 1, 7], [4, 0, 4, 1]]
PLAIN = Sampling(max_new_tokens=12)
KINDS = {
    "plain": PLAIN,
    "cool": dataclasses.replace(PLAIN, temperature=0.6),
    "greedy": dataclasses.replace(PLAIN, temperature=0.0),
    "truncated": dataclasses.replace(PLAIN, temperature=1.3, top_k=6, top_p=0.9, min_p=0.02),
    "penalised": dataclasses.replace(
        PLAIN, repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.1
    ),
    "ngram": dataclasses.replace(
        PLAIN, no_repeat_ngram=2, repetition_penalty=1.3, repetition_mode="huggingface"
    ),
    "in another order": dataclasses.replace(
        PLAIN,
        temperature=1.4,
        top_p=0.8,
        frequency_penalty=0.6,
        filter_order=("top_p", "frequency", "temperature"),
    ),
    "greedy, penalised": dataclasses.replace(PLAIN, temperature=0.0, frequency_penalty=0.5),
}


@torch.no_grad()
def naive(model: Speaker, prompt: Sequence[int], s: Sampling, key: int, eos_id: int | None = 0) -> Completion:
    """One completion, reading everything again for each token; no cache, no batch."""
    ids, logps, memory = [], [], Memory(s, 1, model.config.vocab_size)
    memory.join(0, [tuple(prompt)])
    while True:
        logits_1V = model.logits(model(torch.tensor([[*prompt, *ids]]))[:, -1])
        logp_1V = temper(logits_1V, s.temperature)
        shaped_1V = shape(logits_1V.double(), s, memory)
        if s.temperature == 0:
            token = int(shaped_1V.argmax())
        else:
            uniform = torch.tensor([reference_uniform(key, len(ids))])
            token = int(draw(shaped_1V.log_softmax(-1), uniform))
        ids.append(token)
        logps.append(logp_1V[0, token].item())
        memory.push(torch.tensor([token]), len(prompt) + len(ids))
        if token == eos_id or token in s.stop_ids:
            return Completion(tuple(ids), tuple(logps), "stop")
        if len(ids) == s.max_new_tokens or len(prompt) + len(ids) == model.config.context:
            return Completion(tuple(ids), tuple(logps), "length")


def same(found: Completion, expected: Completion) -> None:
    assert found.ids == expected.ids
    assert found.finish == expected.finish
    assert found.logp == pytest.approx(expected.logp, abs=1e-11)


def tokens(groups: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.ids for completion in group] for group in groups]


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_is_the_naive_loop(model: Decoder, kind: str) -> None:
    groups = generate(model, PROMPTS, KINDS[kind], samples=3, seed=4, step=2, eos_id=0)
    for i, (prompt, group) in enumerate(zip(PROMPTS, groups, strict=True)):
        for j, completion in enumerate(group):
            same(completion, naive(model, prompt, KINDS[kind], row_key(4, 2, 3 * i + j)))
    assert {c.finish for group in groups for c in group} == {"stop", "length"} or "greedy" in kind


@pytest.mark.parametrize("layout", list(PRESETS))
def test_every_layout_is_decoded_exactly(make, layout: str) -> None:
    model = make(layout, seed=3)
    groups = generate(model, PROMPTS[:3], PLAIN, samples=2, eos_id=0)
    for i, group in enumerate(groups):
        for j, completion in enumerate(group):
            same(completion, naive(model, PROMPTS[i], PLAIN, row_key(0, 0, 2 * i + j)))


def recurrent(kind: str) -> Recurrent:
    if kind == "awd":
        model = AWDLSTM(AWDConfig(13, 6, 9, 2)).initialise(0)
    else:
        experts = (
            ExpertsConfig(6, 2, 10, activation="relu", gate="noisy_top_k") if kind == "experts" else None
        )
        model = RecurrentModel(LSTMConfig(13, 8, 5, hidden=16, experts=experts)).initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7, generator=torch.Generator().manual_seed(1))
    return Recurrent(model.double())


@pytest.mark.parametrize("kind", ["plain", "experts", "awd"])
@pytest.mark.parametrize("setting", ["plain", "penalised", "greedy", "ngram"])
def test_a_state_is_read_on_as_the_whole_text_is(kind: str, setting: str) -> None:
    model, wanted = recurrent(kind), dataclasses.replace(KINDS[setting], max_batch=5)
    groups = generate(model, PROMPTS, wanted, samples=3, seed=4, step=2, eos_id=0)
    for i, (prompt, group) in enumerate(zip(PROMPTS, groups, strict=True)):
        for j, completion in enumerate(group):
            same(completion, naive(model, prompt, wanted, row_key(4, 2, 3 * i + j)))
    # Longer than the context of training: a state has no end.
    assert len(generate(model, [[3]], dataclasses.replace(PLAIN, max_new_tokens=40))[0][0].ids) == 40


def test_beams_of_a_recurrent_model_are_scored_as_the_whole_text_is() -> None:
    model = recurrent("experts")
    found = BeamSearch(3, 6, 0.0)(model, PROMPTS, 0)
    for prompt, beams in zip(PROMPTS, found, strict=True):
        assert len(beams) == 3
        for hypothesis in beams:
            ids = hypothesis.completion.ids
            with torch.no_grad():
                logp_TV = model.logits(model(torch.tensor([[*prompt, *ids]]))[0]).log_softmax(-1)
            steps = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
            whole = sum(float(logp_TV[t, token]) for t, token in zip(steps, ids, strict=True))
            assert hypothesis.score == pytest.approx(whole, abs=1e-9)


def test_a_recurrent_model_does_not_tell_its_experts() -> None:
    with pytest.raises(UsageError, match="decoders only"):
        generate(recurrent("experts"), [[1]], PLAIN, routes=True)


@settings(max_examples=25)
@given(
    order=st.permutations(range(len(PROMPTS))),
    count=st.integers(1, len(PROMPTS)),
    samples=st.integers(1, 4),
    max_batch=st.integers(1, 9),
    kind=st.sampled_from(["plain", "truncated", "penalised", "ngram", "greedy"]),
)
def test_who_shares_the_batch_changes_nothing(model, order, count, samples, max_batch, kind) -> None:
    chosen = order[:count]
    found = generate(
        model,
        [PROMPTS[i] for i in chosen],
        dataclasses.replace(KINDS[kind], max_batch=max_batch),
        samples=samples,
        sample_ids=[[4 * i + j for j in range(samples)] for i in chosen],
        eos_id=0,
    )
    everything = generate(model, PROMPTS, KINDS[kind], samples=4, eos_id=0)
    assert tokens(found) == [tokens(everything)[i][:samples] for i in chosen]


def test_float32_gives_the_same_tokens_in_999_of_1000_completions(make) -> None:
    model = make(dtype=torch.float32)
    prompts = [[1 + i % 12, 1 + i // 12, 2][: 1 + i % 3] for i in range(36)]
    sizes = (7, 40, 10_000)
    runs = [
        generate(model, prompts, dataclasses.replace(PLAIN, max_batch=size), samples=20, eos_id=0)
        for size in sizes
    ]
    pairs = [(a, b) for g, h in zip(runs[2], runs[0], strict=True) for a, b in zip(g, h, strict=True)]
    pairs += [(a, b) for g, h in zip(runs[2], runs[1], strict=True) for a, b in zip(g, h, strict=True)]
    assert sum(a.ids == b.ids for a, b in pairs) >= 0.999 * len(pairs)


def test_seed_step_and_sample_each_change_the_completion_and_nothing_else_does(model: Decoder) -> None:
    def ids(**options):
        return tokens(generate(model, [[3]], dataclasses.replace(PLAIN, max_new_tokens=30), **options))[0]

    base = ids(seed=1, step=1, samples=3)
    assert len(set(base)) == 3
    assert ids(seed=1, step=1, samples=3) == base
    assert ids(seed=2, step=1)[0] != base[0] != ids(seed=1, step=2)[0]
    assert ids(seed=1, step=1, sample_ids=[[2]]) == base[2:]
    both = generate(model, [[3], [3]], dataclasses.replace(PLAIN, max_new_tokens=30), seed=[1, 9], step=1)
    assert both[0][0].ids == base[0]
    assert both[1][0].ids == ids(seed=9, step=1, sample_ids=[[1]])[0]


def test_it_samples_the_policy(model: Decoder) -> None:
    rows = 4000
    group = generate(model, [[3]], Sampling(max_new_tokens=2, temperature=0.8), samples=rows, seed=11)[0]
    seen = Counter(completion.ids for completion in group)
    with torch.no_grad():
        first_V = (model.logits(model(torch.tensor([[3]]))[0, -1]) / 0.8).softmax(-1)
        inputs = torch.stack((torch.full((13,), 3), torch.arange(13)), 1)
        second_VV = (model.logits(model(inputs)[:, -1]) / 0.8).softmax(-1)
    expected = (rows * first_V[:, None] * second_VV).flatten()
    found = torch.tensor([float(seen[a, b]) for a in range(13) for b in range(13)])
    usual = expected > 5
    statistic = ((found - expected)[usual] ** 2 / expected[usual]).sum()
    freedom = int(usual.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
    for completion in group[:20]:
        a, b = completion.ids
        assert completion.logp == pytest.approx(
            [first_V[a].log().item(), second_VV[a, b].log().item()], abs=1e-11
        )


@pytest.mark.parametrize("max_batch", [1, 4, 100])
def test_each_distinct_prompt_is_read_once(model: Decoder, monkeypatch, max_batch: int) -> None:
    read = []
    forward = Decoder.forward

    def counting(self, token_BT, *rest, **named):
        read.extend(tuple(row) for row in token_BT.tolist())
        return forward(self, token_BT, *rest, **named)

    monkeypatch.setattr(Decoder, "forward", counting)
    generate(model, PROMPTS, dataclasses.replace(PLAIN, max_batch=max_batch), samples=4, eos_id=0)
    padded = [tuple(t for t in row) for row in read]
    assert len(padded) == len({tuple(p) for p in PROMPTS})


def test_the_cache_grows_with_the_completions_and_not_before(model: Decoder, monkeypatch) -> None:
    whole = generate(model, PROMPTS, dataclasses.replace(PLAIN, max_new_tokens=30), samples=2, eos_id=0)
    lengths = []
    monkeypatch.setattr(engine, "CACHE_CHUNK", 2)
    grow = KeyValueCache.grow

    def watched(self, length):
        grow(self, length)
        lengths.append(self.length)

    monkeypatch.setattr(KeyValueCache, "grow", watched)
    again = generate(model, PROMPTS, dataclasses.replace(PLAIN, max_new_tokens=30), samples=2, eos_id=0)
    assert tokens(again) == tokens(whole)
    assert len(lengths) > 1
    assert lengths == sorted(set(lengths))
    assert lengths[-1] <= 36


def test_completions_end_where_they_should(model: Decoder) -> None:
    long = Sampling(max_new_tokens=500)
    for group, prompt in zip(generate(model, PROMPTS, long, eos_id=None), PROMPTS, strict=True):
        assert group[0].finish == "length"
        assert len(group[0].ids) == model.config.context - len(prompt)
    for group in generate(model, PROMPTS, dataclasses.replace(long, stop_ids=(3, 9)), samples=5, eos_id=0):
        for completion in group:
            assert not {0, 3, 9} & set(completion.ids[:-1])
            assert (completion.finish == "stop") == (completion.ids[-1] in (0, 3, 9))
            assert len(completion.ids) == len(completion.logp)


def test_a_stop_string_ends_a_completion_and_its_tokens_are_kept(model: Decoder) -> None:
    letters = "abcdefghijklm"

    def decode(ids):
        return "".join(letters[i] for i in ids)

    free = generate(model, PROMPTS, Sampling(max_new_tokens=34), samples=8, seed=1)
    stops = ("ab", "k", "fe")
    stopped = generate(
        model, PROMPTS, Sampling(max_new_tokens=34, stop=stops), samples=8, seed=1, decode=decode
    )
    ended = 0
    for before, after in zip([c for g in free for c in g], [c for g in stopped for c in g], strict=True):
        text = decode(before.ids)
        ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
        assert decode(after.ids) == text[: min(ends, default=34)]
        assert after.finish == ("stop" if ends else "length")
        ended += bool(ends)
    assert ended > 0


def test_a_cap_and_an_end_at_once_is_an_end(model: Decoder) -> None:
    free = generate(model, [[3]], Sampling(max_new_tokens=30), samples=30, eos_id=0)[0]
    completion = next(c for c in free if c.finish == "stop" and len(c.ids) > 1)
    cap = Sampling(max_new_tokens=len(completion.ids))
    number = free.index(completion)
    again = generate(model, [[3]], cap, sample_ids=[[number]], eos_id=0)[0][0]
    same(again, completion)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1] * 40], {}, "prompt 0 has 40 tokens, .* context is 40"),
        ([[1], [1] * 99], {}, "prompt 1 has 99 tokens, .* context is 40"),
        ([[1, 13]], {}, r"prompt 0 has token ids from 1 to 13, .* 0\.\.12"),
        ([[-1]], {}, "prompt 0 has token ids from -1"),
        ([[1]], {"samples": 0}, "samples is 0"),
        ([[1]], {"sample_ids": [[0, 1]]}, r"sample_ids of lengths \[2\]"),
        ([[1]], {"seed": [0, 1]}, "given 2 seeds"),
        ([[1]], {"eos_id": 13}, "stop id 13"),
    ],
)
def test_what_cannot_work_is_refused(model: Decoder, prompts, options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(model, prompts, PLAIN, **options)


def test_no_prompts_give_no_completions(model: Decoder) -> None:
    assert generate(model, [], PLAIN) == []


def test_nan_weights_are_an_error_and_not_a_text(make) -> None:
    model = make(seed=2)
    with torch.no_grad():
        model.blocks[1].mlp.down.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite"):
        generate(model, [[1]], PLAIN)


def test_modes_come_back_and_gradients_still_flow(make) -> None:
    model = make(dropout=0.5)
    frozen = make(dropout=0.5)
    model.train()
    model.blocks[0].eval()
    assert tokens(generate(model, PROMPTS, PLAIN)) == tokens(generate(frozen, PROMPTS, PLAIN))
    assert model.training and model.blocks[1].mlp.training and not model.blocks[0].attention.training
    model.eval()
    model.logits(model(torch.tensor([[1, 2]]))).sum().backward()
    assert all(p.grad is not None and not p.is_inference() for p in model.parameters())


def test_progress_counts_up_to_all(model: Decoder) -> None:
    seen: list[tuple[int, int]] = []
    settings_ = dataclasses.replace(PLAIN, max_batch=4)
    generate(model, PROMPTS, settings_, samples=2, eos_id=0, progress=lambda *counts: seen.append(counts))
    assert seen == sorted(set(seen))
    assert seen[-1] == (12, 12)


def test_it_can_be_interrupted_and_samples_the_same_again(model: Decoder) -> None:
    whole, asked = generate(model, PROMPTS, PLAIN, eos_id=0), []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Interrupted):
        generate(model, PROMPTS, PLAIN, eos_id=0, should_stop=stop)
    assert len(asked) == 4
    assert generate(model, PROMPTS, PLAIN, eos_id=0) == whole


def test_autocast_decodes_in_its_own_type(make) -> None:
    model = make(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        groups = generate(model, PROMPTS, PLAIN, samples=2, eos_id=0)
    exact = generate(model, PROMPTS, PLAIN, samples=2, eos_id=0)
    first = [
        (a.logp[0], b.logp[0]) for g, h in zip(groups, exact, strict=True) for a, b in zip(g, h, strict=True)
    ]
    assert sum(abs(a - b) < 0.2 for a, b in first) >= 10


@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_tokens_are_those_of_transformers(make, tmp_path, batch: int) -> None:
    transformers = pytest.importorskip("transformers")
    from lineal.models.hf import save_model

    model = make(dtype=torch.float32)
    save_model(model, tmp_path)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt_BT = torch.tensor([[5, 1, 7], [2, 2, 4], [9, 8, 1]])[:batch]
    theirs = peer.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        do_sample=False,
        max_new_tokens=25,
        eos_token_id=None,
        pad_token_id=0,
    )
    ours = generate(model, prompt_BT.tolist(), Sampling(max_new_tokens=25, temperature=0))
    assert [list(group[0].ids) for group in ours] == theirs[:, 3:].tolist()
