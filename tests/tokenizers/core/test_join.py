"""The inner loop of decoding: compiled and as Python, beside a plain join."""

from __future__ import annotations

import importlib.util
from array import array
from itertools import accumulate
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled

FILE = f"{lineal.tokenizers.core.__path__[0]}/join.py"


@pytest.fixture(params=["compiled", "python"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    """The core in both its forms."""
    if request.param == "compiled":
        found = compiled("lineal.tokenizers.core.join")
        return found or pytest.skip("nothing was compiled at install")
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("join_as_python", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(st.lists(st.binary(max_size=20), max_size=9), st.lists(st.integers(-3, 12), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_follow_one_another(core: ModuleType, pieces: list[bytes], ids: list[int]) -> None:
    data, start = b"".join(pieces) + bytes(16), array("q", accumulate(map(len, pieces), initial=0))
    found = core.join(ids, memoryview(data), memoryview(start))
    assert found == b"".join(pieces[i] for i in ids if 0 <= i < len(pieces))


def test_what_is_no_id_raises(core: ModuleType) -> None:
    data, start = memoryview(b"ab" + bytes(16)), memoryview(array("q", [0, 1, 2]))
    with pytest.raises(TypeError):
        core.join(["a"], data, start)
