"""Figures of held-out text against counting token by token, and what is done with documents."""

from __future__ import annotations

import math

import pytest
import torch

from lineal.errors import DataError
from lineal.models.decoder import Decoder, gpt1_config
from lineal.tokenizers import ByteTokenizer, CharTokenizer
from lineal.train.language import Text, bytes_of, figures_line, held_out_figures, stream_of, text_of
from lineal.train.score import Scoring


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """A decoder with opinions."""
    found = Decoder(gpt1_config(7, 16, 1, 2, 64, 8)).initialise(0).double().eval()
    with torch.no_grad():
        for parameter in found.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return found


@pytest.fixture(scope="module")
def stream_N() -> torch.Tensor:
    """Twenty-one tokens: two whole windows of eight, and one of four."""
    return torch.randint(7, (21,), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def counted(decoder: Decoder, stream_N: torch.Tensor, block: int = 8) -> tuple[float, float]:
    """Loss and accuracy, window by window and token by token."""
    losses, hits = [], []
    for start in range(0, len(stream_N) - 1, block):
        window = stream_N[start : start + block + 1]
        logp_TV = decoder.logits(decoder(window[None, :-1]))[0].log_softmax(-1)
        for t, token in enumerate(window[1:].tolist()):
            losses.append(-logp_TV[t, token].item())
            hits.append(float(logp_TV[t].argmax() == token))
    return math.fsum(losses) / len(losses), math.fsum(hits) / len(hits)


def test_figures_are_what_counting_gives(decoder: Decoder, stream_N: torch.Tensor) -> None:
    found = held_out_figures(decoder, Text(stream_N, stream_N, 50), Scoring(), 8)
    loss, accuracy = counted(decoder, stream_N)
    assert found["eval/loss"] == pytest.approx(loss, abs=1e-12)
    assert found["eval/token_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert found["eval/perplexity"] == pytest.approx(math.exp(loss))
    assert found["eval/bits_per_byte"] == pytest.approx(loss * 20 / (50 * math.log(2)))


def test_held_out_text_is_read_in_blocks_no_longer_than_training_s(
    decoder: Decoder, stream_N: torch.Tensor
) -> None:
    text = Text(stream_N, stream_N, 50)
    losses = [held_out_figures(decoder, text, Scoring(), block)["eval/loss"] for block in (4, 8, 64)]
    by_counting = [counted(decoder, stream_N, block)[0] for block in (4, 8, 8)]
    assert losses == pytest.approx(by_counting, abs=1e-12)
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)


def test_an_evaluation_on_the_way_reads_the_beginning_only(decoder: Decoder, stream_N: torch.Tensor) -> None:
    some = held_out_figures(decoder, Text(stream_N, stream_N, 50), Scoring(), 8, most=8)
    assert some["eval/loss"] == pytest.approx(counted(decoder, stream_N[:9])[0], abs=1e-12)


def test_evaluating_leaves_no_gradient_and_no_training_mode(decoder: Decoder, stream_N: torch.Tensor) -> None:
    decoder.train()
    held_out_figures(decoder, Text(stream_N, stream_N, 50), Scoring(), 8)
    assert not decoder.training
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_figures_read_as_a_line() -> None:
    text = Text(torch.zeros(2), torch.zeros(11), 20)
    assert figures_line(text.figures(math.log(4), 0.25)) == (
        "loss 1.3863 nats a token, perplexity 4.00, 1.0000 bits a byte, 25.0 % of tokens right"
    )


def test_a_loss_beyond_all_measure_is_no_error() -> None:
    assert Text(torch.zeros(2), torch.zeros(2), 1).figures(1e4, 0.0)["eval/perplexity"] == math.inf


def test_documents_are_kept_apart() -> None:
    tokenizer = CharTokenizer.train("ab")
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    assert stream_of(["a", "b"], tokenizer).tolist() == [a, tokenizer.eos_id, b, tokenizer.eos_id]
    assert stream_of(["ab"], tokenizer).tolist() == [a, b]
    with pytest.raises(DataError):
        stream_of([""], tokenizer)


def test_the_last_part_is_held_out_and_its_bytes_are_counted() -> None:
    text = text_of(["é" * 50], ByteTokenizer(), 0.2)
    assert (len(text.train_N), len(text.held_N)) == (80, 20)
    # Nothing predicts the first token; half a character is as many bytes as its sign of replacement.
    assert text.held_bytes == bytes_of(text.held_N, ByteTokenizer())
    assert 19 <= text.held_bytes <= 22
