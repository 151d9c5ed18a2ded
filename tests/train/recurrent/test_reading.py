"""States that are carried, and figures on held-out text."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lineal.errors import DataError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig, Directions
from lineal.train.recurrent.reading import (
    Carried,
    both_directions,
    held_out_figures,
    listener,
    perplexity,
    spoken,
)

CONFIG = AWDConfig(9, width=4, hidden=5, layers=2)


def model_of(seed: int = 0) -> AWDLSTM:
    """A small model."""
    return AWDLSTM(CONFIG).initialise(seed).eval()


def carried_of() -> Carried:
    """Both directions with the states of three columns."""
    models = {"forward": model_of(0), "backward": model_of(1)}
    return Carried(Directions(models), {d: m.zero_state(3) for d, m in models.items()})


def test_the_state_is_part_of_what_a_checkpoint_holds() -> None:
    carried, other = carried_of(), carried_of()
    reading = model_of().read(torch.tensor([[1, 2], [3, 4], [5, 6]]))
    carried.carry("forward", reading.state)
    other.load_state_dict(carried.state_dict())
    for ours, theirs in zip(other.state("forward"), reading.state, strict=True):
        torch.testing.assert_close(ours, tuple(part.detach() for part in theirs))
    assert all((part == 0).all() for pair in other.state("backward") for part in pair)
    assert not any(part.requires_grad for pair in carried.state("forward") for part in pair)


def test_a_state_that_is_not_finite_is_forgotten() -> None:
    carried = carried_of()
    carried.carry("forward", tuple((a + 1, b + 1) for a, b in carried.state("forward")))
    carried.carry("forward", tuple((a * math.nan, b) for a, b in carried.state("forward")))
    assert all((part == 0).all() for pair in carried.state("forward") for part in pair)


def test_figures_of_one_column_are_those_of_one_pass() -> None:
    model = model_of()
    stream = torch.randint(9, (150,), generator=torch.Generator().manual_seed(0))
    found = held_out_figures(listener(model), stream)
    with torch.no_grad():
        logits = model.logits(model(stream[None, :-1])[0])
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, stream[1:]).item(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["token_accuracy"] == pytest.approx((logits.argmax(-1) == stream[1:]).float().mean().item())


def test_columns_read_every_word_once() -> None:
    stream = torch.randint(9, (128 * 4 + 1,), generator=torch.Generator().manual_seed(0))
    model = model_of()
    found = held_out_figures(listener(model), stream)
    with torch.no_grad():
        hidden = model(stream[:-1].view(4, 128))
    loss = F.cross_entropy(model.logits(hidden).flatten(0, 1), stream[1:])
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert held_out_figures(listener(model), stream, 100)["loss"] != found["loss"]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="1 tokens"):
        held_out_figures(listener(model_of()), torch.tensor([1]))


def test_two_directions_have_a_mean_and_their_own_figures() -> None:
    each = {
        "forward": {"loss": 1.0, "perplexity": math.e, "token_accuracy": 0.2},
        "backward": {"loss": 3.0, "perplexity": math.exp(3), "token_accuracy": 0.4},
    }
    found = both_directions(each)
    assert found["eval/loss"] == 2 and found["eval/perplexity"] == pytest.approx(math.exp(2))
    assert found["eval/backward_loss"] == 3 and found["eval/token_accuracy"] == pytest.approx(0.3)
    assert set(both_directions({"forward": each["forward"]})) == {
        "eval/loss", "eval/perplexity", "eval/token_accuracy",
    }  # fmt: skip
    assert spoken({"eval/token_accuracy": 0.25}) == "token accuracy 0.2500"
    assert perplexity(1000) == math.inf
