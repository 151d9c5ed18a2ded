"""GloVe's steps: AdaGrad on its weighted least squares, compiled and plain."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lineal.errors import UsageError
from lineal.representations import glove
from lineal.representations.glove import Glossary, Glove
from lineal.representations.near import PAIR

METHOD = Glove(dim=7, x_max=10, rate=0.1)


def some_pairs(seed: int = 0, words: int = 9, size: int = 200) -> np.ndarray:
    draw = np.random.default_rng(seed)
    pairs = np.zeros(size, PAIR)
    pairs["row"], pairs["column"] = draw.integers(0, words, (2, size))
    pairs["count"] = np.exp(draw.normal(1, 2, size))
    return pairs


def plainly(model: Glossary) -> float:
    return glove.learn(model, *(np.ascontiguousarray(model.pairs[name]) for name in PAIR.names or ()))


def test_the_weight_is_capped() -> None:
    count = np.array([0, 5, 10, 1000], np.float32)
    np.testing.assert_allclose(METHOD.weight(count), [0, 0.5**0.75, 1, 1], rtol=1e-6)


def test_the_compiled_steps_are_the_plain_ones() -> None:
    if glove.core() is None:
        pytest.skip("nothing was compiled at install")
    one, other = Glossary(METHOD, 9, some_pairs()), Glossary(METHOD, 9, some_pairs())
    assert one.train(0, 200) == pytest.approx(plainly(other), rel=1e-4)
    for name, table in one.state().items():
        np.testing.assert_allclose(table, other.state()[name], rtol=2e-4, atol=2e-5)


def test_the_first_step_is_gradient_descent_on_the_loss() -> None:
    """AdaGrad's sums start at 1, so that the first step divides by nothing."""
    model = Glossary(METHOD, 9, some_pairs(size=1))
    pair = model.pairs[0]
    before = {
        name: torch.tensor(table, dtype=torch.float64, requires_grad=True)
        for name, table in model.state().items()
    }
    off = before["words"][pair["row"]] @ before["contexts"][pair["column"]]
    off = (
        off
        + before["word_bias"][pair["row"], 0]
        + before["context_bias"][pair["column"], 0]
        - np.log(float(pair["count"]))
    )
    loss = 0.5 * min(1, (float(pair["count"]) / 10) ** 0.75) * off**2
    loss.backward()
    assert plainly(model) == pytest.approx(loss.item(), rel=1e-5)
    for name in ("words", "contexts"):
        slope = before[name].grad
        assert slope is not None
        np.testing.assert_allclose(model.state()[name], (before[name] - 0.1 * slope).detach(), atol=1e-6)
        np.testing.assert_allclose(model.state()[f"{name[:-1]}_sums"], 1 + (0.1 * slope) ** 2, rtol=1e-5)
    slope = before["word_bias"].grad
    assert slope is not None
    np.testing.assert_allclose(model.word_bias[:, 0], -0.1 * slope[:, 0], atol=1e-6)


def test_it_learns_logarithms_of_counts() -> None:
    pairs = np.zeros(81, PAIR)
    pairs["row"], pairs["column"] = np.divmod(np.arange(81), 9)
    pairs["count"] = np.exp(np.random.default_rng(0).normal(1, 1, 81))
    model = Glossary(Glove(dim=16, x_max=1, rate=0.2), 9, pairs)
    losses = [model.train(0, 81) / 81 for _ in range(300)]
    assert losses[-1] < 1e-3 * losses[0]
    told = model.words[:, :16] @ model.contexts[:, :16].T + model.word_bias[:, :1] + model.context_bias[:, 0]
    np.testing.assert_allclose(told.ravel(), np.log(pairs["count"]), atol=0.1)


def test_stretches_and_states_go_on_bit_for_bit() -> None:
    whole, parted = Glossary(METHOD, 9, some_pairs()), Glossary(METHOD, 9, some_pairs())
    whole.train(0, 200)
    parted.train(0, 77)
    resumed = Glossary(METHOD, 9, some_pairs(), seed=5)
    for name, table in copy.deepcopy(parted.state()).items():
        resumed.state()[name][:] = table
    resumed.train(77, 200)
    assert all(np.array_equal(table, resumed.state()[name]) for name, table in whole.state().items())
    np.testing.assert_array_equal(whole.vectors(), resumed.vectors())


def test_threads_learn_every_pair() -> None:
    one, several = Glossary(METHOD, 9, some_pairs()), Glossary(METHOD, 9, some_pairs())
    assert several.train(0, 200, threads=3) == pytest.approx(one.train(0, 200), rel=0.2)
    assert several.finite()
    several.words[3, 2] = np.nan
    assert not several.finite()


def test_the_vector_of_a_word_is_both_summed() -> None:
    model = Glossary(METHOD, 9, some_pairs())
    np.testing.assert_array_equal(model.vectors(), model.words[:, :7] + model.contexts[:, :7])
    assert model.vectors().shape == (9, 7) and np.abs(model.words[:, :7]).max() <= 0.5 / 7


def test_settings_that_mean_nothing() -> None:
    for wrong in ({"dim": 0}, {"x_max": 0.0}, {"rate": -1.0}):
        with pytest.raises(UsageError, match="at least"):
            Glove(**wrong)  # type: ignore[arg-type]
