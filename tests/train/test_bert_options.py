"""The options of bert: what means nothing is refused by its flag, what is at its limit is taken, and presets are whole."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.recipes import bert
from lineal.recipes.config import BertRunConfig, with_options
from lineal.train.bert_options import CUTS, PRESETS, DocumentOptions, EncoderOptimiserOptions, EncoderOptions
from lineal.train.options import from_json, to_json

GROUPS = (DocumentOptions, EncoderOptions, EncoderOptimiserOptions)
LEAST: dict[type, dict[str, float]] = {
    DocumentOptions: {"held_out": 0, "document_words": 0, "vocab_size": 8, "most_masked": 0, "duplicates": 0},
    EncoderOptions: {"layers": 1, "width": 4, "heads": 1, "inner": 1, "context": 8, "threads": 0, "dropout": 0},
    EncoderOptimiserOptions: {
        "batch_size": 1, "block": 8, "learning_rate": 0, "warmup": 0, "floor": 0, "max_grad_norm": 0,
        "weight_decay": 0, "token_budget": 1,
    },
}  # fmt: skip
"""Of each group the least that an option may be."""
EACH = [(group, name, low) for group, least in LEAST.items() for name, low in least.items()]


def flag(name: str) -> str:
    """As it is typed."""
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(("group", "name", "low"), EACH)
def test_the_least_is_taken_and_less_is_refused_by_its_flag(group: Any, name: str, low: float) -> None:
    more = {"heads": 1} if name == "width" else {}
    assert getattr(group(**{name: low}, **more), name) == low
    less = -0.001 if isinstance(getattr(group(), name), float) else int(low) - 1
    with pytest.raises(UsageError, match=flag(name)):
        group(**{name: less if name != "width" else 0}, **more)


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, f.name) for group in GROUPS for f in dataclasses.fields(group) if f.type == "float"],
)
def test_what_is_no_number_is_refused(group: Any, name: str) -> None:
    with pytest.raises(UsageError, match=flag(name)):
        group(**{name: math.nan})


@pytest.mark.parametrize(
    ("group", "name", "allowed", "refused"),
    [
        (DocumentOptions, "held_out", (0.0, 0.999), (1.0, 1.5)),
        (DocumentOptions, "mask_rate", (0.001, 1.0), (0.0, 1.001)),
        (DocumentOptions, "short_sequences", (0.0, 1.0), (-0.1, 1.1)),
        (EncoderOptions, "dropout", (0.0, 0.99), (1.0, 2.0)),
        (EncoderOptimiserOptions, "beta1", (0.0, 0.999), (1.0, -0.1)),
        (EncoderOptimiserOptions, "beta2", (0.0, 0.999), (1.0, -0.1)),
        (EncoderOptimiserOptions, "learning_rate", (1e-9, 10.0), (math.inf,)),
    ],
)
def test_shares_have_two_ends(group: Any, name: str, allowed: tuple, refused: tuple) -> None:
    for value in allowed:
        assert getattr(group(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(UsageError, match=flag(name)):
            group(**{name: value})


@pytest.mark.parametrize(
    ("group", "options", "said"),
    [
        (DocumentOptions, {"preset": "bas"}, "--preset bas is not one of .* Did you mean base"),
        (DocumentOptions, {"cut": "words"}, "--cut words is not one of lines, sentences"),
        (EncoderOptions, {"width": 10, "heads": 4}, "--width 10 is not a multiple of --heads 4"),
        (EncoderOptimiserOptions, {"schedule": "liner"}, "--schedule liner .* Did you mean linear"),
    ],
)
def test_names_and_shapes_that_are_none_are_refused(group: Any, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        group(**options)


@given(st.sampled_from(CUTS), st.integers(8, 10**6), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_configuration_comes_back_from_its_json(cut: str, size: int, held: float, cased: bool) -> None:
    config = with_options(BertRunConfig(), cut=cut, vocab_size=size, held_out=held, cased=cased)
    assert from_json(BertRunConfig, to_json(config)) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_configuration_whose_parts_fit(preset: str) -> None:
    config = bert.tuned(with_options(BertRunConfig(), preset=preset))
    assert config.documents.preset == preset and set(PRESETS) == set(bert.PRESETS)
    assert config.model.width % config.model.heads == 0
    assert config.model.context is None or config.optimiser.block <= config.model.context
    assert (
        config.optimiser.warmup < config.run.steps and config.optimiser.token_budget >= config.optimiser.block
    )
    known = {f.name for group in vars(config).values() for f in dataclasses.fields(group)}
    assert set(bert.PRESETS[preset]) <= known and set(bert.ESSENTIAL) <= known


def test_what_a_user_names_is_kept_over_the_preset_and_nothing_else_changes() -> None:
    whole = bert.tuned(with_options(BertRunConfig(), preset="seconds"))
    mine = with_options(whole, width=96, heads=3)
    assert (mine.model.width, mine.model.heads, mine.model.layers) == (96, 3, whole.model.layers)
    assert (mine.documents, mine.optimiser, mine.run) == (whole.documents, whole.optimiser, whole.run)
    with pytest.raises(UsageError, match="no option is called widht"):
        with_options(whole, widht=96)
