"""The settings: what they refuse, what they say of themselves, and that they need no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from lineal.errors import UsageError
from lineal.generate.sampling import FILTERS, Sampling


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_mode", "vllm"),
        ("no_repeat_ngram", -1),
        ("max_batch", 0),
        ("stop", ("a", "")),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{field} is .*must be"):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_faithful_is_sampling_from_the_policy_itself() -> None:
    assert Sampling().faithful
    assert Sampling(temperature=0.7, stop=("x",), stop_ids=(1,)).faithful
    for changed in (
        Sampling(temperature=0),
        Sampling(top_k=3),
        Sampling(top_p=0.9),
        Sampling(min_p=0.1),
        Sampling(repetition_penalty=1.1),
        Sampling(frequency_penalty=0.1),
        Sampling(presence_penalty=0.1),
        Sampling(no_repeat_ngram=2),
    ):
        assert not changed.faithful


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (("top_k", "temprature"), "'temprature', which is none of"),
        (("top_k", "top_k"), "names a filter twice"),
        (("temperature",), "top_k is on, but filter_order temperature leaves it out"),
    ],
)
def test_an_order_that_means_nothing_is_refused(order: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Sampling(top_k=3, filter_order=order)


def test_filters_that_are_on_are_listed_in_their_order() -> None:
    assert Sampling().filters == ()
    asked = Sampling(top_k=3, presence_penalty=0.1, repetition_penalty=1.1, temperature=0.5)
    assert asked.filters == ("repetition", "presence", "temperature", "top_k")
    turned = dataclasses.replace(asked, filter_order=FILTERS[::-1])
    assert turned.filters == asked.filters[::-1]


def test_greedy_decoding_has_nothing_to_truncate() -> None:
    assert Sampling(top_k=3).truncates
    assert not Sampling(top_k=3, temperature=0).truncates
    assert Sampling(frequency_penalty=-0.1).penalises
    assert not Sampling(top_p=0.5).penalises


def test_it_imports_without_torch_and_numpy() -> None:
    code = "import sys, lineal.generate.sampling; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
