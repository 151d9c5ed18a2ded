"""Which device, which dtype and how many threads; measured once at the start, recorded, and reused on resume.

What is fastest cannot be read off a name: bfloat16 is 2.7 times faster on one CPU and slower on the next, and
a second thread costs more than it gives on a tiny model. So a feed-forward block of the model's own shape is
timed.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from lineal.errors import UsageError
from lineal.native import summary as compiled_cores
from lineal.train.versions import versions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
NARROW = 128
"""On a CPU, models this narrow spend their time on small operations, which casts to bfloat16 only make more of."""
WIDE = 4096
"""An inner layer this wide is worth a probe on any model: products take most of its time."""
TINY_WIDTH = 64
"""Models this narrow spend their time between operations: float32 and one thread, without a probe."""
MORE_THREADS, LESS_PRECISION = 1.2, 1.5
"""How many times faster more threads, and bfloat16, must be to be chosen; the block gains more than a whole model."""
SECONDS = 0.5
"""Time given to a probe."""
FLOPS = 4e9
"""Work of one probed block at most: wide models are probed with fewer tokens than they train on."""


@dataclass(frozen=True)
class Shape:
    """Of a model, as far as speed is concerned: its width, its inner width, and tokens per micro-batch."""

    width: int
    inner: int
    tokens: int


@dataclass(frozen=True)
class Device:
    """A choice of device, dtype and threads, and the measurements behind it (milliseconds per probe)."""

    kind: str
    dtype: str
    threads: int
    name: str
    probe: dict[str, float] = field(default_factory=dict)

    @property
    def torch_device(self) -> torch.device:
        """For `tensor.to(...)`."""
        return torch.device(self.kind)

    @property
    def torch_dtype(self) -> torch.dtype:
        """torch's own name of the dtype; bfloat16 means autocast over float32 weights."""
        return DTYPES[self.dtype]

    def apply(self) -> None:
        """Set torch's number of CPU threads."""
        torch.set_num_threads(self.threads)

    def line(self) -> str:
        """One line for the user: `device cpu (AVX512_BF16) dtype float32 threads 1`."""
        return f"device {self.kind} ({self.name}) dtype {self.dtype} threads {self.threads}"

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> Device:
        """The choice that `to_json` wrote, so that a resumed run computes exactly as it began."""
        return Device(**{**saved, "probe": dict(saved.get("probe", {}))})


def choose_device(shape: Shape, device: str = "auto", dtype: str = "auto", threads: int = 0) -> Device:
    """The device asked for, or the best there is (cuda, then mps, then cpu); dtype and threads given or
    measured.

    threads: 0 measures one thread against all cores. Raises UsageError for a device that is not there and for
    an unknown name. Leaves torch's number of threads as it was; call `apply`.
    """
    kind = pick_device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} is not one of auto, {', '.join(DTYPES)}.")
    if kind == "mps" and dtype == "float64":
        raise UsageError("--dtype float64: Apple's GPU has no float64; use float32, or --device cpu.")
    if threads < 0:
        raise UsageError(f"--threads {threads} is negative; 0 lets a probe decide.")
    dtypes = ["float32", "bfloat16"] if dtype == "auto" else [dtype]
    narrow = shape.width <= NARROW and shape.inner < WIDE
    if dtype == "auto" and ((kind == "cpu" and narrow) or kind == "mps"):
        dtypes = ["float32"]
    counts = [threads] if threads else thread_counts(kind, shape)
    probe: dict[str, float] = {}
    if len(dtypes) * len(counts) > 1:
        probe = _measure(kind, shape, dtypes, counts)
    chosen_dtype, chosen_threads = _fastest(probe, dtypes, counts)
    return Device(kind, chosen_dtype, chosen_threads, device_name(kind), probe)


