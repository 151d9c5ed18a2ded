"""The choice of device, dtype and threads: measured where it matters, recorded, never fatal for lack of a GPU."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lineal.errors import UsageError
from lineal.train import device as module
from lineal.train.device import Device, Shape, choose_device, describe, pick_device, usable_cores

WIDE = Shape(width=256, inner=1024, tokens=256)
TINY = Shape(width=32, inner=64, tokens=16)


@pytest.fixture
def timed(monkeypatch):
    """Replaces the stopwatch: seconds by (dtype, threads); returns what was asked."""
    asked: list[tuple[str, int]] = []
    seconds: dict[tuple[str, int], float] = {}

    def block(kind, shape, dtype):
        def measured() -> float:
            key = (dtype, torch.get_num_threads())
            asked.append(key)
            # The first round is a warm-up, and later ones suffer from other work now and then.
            return seconds.get(key, 1.0) * (1 if asked.count(key) == 3 else 10)

        return measured

    monkeypatch.setattr(module, "_block", block)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    return asked, seconds


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_a_tiny_model_is_not_measured(cpu_only, timed):
    chosen = choose_device(TINY)
    assert (chosen.kind, chosen.dtype, chosen.threads) == ("cpu", "float32", 1) and timed[0] == []


def test_a_clear_winner_is_chosen(cpu_only, timed):
    asked, seconds = timed
    seconds |= {("bfloat16", 2): 0.3, ("bfloat16", 1): 0.5, ("float32", 2): 0.6}
    chosen = choose_device(WIDE)
    assert (chosen.dtype, chosen.threads) == ("bfloat16", 2)
    assert sorted(set(asked)) == [("bfloat16", 1), ("bfloat16", 2), ("float32", 1), ("float32", 2)]
    assert chosen.probe == {
        "float32 threads 1": 1000.0,
        "bfloat16 threads 1": 500.0,
        "float32 threads 2": 600.0,
        "bfloat16 threads 2": 300.0,
    }


@pytest.mark.parametrize(
    ("times", "dtype", "threads"),
    [
        ((1.0, 0.95, 0.9, 0.9), "float32", 1),
        ((1.0, 0.6, 0.9, 0.5), "float32", 2),
        ((1.0, 0.9, 0.6, 0.55), "bfloat16", 1),
        ((1.0, 2.0, 3.0, 4.0), "float32", 1),
    ],
)
def test_a_small_gain_gives_up_neither_precision_nor_a_core(cpu_only, timed, times, dtype, threads):
    keys = [("float32", 1), ("float32", 2), ("bfloat16", 1), ("bfloat16", 2)]
    timed[1].update(zip(keys, times, strict=True))
    chosen = choose_device(WIDE)
    assert (chosen.dtype, chosen.threads) == (dtype, threads)


def test_a_wide_model_is_probed_with_fewer_tokens(monkeypatch):
    sizes = []
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda size, **options: sizes.append(size) or real(size, **options))
    module._block("cpu", Shape(width=1024, inner=4096, tokens=16384), "float32")
    assert sizes[0] == (79, 1024)


@pytest.mark.parametrize(("dtype", "threads"), [("float64", 1), ("bfloat16", 2), ("float32", 7)])
def test_what_is_asked_for_is_not_measured(cpu_only, timed, dtype, threads):
    chosen = choose_device(WIDE, dtype=dtype, threads=threads)
    assert (chosen.dtype, chosen.threads) == (dtype, threads) and timed[0] == []
    assert chosen.torch_dtype == getattr(torch, dtype) and chosen.torch_device == torch.device("cpu")


def test_a_real_probe_is_finite_and_leaves_no_trace(cpu_only):
    before, state = torch.get_num_threads(), torch.get_rng_state()
    chosen = choose_device(WIDE)
    assert chosen.dtype in ("float32", "bfloat16") and 1 <= chosen.threads <= usable_cores()
    assert (
        all(math.isfinite(ms) and ms > 0 for ms in chosen.probe.values())
        and "float32 threads 1" in chosen.probe
    )
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)


def test_the_line_for_the_user_and_the_record_for_resume():
    chosen = Device("cpu", "float32", 1, "AVX512_BF16", {"float32 threads 1": 0.5})
    assert chosen.line() == "device cpu (AVX512_BF16) dtype float32 threads 1"
    assert Device.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


def test_applying_sets_the_threads():
    before = torch.get_num_threads()
    try:
        Device("cpu", "float32", 2, "x").apply()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device_there_is(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == best and pick_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "--device cuda: torch .* sees none here; use --device auto or cpu"),
        ({"device": "mps"}, "--device mps"),
        ({"device": "tpu"}, "--device tpu is not one of auto, cuda, mps, cpu"),
        ({"dtype": "float16"}, "--dtype float16 is not one of auto, float32, bfloat16, float64"),
        ({"threads": -1}, "--threads -1 is negative"),
    ],
)
def test_what_is_not_there_is_refused(cpu_only, options, said):
    with pytest.raises(UsageError, match=said):
        choose_device(WIDE, **options)


def test_apples_gpu_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UsageError, match="Apple's GPU has no float64"):
        choose_device(WIDE, dtype="float64")
    assert choose_device(WIDE).dtype == "float32"


@pytest.mark.parametrize(("asked", "limit"), [("1", 1), ("junk", None), ("0", None), ("", None)])
def test_cores_honour_the_environment(monkeypatch, asked, limit):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert usable_cores() == (free if limit is None else limit) >= 1


def test_the_description_is_json_and_complete(cpu_only):
    facts = describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu" and facts["choice"].startswith("device cpu (") and facts["cores"] >= 1
    assert facts["compiled_cores"].startswith(("none: ", "rows"))
    assert facts["versions"]["torch"] == torch.__version__ and facts["memory_gib"] > 0
