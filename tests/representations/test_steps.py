"""word2vec's steps: the compiled core, its source as Python and the plain form do the same, which is gradient descent."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
from array import array
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.representations import core as cores
from lineal.representations import softmax, steps, word2vec
from lineal.representations.draws import epoch_key
from lineal.representations.subwords import Subwords
from lineal.representations.word2vec import Embedding, Flat, Word2Vec, pairs
from lineal.representations.words import END, Vocabulary

METHODS = {
    "negative": Word2Vec(dim=9, window=3, negatives=3),
    "shared": Word2Vec(dim=9, window=3, negatives=5, shared=True),
    "tree": Word2Vec(dim=9, window=3, output="tree"),
    "tree shared": Word2Vec(dim=9, window=2, output="tree", shared=True),
    "cbow": Word2Vec(dim=9, window=3, model="cbow", negatives=2),
    "cbow tree": Word2Vec(dim=9, window=3, model="cbow", output="tree"),
    "subwords": Word2Vec(dim=9, window=2, negatives=2, subwords=Subwords(2, 3, 20)),
    "subwords cbow": Word2Vec(dim=9, window=2, model="cbow", subwords=Subwords(2, 3, 20)),
    "whole windows": Word2Vec(dim=17, window=2, dynamic=False, sample=0, negatives=17, shared=True),
}


def corpus(seed: int = 0, words: int = 12, size: int = 300) -> tuple[Vocabulary, np.ndarray]:
    """Words of a steep distribution, in sentences of any length."""
    draw = np.random.default_rng(seed)
    ids = np.minimum(draw.geometric(0.25, size) - 1, words - 1).astype(np.int32)
    ids[draw.random(size) < 0.15] = END
    ids[:words] = np.arange(words)
    ids[-1] = END
    counts = np.bincount(ids[ids >= 0], minlength=words)
    order = np.argsort(-counts, kind="stable")
    rank = np.argsort(order)
    ids[ids >= 0] = rank[ids[ids >= 0]]
    return Vocabulary(tuple(f"w{i:x}y" for i in range(words)), counts[order]), ids


def embedding(name: str, seed: int = 0, **changes: Any) -> Embedding:
    method = dataclasses.replace(METHODS[name], rate=0.2, sample=METHODS[name].sample and 0.05, **changes)
    found = Embedding(method, *corpus(seed), epochs=2, seed=seed)
    # Output rows start at 0, where half of what could be wrong is not seen.
    draw = np.random.default_rng(seed)
    for table in found.state().values():
        table[:] = draw.normal(0, 0.3, table.shape)
    return found


def as_python() -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("embed_as_python", f"{cores.__path__[0]}/embed.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_core(core: ModuleType, model: Embedding, epoch: int, first: int, last: int) -> tuple[float, int]:
    flat: Any = Flat(model.job)
    if "python" in core.__name__:
        # Python's own numbers: NumPy's unsigned ones neither shift nor multiply as C's do.
        flat.bits, flat.rows, flat.words = [0] * len(flat.bits), array("i", flat.rows), array("i", flat.words)
        flat.head, flat.keep = flat.head.tolist(), flat.keep.tolist()
    key, done = epoch_key(model.job.seed, epoch), float(epoch * len(model.ids))
    ids = model.ids if "python" not in core.__name__ else model.ids.tolist()
    return core.learn(flat, ids, first, last, key, done)


def same(one: Embedding, other: Embedding, close: float = 3e-5) -> None:
    for name, table in one.state().items():
        np.testing.assert_allclose(table, other.state()[name], rtol=close, atol=close)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["compiled", "python"])
def test_every_form_does_the_same(name: str, form: str) -> None:
    core = word2vec.core() if form == "compiled" else as_python()
    if core is None:
        pytest.skip("nothing was compiled at install")
    one, other = embedding(name), embedding(name)
    size = 120 if form == "python" else len(one.ids)
    expected = steps.learn(one.job, one.ids, 0, size, 1)
    found = by_core(core, other, 1, 0, size)
    assert found[1] == expected[1] > 20
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    same(one, other, 2e-4)


@pytest.mark.parametrize("name", METHODS)
def test_padding_stays_zero(name: str) -> None:
    model = embedding(name)
    model.train(0, 0, len(model.ids))
    dim = model.method.dim
    assert not model.job.inputs[:, dim:].any() and not model.job.outputs[:, dim:].any()


@pytest.mark.parametrize("name", ["negative", "tree", "cbow", "subwords", "shared"])
def test_a_step_is_the_gradient_of_its_loss(name: str) -> None:
    model = embedding(name)
    job = model.job
    bags = [job.rows_of(word) for word in (1, 3, 1)]
    if job.bag:
        bags = [np.concatenate(bags)]
    # Rows that come twice: their gradients add.
    rows, signs = [2, 5, 5, 0], [1, -1, -1, -1]
    inputs, outputs = (
        torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (job.inputs, job.outputs)
    )
    x = torch.stack([inputs[bag].mean(0) for bag in bags])
    loss = -torch.nn.functional.logsigmoid(torch.tensor(signs) * (x @ outputs[rows].T)).sum()
    loss.backward()
    before = job.inputs.copy(), job.outputs.copy()
    found = steps.update(job, bags, rows, signs, 0.1)
    assert found == pytest.approx(loss.item(), rel=1e-5)
    assert inputs.grad is not None and outputs.grad is not None
    # fastText gives every part of a word the whole gradient.
    times = len(bags[0]) if job.parts is not None and len(set(map(len, bags))) == 1 else 1
    np.testing.assert_allclose(before[0] - job.inputs, 0.1 * times * inputs.grad, atol=1e-5)
    np.testing.assert_allclose(before[1] - job.outputs, 0.1 * outputs.grad, atol=1e-5)


@given(st.lists(st.integers(0, 300), max_size=5), st.sampled_from(["negative", "shared", "tree", "cbow"]))
@settings(max_examples=20)
def test_any_stretches_make_the_same_vectors_bit_for_bit(cuts: list[int], name: str) -> None:
    whole, parted = embedding(name), embedding(name)
    total = whole.train(0, 0, len(whole.ids))
    bounds = [0, *sorted(cuts), len(parted.ids)]
    found = [parted.train(0, a, b) for a, b in itertools.pairwise(bounds)]
    assert sum(count for _, count in found) == total[1]
    assert sum(loss for loss, _ in found) == pytest.approx(total[0], rel=1e-12)
    for key, table in whole.state().items():
        assert np.array_equal(table, parted.state()[key])


def test_a_state_goes_on_bit_for_bit() -> None:
    one = embedding("negative")
    one.train(0, 0, 150)
    other = Embedding(one.method, one.vocabulary, one.ids, 2, 0)
    for name, table in copy.deepcopy(one.state()).items():
        other.state()[name][:] = table
    for model in (one, other):
        model.train(0, 150, len(model.ids))
        model.train(1, 0, len(model.ids))
    assert all(np.array_equal(table, other.state()[name]) for name, table in one.state().items())


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_predict_every_word_once(threads: int) -> None:
    one, several = embedding("negative"), embedding("negative")
    loss, count = one.train(0, 0, len(one.ids))
    found, counted = several.train(0, 0, len(several.ids), threads)
    assert counted == count and found == pytest.approx(loss, rel=0.2)
    assert several.finite()


def test_the_loss_is_that_of_the_moment_before_each_step() -> None:
    model = Embedding(dataclasses.replace(METHODS["negative"], rate=0.0, final_rate=0.0), *corpus())
    loss, count = model.train(0, 0, len(model.ids))
    _, vocabulary = model.ids, model.vocabulary
    # Output rows at 0: every sigmoid is a half. A negative that is the word itself is left out.
    assert loss / count / np.log(2) == pytest.approx(1 + 3, rel=0.2)
    assert loss / count / np.log(2) < 4 and len(vocabulary) == 12
    shared = Embedding(dataclasses.replace(METHODS["tree"], rate=0.0, final_rate=0.0), *corpus())
    found, counted = shared.train(0, 0, len(shared.ids))
    assert counted == count and found / np.log(2) == pytest.approx(round(found / np.log(2)), abs=1e-2)


def test_the_rate_falls_in_a_straight_line() -> None:
    job = Embedding(Word2Vec(rate=0.02, final_rate=0.01), *corpus(), epochs=2).job
    assert [job.rate_at(place) for place in (0, 300, 600, 900)] == pytest.approx([0.02, 0.015, 0.01, 0.01])


def test_negative_sampling_and_the_tree_learn_what_the_softmax_learns() -> None:
    """Words of two groups that never meet: each predicts its own group."""
    draw = np.random.default_rng(0)
    ids = np.concatenate([[*(draw.integers(0, 4, 8) + 4 * (i % 2)), END] for i in range(200)]).astype(
        np.int32
    )
    vocabulary = Vocabulary(tuple("abcdefgh"), np.bincount(ids[ids >= 0]))
    for output in ("negative", "tree", "softmax"):
        method = Word2Vec(dim=8, window=2, sample=0, rate=0.2, output=output)
        model = Embedding(method, vocabulary, ids, epochs=2)
        for epoch in range(2):
            model.train(epoch, 0, len(ids))
        unit = model.vectors() / np.linalg.norm(model.vectors(), axis=1, keepdims=True)
        cosine = unit @ unit.T
        assert min(cosine[:4, :4].min(), cosine[4:, 4:].min()) > 0.5 > 0.3 > cosine[:4, 4:].max(), output


def test_the_whole_softmax_is_minus_the_log_of_a_probability() -> None:
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    found = softmax.softmax_loss(x, y, [[0], [1, 2]], torch.tensor([4, 6]))
    p = torch.softmax(torch.stack([x[0], x[1:3].mean(0)]) @ y.T, -1)
    assert found.item() == pytest.approx(-(p[0, 4].log() + p[1, 6].log()).item())


def test_pairs_of_a_sentence() -> None:
    assert list(pairs(["a", "b", "c"], 1)) == [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    assert len(list(pairs(range(10), 20))) == 90
    assert list(pairs(["alone"], 3)) == []
    with pytest.raises(UsageError, match="window 0"):
        list(pairs(["a"], 0))


def test_the_steps_predict_exactly_the_pairs() -> None:
    model = embedding("negative", dynamic=False)
    model.job.keep[:] = 1 << 32
    seen = [
        (found.centre, word)
        for found in steps.windows(model.job, model.ids, 0, len(model.ids), 0)
        for word in found.around
    ]
    expected = []
    for _, words in steps.sentences_of(model.ids, 0, len(model.ids)):
        expected += list(pairs(words.tolist(), model.method.window))
    assert seen == expected


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"window": 0}, {"negatives": 0}, {"window": 1 << 15}, {"model": "glove"},
                                   {"output": "hs"}, {"sample": -1}])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Word2Vec(**wrong)
