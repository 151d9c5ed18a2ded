"""The suite itself: annotations are checked under pytest, and only there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lineal.ops.masked import masked_mean
from lineal.web.chart import ticks


def test_a_wrong_dtype_is_caught_under_pytest() -> None:
    with pytest.raises(Exception, match="mask"):
        masked_mean(torch.ones(2, 3), torch.ones(2, 3))


def test_a_whole_number_is_a_number() -> None:
    assert ticks(0, 1).high == 1


def test_users_do_not_pay_for_it() -> None:
    # `ticks` takes anything that compares, so an unchecked call with a string fails later, in arithmetic.
    code = (
        "import sys; from lineal.ops.masked import masked_mean; from lineal.web.chart import ticks\n"
        "try: ticks('a', 'b')\n"
        "except Exception as error: print(type(error).__name__, 'beartype' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["TypeError", "False"], done.stderr
