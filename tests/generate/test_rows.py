"""The core of a one-token pass: compiled, as Python, and in NumPy, all the same."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

import lineal.generate
from lineal.generate.between import rows_core

FILE = f"{lineal.generate.__path__[0]}/rows.py"


def as_python() -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("rows_as_python", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["compiled", "python"])
def core(request) -> ModuleType:
    found = rows_core() if request.param == "compiled" else as_python()
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("centres", [False, True])
@pytest.mark.parametrize("width", [1, 7, 33])
def test_add_norm(core, adds: bool, weighs: bool, centres: bool, width: int) -> None:
    x, added = normal(3, width), normal(3, width, seed=1)
    weight, bias = normal(width, seed=2), normal(width, seed=3)
    out = np.empty_like(x)
    total = x + added if adds else x.copy()
    core.add_norm(
        x, added if adds else None, weight if weighs else None, bias if centres else None, out, 1e-5
    )
    close(x, total)
    centred = total - total.mean(1, keepdims=True) if centres else total
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    expected = expected * (weight if weighs else 1) + (bias if centres else 0)
    close(out, expected)


def test_a_norm_may_overwrite_what_it_reads(core) -> None:
    x, out = normal(2, 9), np.empty((2, 9), np.float32)
    core.add_norm(x.copy(), None, None, None, out, 1e-5)
    core.add_norm(x, None, None, None, x, 1e-5)
    close(x, out)


@pytest.mark.parametrize("width", [1, 5, 40])
def test_gates(core, width: int) -> None:
    up = normal(3, 2 * width) * 4
    out = np.empty((3, width), np.float32)
    core.gate(up, out)
    first, second = up[:, :width].astype(np.float64), up[:, width:]
    close(out, first / (1 + np.exp(-first)) * second)
    x = np.ascontiguousarray(up[:, :width])
    core.gelu(x, out)
    close(out, first / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (first + 0.044715 * first**3))))


def test_rotation_turns_some_heads_in_place(core) -> None:
    rows, position = normal(2, 5, 6), np.array([3, 0])
    cos, sin = normal(4, 6, seed=1), normal(4, 6, seed=2)
    before = rows.copy()
    core.rotate(rows[:, :3], position, cos, sin)
    swapped = np.concatenate((before[:, :, 3:], before[:, :, :3]), 2)
    expected = before * cos[position][:, None] + swapped * sin[position][:, None]
    close(rows[:, :3], expected[:, :3])
    assert np.array_equal(rows[:, 3:], before[:, 3:])


@pytest.mark.parametrize("heads,keys,width", [(4, 2, 8), (2, 2, 3), (3, 1, 16)])
@pytest.mark.parametrize("scale", [1, 30])
def test_attention_writes_then_reads_up_to_each_rows_position(core, heads, keys, width, scale) -> None:
    slots, span, rows = 4, 9, 3
    position = np.array([8, 0, 5])
    store = normal(2, slots, keys, span, width)
    qkv = normal(rows, heads + 2 * keys, width, seed=1) * scale
    kept, out = store.copy(), np.empty((rows, heads, width), np.float32)
    for first, last in ((0, 2), (2, 3)):
        core.attend(qkv, store, position, np.empty(span, np.float32), out, first, last)
    for i, at in enumerate(position):
        kept[0, i, :, at], kept[1, i, :, at] = qkv[i, heads : heads + keys], qkv[i, heads + keys :]
        for q in range(heads):
            key, value = kept[:, i, q * keys // heads, : at + 1].astype(np.float64)
            score = key @ qkv[i, q] / np.sqrt(width)
            weight = np.exp(score - score.max())
            close(out[i, q], weight @ value / weight.sum())
    assert np.array_equal(store, kept)