def pick_device(name: str = "auto") -> str:
    """cuda, mps or cpu; "auto" never fails, a device asked for by name must be there (UsageError)."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind, present in there.items() if present)
    if name not in there:
        raise UsageError(f"--device {name} is not one of auto, {', '.join(there)}.")
    if not there[name]:
        raise UsageError(
            f"--device {name}: torch {torch.__version__} sees none here; use --device auto or cpu."
        )
    return name


def thread_counts(kind: str, shape: Shape) -> list[int]:
    """Numbers of threads worth measuring: one for a tiny model or beside a GPU, else one and all cores."""
    most = usable_cores()
    return [1] if most == 1 or kind != "cpu" or shape.width <= TINY_WIDTH else [1, most]


def usable_cores() -> int:
    """CPU cores this process may use: the least of affinity, container quota and OMP_NUM_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [cores]
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        limits.append(max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        limits.append(int(asked))
    return min(limits)


def device_name(kind: str) -> str:
    """The GPU's name, or the widest arithmetic of the CPU that torch can use, such as AVX512_BF16."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    if kind == "mps":
        return platform.machine()
    flags = _cpu_flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return flag.upper()
    return torch.backends.cpu.get_cpu_capability()


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


def _measure(kind: str, shape: Shape, dtypes: list[str], counts: list[int]) -> dict[str, float]:
    """Least milliseconds of a forward and backward pass through one block, for each dtype and thread count."""
    before = torch.get_num_threads()
    blocks = {dtype: _block(kind, shape, dtype) for dtype in dtypes}
    best: dict[str, float] = {}
    began, rounds = time.perf_counter(), 0
    try:
        # Round and round, so that a burst of other work on the machine hits all alike. The first round warms up.
        while rounds < 3 or (rounds < 50 and time.perf_counter() - began < SECONDS):
            for count in counts:
                torch.set_num_threads(count)
                for dtype, block in blocks.items():
                    name, spent = f"{dtype} threads {count}", round(1000 * block(), 4)
                    best[name] = min(best[name], spent) if rounds > 1 else spent
            rounds += 1
    finally:
        torch.set_num_threads(before)
    return best


def _block(kind: str, shape: Shape, dtype: str) -> Callable[[], float]:
    """A feed-forward block, forward and backward; calling it gives the seconds it took."""
    # Own generator: the probe must not move the random numbers of the run.
    made = torch.Generator().manual_seed(0)
    tokens = max(32, min(shape.tokens, int(FLOPS / (12 * shape.width * shape.inner))))
    keep = torch.float64 if dtype == "float64" else torch.float32
    sizes = (tokens, shape.width), (shape.inner, shape.width), (shape.width, shape.inner)
    x, up, down = (torch.randn(s, generator=made, dtype=keep).to(kind).requires_grad_() for s in sizes)

    def seconds() -> float:
        start = time.perf_counter()
        with torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16"):
            y = F.linear(F.silu(F.linear(x, up)), down)
        y.float().square().mean().backward()
        if kind != "cpu":
            getattr(torch, kind).synchronize()
        return time.perf_counter() - start

    return seconds


def _fastest(probe: Mapping[str, float], dtypes: list[str], counts: list[int]) -> tuple[str, int]:
    """The plainest choice (first dtype, fewest threads) unless another is clearly faster."""

    def best_count(dtype: str) -> int:
        chosen = counts[0]
        for count in counts[1:]:
            if probe[f"{dtype} threads {count}"] * MORE_THREADS < probe[f"{dtype} threads {chosen}"]:
                chosen = count
        return chosen

    if not probe:
        return dtypes[0], counts[0]
    spent = {dtype: probe[f"{dtype} threads {best_count(dtype)}"] for dtype in dtypes}
    quick = min(dtypes, key=lambda dtype: spent[dtype])
    chosen = quick if spent[quick] * LESS_PRECISION < spent[dtypes[0]] else dtypes[0]
    return chosen, best_count(chosen)


def describe() -> dict[str, Any]:
    """What `lineal doctor` prints: versions, devices, cores, memory, compiler, and a probe."""
    kind = pick_device()
    chosen = choose_device(Shape(width=256, inner=1024, tokens=1024))
    compilers = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": kind,
        "device_name": device_name(kind),
        "cpu": device_name("cpu"),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "compiler": compilers[0] if compilers else None,
        "compiled_cores": compiled_cores(),
        "choice": chosen.line(),
        "probe_ms": chosen.probe,
    }
    if kind == "cuda":
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return facts


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
