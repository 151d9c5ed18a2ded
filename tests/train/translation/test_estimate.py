"""What a dry run says of a translation run: parameters, arithmetic, memory, padding and epochs, counted by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lineal.models.transformer import Transformer, TransformerConfig
from lineal.tokenizers import CharTokenizer
from lineal.train.options import with_options
from lineal.train.translation.batches import Order
from lineal.train.translation.estimate import estimate, flops, memory
from lineal.train.translation.options import PairOptions, TranslationConfig
from lineal.train.translation.pairs import Corpus, Pairs
from lineal.train.translation.task import Task, make_task

LETTERS = CharTokenizer.train("abcdefghij")
SMALL = TransformerConfig(5, width=2, inner=3, heads=1, encoder_layers=2, decoder_layers=1)
WIDE = TransformerConfig(13, width=512, inner=2048, heads=8, encoder_layers=1, decoder_layers=1, context=64)


def task_of(sources: list[str], targets: list[str]) -> Task:
    """These pairs to train on, and one to validate on."""
    valid = Pairs(["ab"], ["ba"], "valid")
    return make_task(PairOptions(), Corpus(Pairs(sources, targets, "here"), valid, valid), LETTERS, 64)


def lines_of(task: Task, shape: TransformerConfig, **options: object) -> list[str]:
    """The lines of a dry run, on one thread where nothing else is asked for."""
    options = {"device": "cpu", "dtype": "float32", "threads": 1, **options}
    config = with_options(TranslationConfig(), **options)
    return estimate(config, shape, task, Order(task.train, config.optimiser.batch_tokens, 0))


def test_operations_of_a_tiny_shape_counted_by_hand() -> None:
    """Weights that a source token meets: 2 encoder layers of 4·4 + 2·6, keys and values 2·4; a target token: 6·4 + 2·6, 2·5."""
    assert flops(SMALL, 10, 7) == 6 * (10 * (2 * 28 + 8) + 7 * (36 + 10)) == 5772
    assert flops(SMALL, 1, 0) == 6 * 64 and flops(SMALL, 0, 1) == 6 * 46


@pytest.mark.parametrize("layers", [(1, 1), (3, 2), (1, 4)])
def test_operations_are_those_of_the_products_that_torch_counts(layers: tuple[int, int]) -> None:
    shape = TransformerConfig(29, 16, 24, 4, *layers)
    model = Transformer(shape).initialise(0)
    source_BS, input_BT = torch.full((3, 7), 4), torch.full((3, 5), 6)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(source_BS, input_BT)).sum().backward()
    # Products with weights are matrices times matrices; those of attention are batched, and left out on purpose.
    counted = counter.get_flop_counts()["Global"]
    assert sum(counted.get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm)) == flops(shape, 21, 15)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_operations_of_two_batches_are_those_of_both(s: int, t: int, more: int, also: int) -> None:
    assert flops(SMALL, s + more, t + also) == flops(SMALL, s, t) + flops(SMALL, more, also)


def test_memory_of_a_tiny_shape_counted_by_hand() -> None:
    """A token keeps 2·(14·2 + 2·3) + 24·2 + 2·3 numbers; 512 rows of 5 logits; the gradient of 5·2 embeddings."""
    weights, kept = memory(SMALL, 1000, 100)
    assert weights == 16000 / 2**20
    assert kept == 4 * (100 * (2 * 34 + 54) + 512 * 5 + 10) / 2**20


def test_memory_of_activations_grows_by_the_token() -> None:
    at = [memory(WIDE, 0, tokens)[1] for tokens in (0, 1, 1001)]
    assert at[2] - at[1] == pytest.approx(1000 * (at[1] - at[0]))


def test_parameters_counted_by_hand() -> None:
    """Embedding 10; an encoder layer 4·4 + (3·2 + 3 + 2·3 + 2) + 2·4, a decoder layer 8·4 + 17 + 3·4."""
    shape = replace(SMALL, vocab_size=13)
    lines = lines_of(task_of(["abc"] * 3, ["abc"] * 3), shape)
    assert lines[3] == f"model: {13 * 2 + 2 * 41 + 61} parameters, 2 + 1 layers of width 2"


def test_the_lines_of_a_dry_run_to_the_digit() -> None:
    """Six pairs of 4 and 5 tokens with their ends, two in a batch of at most 10: three steps an epoch, no padding."""
    lines = lines_of(
        task_of(["abc"] * 6, ["dcba"] * 6), WIDE, batch_tokens=10, steps=30_000_000, smoothing=0.25
    )
    assert lines[0].endswith("ε = 0.25")
    assert lines[1] == "data: 6 pairs, 24 source and 30 target tokens; 1 pairs to validate on"
    assert lines[2] == "vocabulary: 13 subwords of both languages (bpe)"
    assert lines[3] == "model: 7,356,928 parameters, 1 + 1 layers of width 512"
    assert lines[4] == "a step: 8 source and 10 target tokens, padding 0.0 %; 3 steps an epoch"
    # 6 · (8 · (3,145,728 + 524,288) + 10 · (3,670,016 + 512 · 13)) = 396,761,088
    assert lines[5] == "work: 0.4 GFLOP a step, 11.90 PFLOP in 30,000,000 steps (10000000.0 epochs)"
    # 16 · 7,356,928 bytes; 4 · (10 · 27,648 + 512 · 13 + 13 · 512) bytes
    assert lines[6] == "memory, about: weights, gradients and optimiser 112 MiB, activations 1 MiB"
    assert len(lines) == 8


def test_the_time_is_steps_times_work_over_the_rate() -> None:
    line = lines_of(task_of(["abc"] * 6, ["dcba"] * 6), WIDE, batch_tokens=10, steps=1000)[7]
    found = re.fullmatch(
        r"time, about: (\S+) s a step, (?:(\d+):)?(\d+):(\d\d) in all, at the ([\d,.]+) GFLOP/s just measured; "
        r"device cpu \(.+\) dtype float32 threads 1",
        line,
    )
    assert found is not None, line
    each, rate = float(found[1]), float(found[5].replace(",", ""))
    whole = 3600 * int(found[2] or 0) + 60 * int(found[3]) + int(found[4])
    assert each * rate == pytest.approx(0.396761088, rel=0.06, abs=0.06 * each)
    assert whole == pytest.approx(1000 * each, rel=0.06, abs=0.51)


def test_padding_is_the_share_of_both_rectangles_that_holds_nothing() -> None:
    """Sources of 2 and 4 tokens and targets of 3 and 3 in one batch: 12 tokens in 8 + 6 places."""
    line = lines_of(task_of(["a", "abc"], ["ab", "ab"]), replace(SMALL, vocab_size=13), batch_tokens=8)[4]
    assert line == "a step: 6 source and 6 target tokens, padding 14.3 %; 1 steps an epoch"


def test_activations_are_those_of_one_micro_batch() -> None:
    task = task_of(["abc"] * 6, ["dcba"] * 6)
    shape = replace(WIDE, width=64, inner=64)
    said = [
        lines_of(task, shape, batch_tokens=batch, token_budget=budget)[6].split("activations ")[1]
        for batch, budget in ((100_000, 10_000), (10_000, 100_000), (100_000, 100_000))
    ]
    # 10,000 or 100,000 tokens of 14 · 64 + 128 + 24 · 64 + 128 = 2,688 numbers of 4 bytes.
    assert said == ["103 MiB", "103 MiB", "1,025 MiB"]


def test_a_dry_run_leaves_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    task = task_of(["abc"] * 2, ["abc"] * 2)
    line = lines_of(task, replace(SMALL, vocab_size=13), threads=before + 1)[7]
    assert line.endswith(f"threads {before + 1}") and torch.get_num_threads() == before
