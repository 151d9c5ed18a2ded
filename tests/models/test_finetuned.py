"""The linear head, and dropout that only training sees."""

from __future__ import annotations

import pytest
import torch

from lineal.models.decoder import Decoder, gpt1_config, llama_config
from lineal.models.finetuned import DecoderBody, FineTuned, Inputs, widened
from lineal.models.heads import LinearHead


def body(layers: int) -> DecoderBody:
    return DecoderBody(Decoder(gpt1_config(20, 16, layers, 2, 64, 12)).initialise(0))


def inputs(token_NT: torch.Tensor, mask_NT: torch.Tensor) -> Inputs:
    """One sequence a row, nothing read but its end."""
    return Inputs(token_NT, mask_NT, torch.zeros_like(token_NT), torch.zeros_like(mask_NT))


def test_a_head_is_drawn_by_its_seed_from_a_narrow_normal() -> None:
    one, same, other = (LinearHead(400, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)
    assert one.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not one.bias.any()


def test_a_head_is_linear_and_drops_only_in_training() -> None:
    head = LinearHead(6, 3, dropout=0.5)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    head.eval()
    torch.testing.assert_close(head(x), x @ head.weight.T + head.bias)
    head.train()
    torch.manual_seed(0)
    assert not torch.allclose(head(x), x @ head.weight.T + head.bias)


def test_gradients_reach_every_weight_through_label_and_language() -> None:
    model = FineTuned(body(2), "classification", 2, 0.1)
    token_NT, mask_NT = (
        torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]]),
        torch.tensor([[True] * 4, [True] * 3 + [False]]),
    )
    given = inputs(token_NT, mask_NT)
    score_BC, hidden_NTD = model(given)
    (score_BC.square().sum() + model.body.language_loss(hidden_NTD, given)).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in model.named_parameters()
        if "qkv.bias" not in n
    )


def test_padding_gets_no_gradient() -> None:
    model = FineTuned(body(1), "classification", 2, 0.0)
    token_NT, mask_NT = torch.tensor([[1, 2, 3, 19]]), torch.tensor([[True, True, True, False]])
    given = inputs(token_NT, mask_NT)
    score_BC, hidden_NTD = model(given)
    score_BC.sum().backward()
    decoder = model.body.decoder
    assert isinstance(decoder, Decoder)
    grad = decoder.embedding.weight.grad
    assert grad is not None and not grad[19].any()
    loss = model.body.language_loss(hidden_NTD.detach(), given)
    other = model.body.language_loss(hidden_NTD.detach(), inputs(torch.tensor([[1, 2, 3, 7]]), mask_NT))
    assert torch.equal(loss, other)


@pytest.mark.parametrize("tied", [True, False])
def test_both_ends_of_a_model_are_widened(tied: bool) -> None:
    decoder = Decoder(llama_config(20, 16, 1, 2, 32, 12, tied=tied)).initialise(0)
    wider = widened(decoder, 23, seed=0)
    assert wider.embedding.weight.shape == wider.head_weight.shape == (23, 16)
    assert torch.equal(wider.head_weight[:20], decoder.head_weight)
