"""The benchmark for CUDA devices runs from end to end at toy size anywhere, and at full size only where it should."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, on one core."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(PATH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=settings)


@pytest.mark.serial
def test_at_toy_size_all_four_figures_come_out() -> None:
    pytest.importorskip("transformers", reason="the peer of the GRPO step is transformers")
    done = run("--tiny", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["figure"] for line in lines] == [
        "gpu/shakespeare loss",
        "gpu/grpo step",
        "gpu/decode bandwidth",
        "gpu/pretraining mfu",
    ]
    for line in lines:
        assert math.isfinite(line["ours"]) and line["ours"] > 0, line
        assert (line["bar"], line["ok"]) == ("", True)
    assert lines[1]["peer"] > 0


@pytest.mark.serial
def test_without_a_cuda_device_nothing_is_measured() -> None:
    # No device is visible to the script, also where there is one.
    done = run("--json", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["no CUDA device here: nothing was measured"]
