"""The options of a translation run: what is refused with which words, what is just allowed, and what a preset brings."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.recipes import transformer
from lineal.recipes.transformer import ESSENTIAL, PRESETS, default, tuned
from lineal.train.options import from_json, to_json, with_options
from lineal.train.translation.options import (
    BeamOptions,
    PairOptions,
    TeachingOptions,
    TransformerOptions,
    TranslationConfig,
    TranslationRunOptions,
)

GROUPS = (TransformerOptions, PairOptions, TeachingOptions, BeamOptions, TranslationRunOptions)
LEAST: dict[type, dict[str, float]] = {
    TransformerOptions: {
        "encoder_layers": 1, "decoder_layers": 1, "width": 2, "inner": 1, "heads": 1, "context": 2, "threads": 0,
        "dropout": 0, "attention_dropout": 0,
    },
    PairOptions: {"held_out": 0, "max_tokens": 1, "max_ratio": 1, "limit": 0, "vocab_size": 8},
    TeachingOptions: {
        "batch_tokens": 1, "token_budget": 1, "smoothing": 0, "learning_rate": 0, "warmup": 1, "weight_decay": 0,
        "max_grad_norm": 0, "average": 1, "snapshot_every": 1,
    },
    BeamOptions: {"beams": 1, "length_penalty": 0, "max_new_tokens": 1, "max_batch": 1},
    TranslationRunOptions: {
        "steps": 1, "save_every": 1, "keep_last": 1, "keep_every": 0, "eval_every": 0, "eval_sentences": 1,
        "time_limit": 0, "token_limit": 0,
    },
}  # fmt: skip
BOUNDED = [(group, name, low) for group, names in LEAST.items() for name, low in names.items()]
SHARES = [
    (TransformerOptions, "dropout", "nothing would be left; it must be below 1."),
    (TransformerOptions, "attention_dropout", "nothing would be left; it must be below 1."),
    (PairOptions, "held_out", "nothing would be left to train on; it must be below 1."),
    (TeachingOptions, "smoothing", "nothing would be left for the right word; stay below 1."),
]


def refusal(group: type, **values: Any) -> str:
    """What is said of these values."""
    with pytest.raises(UsageError) as caught:
        group(**values)
    return str(caught.value)


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(("group", "name", "low"), BOUNDED, ids=[name for _, name, _ in BOUNDED])
def test_values_below_the_least_are_refused_by_name(group: type, name: str, low: float) -> None:
    below = low - 1
    assert refusal(group, **{name: below}) == f"{flag(name)} {below:g}: it must be at least {low:g}."
    if isinstance(getattr(group(), name), float):
        assert refusal(group, **{name: float("nan")}) == f"{flag(name)} nan: it must be at least {low:g}."


@pytest.mark.parametrize(("group", "name", "low"), BOUNDED, ids=[name for _, name, _ in BOUNDED])
def test_the_least_itself_is_allowed(group: type, name: str, low: float) -> None:
    others = {"heads": 1} if name == "width" else {}
    assert getattr(group(**{name: low}, **others), name) == low


@pytest.mark.parametrize(("group", "name", "reason"), SHARES, ids=[name for _, name, _ in SHARES])
def test_shares_of_one_and_more_are_refused(group: type, name: str, reason: str) -> None:
    assert refusal(group, **{name: 1.0}) == f"{flag(name)} 1: {reason}"
    assert refusal(group, **{name: 1.5}) == f"{flag(name)} 1.5: {reason}"
    assert getattr(group(**{name: 0.99}), name) == 0.99


@pytest.mark.parametrize(("width", "heads"), [(65, 4), (66, 4), (9, 3), (2, 4)])
def test_a_width_that_heads_or_sines_and_cosines_cannot_share_is_refused(width: int, heads: int) -> None:
    said = refusal(TransformerOptions, width=width, heads=heads)
    assert said == f"--width {width} must be even and a multiple of --heads {heads}."


@given(st.integers(2, 300), st.integers(1, 20))
def test_every_even_multiple_of_the_heads_is_a_width(width: int, heads: int) -> None:
    if width % 2 == 0 and width in range(heads, 301, heads):
        assert TransformerOptions(width=width, heads=heads).width == width
    else:
        assert flag("heads") in refusal(TransformerOptions, width=width, heads=heads)


def test_final_weights_are_one_of_three() -> None:
    for final in ("average", "last", "best"):
        assert TeachingOptions(final=final).final == final
    assert refusal(TeachingOptions, final="first") == "--final first is none of average, last and best."


def test_of_no_two_groups_options_have_one_name() -> None:
    names = [field.name for group in GROUPS for field in dataclasses.fields(group)]
    assert len(names) == len(set(names)) and set(ESSENTIAL) <= set(names)
    assert [field.type for field in dataclasses.fields(TranslationConfig)] == [g.__name__ for g in GROUPS]


def test_options_cannot_be_changed_behind_the_checks() -> None:
    config = TranslationConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.dropout = 2.0  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"^--beams 0: it must be at least 1\.$"):
        with_options(config, beams=0)


@given(st.integers(1, 10**6), st.floats(0, 0.99), st.sampled_from(sorted(PRESETS)))
def test_what_is_saved_is_what_is_read(steps: int, dropout: float, preset: str) -> None:
    asked = with_options(TranslationConfig(), preset=preset)
    config = with_options(tuned(asked), steps=steps, dropout=dropout, source_file="a.en", quiet=True)
    assert from_json(TranslationConfig, to_json(config)) == config


class TestPresets:
    @pytest.mark.parametrize("name", PRESETS)
    def test_each_brings_its_values_and_else_the_defaults(self, name: str) -> None:
        plain, found = (
            {key: value for group in to_json(config).values() for key, value in group.items()}
            for config in (
                TranslationConfig(),
                tuned(with_options(TranslationConfig(), preset=name)),
            )
        )
        assert found == {**plain, "preset": name, **PRESETS[name]}

    def test_what_was_asked_beside_the_preset_is_not_looked_at(self) -> None:
        asked = with_options(TranslationConfig(), preset="base", steps=7, beams=1)
        assert tuned(asked) == tuned(with_options(TranslationConfig(), preset="base"))

    def test_the_default_is_tiny(self) -> None:
        assert default() == tuned(TranslationConfig()) and default().model.preset == "tiny"

    def test_an_unknown_one_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(UsageError) as caught:
            tuned(with_options(TranslationConfig(), preset="huge"))
        assert str(caught.value) == "--preset huge is not one of tiny, multi30k, base, big."

    @pytest.mark.parametrize(
        ("name", "shape", "dropout", "steps", "average"),
        [("base", (6, 512, 2048, 8), 0.1, 100_000, 5), ("big", (6, 1024, 4096, 16), 0.3, 300_000, 20)],
    )
    def test_base_and_big_are_table_3_and_section_5(
        self, name: str, shape: tuple[int, ...], dropout: float, steps: int, average: int
    ) -> None:
        config = tuned(with_options(TranslationConfig(), preset=name))
        model, teaching = config.model, config.optimiser
        assert (model.encoder_layers, model.width, model.inner, model.heads) == shape
        assert model.decoder_layers == 6 and model.dropout == dropout and config.run.steps == steps
        assert (teaching.schedule, teaching.learning_rate, teaching.warmup) == ("noam", 1.0, 4000)
        assert (teaching.beta1, teaching.beta2, teaching.epsilon) == (0.9, 0.98, 1e-9)
        assert (teaching.smoothing, teaching.batch_tokens, teaching.average) == (0.1, 25_000, average)
        assert (teaching.weight_decay, teaching.max_grad_norm) == (0, 0)
        assert (config.decoding.beams, config.decoding.length_penalty) == (4, 0.6)
        assert config.data.vocab_size == 37_000

    @pytest.mark.parametrize("name", PRESETS)
    def test_the_snapshots_to_average_fit_into_the_run(self, name: str) -> None:
        config = tuned(with_options(TranslationConfig(), preset=name))
        teaching = config.optimiser
        assert teaching.average * teaching.snapshot_every <= config.run.steps
        assert config.run.steps % teaching.snapshot_every == 0 and teaching.warmup < config.run.steps


def test_help_is_read_without_torch() -> None:
    """In a process of its own: here torch is loaded already."""
    look = f"import sys, {transformer.__name__} as m; m.default(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
