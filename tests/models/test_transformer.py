"""The encoder-decoder against the paper's equations written out, and what its masks promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.dropout import Masks
from lineal.models.multihead import Pass, SelfAttention, attend
from lineal.models.transformer import Transformer, TransformerConfig, sinusoid


def tiny(**options: object) -> Transformer:
    """A float64 model whose weights are far from their start."""
    shape = {
        "vocab_size": 19,
        "width": 16,
        "inner": 24,
        "heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "context": 40,
    }
    model = Transformer(TransformerConfig(**{**shape, **options})).initialise(0).double()  # type: ignore[arg-type]
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=made, dtype=torch.float64)
    return model.eval()


def hidden(model: Transformer, source: list[int], target: list[int]) -> Tensor:
    """Hidden states of one pair by itself."""
    return model(torch.tensor([source]), torch.tensor([target]))[0]


def test_sinusoids_are_the_papers() -> None:
    table = sinusoid(50, 6, torch.float64)
    for t in (0, 1, 7, 49):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-14)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-14)


def test_attention_is_equation_1() -> None:
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=made, dtype=torch.float64) for n in (4, 5, 5))
    mask = torch.zeros(2, 1, 1, 5, dtype=torch.float64)
    mask[1, ..., 3:] = -math.inf
    expected = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8) + mask, -1) @ v
    maps: list[Tensor] = []
    for going in (Pass(), Pass(maps=maps)):
        torch.testing.assert_close(attend(q, k, v, mask, going), expected, atol=1e-12, rtol=0)
    assert maps[0].shape == (2, 3, 4, 5) and (maps[0][1, ..., 3:] == 0).all()
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 3, 4))


def test_identity_projections_leave_softmax_of_inner_products() -> None:
    """With W_q = W_k = W_v = I attention is softmax(X X' / sqrt d) X."""
    layer = SelfAttention(6, 1, False, 0.0).double()
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(6).repeat(3, 1))
        layer.out.weight.copy_(torch.eye(6))
    x = torch.randn(1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(x[0] @ x[0].T / math.sqrt(6), -1) @ x[0]
    torch.testing.assert_close(layer(x, None, Pass())[0], expected)


def test_a_layer_is_post_norm_of_the_residual() -> None:
    model = tiny()
    layer, x = (
        model.encoder[0],
        torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )

    def norm(y: Tensor, part: torch.nn.Module) -> Tensor:
        spread = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return spread * part.weight + part.bias  # type: ignore[operator]

    first = norm(x + layer.attention(x, None, Pass()), layer.attention_norm)  # type: ignore[operator,arg-type]
    inner = torch.relu(first @ layer.mlp.up.weight.T + layer.mlp.up.bias)  # type: ignore[union-attr,operator]
    second = norm(first + inner @ layer.mlp.down.weight.T + layer.mlp.down.bias, layer.mlp_norm)  # type: ignore
    torch.testing.assert_close(layer(x, None, Pass()), second)


def test_the_embedding_is_scaled_and_is_the_output_too() -> None:
    model = tiny()
    token = torch.tensor([[3, 7]])
    expected = 4 * model.embedding.weight[token] + sinusoid(2, 16, torch.float64)
    torch.testing.assert_close(model.embed(token), expected)
    x = torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(model.logits(x), x @ model.embedding.weight.T)
    assert "head" not in " ".join(name for name, _ in model.named_parameters())


def test_later_targets_are_not_seen() -> None:
    model = tiny()
    before, after = hidden(model, [3, 4, 5], [1, 6, 7, 8]), hidden(model, [3, 4, 5], [1, 6, 9, 10])
    torch.testing.assert_close(before[:2], after[:2], atol=1e-13, rtol=0)
    assert (before[2] - after[2]).abs().max() > 1e-3


def test_padding_changes_nothing() -> None:
    model = tiny()
    mask = torch.tensor([[0, 0, 0, -math.inf, -math.inf]], dtype=torch.float64)[:, None, None]
    for filler in (0, 11):
        padded = model(torch.tensor([[3, 4, 5, filler, filler]]), torch.tensor([[1, 6, filler]]), mask)
        torch.testing.assert_close(padded[0, :2], hidden(model, [3, 4, 5], [1, 6]), atol=1e-13, rtol=0)


def test_padded_positions_get_no_gradient() -> None:
    model = tiny()
    mask = torch.tensor([[0, 0, -math.inf]], dtype=torch.float64)[:, None, None]
    model(torch.tensor([[3, 4, 18]]), torch.tensor([[1, 6, 17]]), mask)[0, :2].sum().backward()
    grad = model.embedding.weight.grad
    assert grad is not None and not grad[[17, 18]].any() and grad[[1, 3, 4, 6]].any(1).all()


def test_the_paper_has_no_biases_in_attention_or_output() -> None:
    names = [name for name, _ in tiny().named_parameters()]
    assert (
        not [n for n in names if n.endswith(".bias") and ("attention." in n or "cross." in n)]
        and "logit_bias" not in names
    )
    assert "encoder.0.attention.qkv.bias" in [n for n, _ in tiny(attention_bias=True).named_parameters()]


def test_base_and_big_have_the_papers_sizes() -> None:
    """Table 3: 65 and 213 million parameters, at 37,000 subwords."""
    for width, inner, heads, millions in ((512, 2048, 8, 63), (1024, 4096, 16, 214)):
        with torch.device("meta"):
            model = Transformer(TransformerConfig(37000, width, inner, heads))
        assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_initialisation_is_a_function_of_the_seed() -> None:
    config = tiny().config
    one, same, other = (Transformer(config).initialise(seed) for seed in (3, 3, 4))
    assert torch.equal(one.embedding.weight, same.embedding.weight)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    qkv = one.encoder[0].attention.qkv.weight  # type: ignore[union-attr]
    assert qkv.abs().max() <= math.sqrt(6 / 32) and qkv.abs().max() > 0.9 * math.sqrt(6 / 32)  # type: ignore[union-attr,operator]


def test_a_sentence_beyond_the_context_is_refused() -> None:
    with pytest.raises(ModelError, match=r"41 tokens are more than the 40"):
        hidden(tiny(), [1] * 41, [1])


@pytest.mark.parametrize(
    ("options", "said"), [({"heads": 3}, "multiple of heads"), ({"activation": "tan"}, "not one of relu")]
)
def test_impossible_shapes_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        tiny(**options)


class TestMasks:
    def test_they_are_a_function_of_the_seeds(self) -> None:
        x = torch.ones(50, 40)
        one, same, other = (Masks(*seeds)(x, 0.3) for seeds in ((1, 5), (1, 5), (1, 6)))
        assert torch.equal(one, same) and not torch.equal(one, other)
        stream = Masks(1, 5)
        assert not torch.equal(stream(x, 0.3), stream(x, 0.3))

    @pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
    def test_share_and_mean(self, p: float) -> None:
        dropped = Masks(0)(torch.ones(1000, 1000), p)
        error = math.sqrt(p * (1 - p) / 1e6)
        assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=4 * error + 2**-16)
        assert dropped.mean().item() == pytest.approx(1, abs=4 * error / (1 - p))
        assert dropped.unique().numel() == 2

    def test_the_gradient_is_the_mask(self) -> None:
        x = torch.randn(20, 30, requires_grad=True)
        y = Masks(3)(x, 0.5)
        (grad,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(grad * x, y)

    def test_none_at_zero(self) -> None:
        x = torch.randn(3)
        assert Masks(0)(x, 0.0) is x

    def test_a_model_uses_them_everywhere_the_paper_says(self) -> None:
        """On both embeddings and on each sublayer's output: 2 + 2 * 2 + 2 * 3 draws for two layers each."""
        drawn: list[float] = []

        class Counting(Masks):
            def __call__(self, x: Tensor, p: float) -> Tensor:
                drawn.append(p)
                return x

        tiny(dropout=0.2)(torch.tensor([[3]]), torch.tensor([[1]]), None, Counting(0))
        assert drawn == [0.2] * 12
        drawn.clear()
        tiny(dropout=0.2, attention_dropout=0.1)(torch.tensor([[3]]), torch.tensor([[1]]), None, Counting(0))
        assert drawn.count(0.1) == 6 and drawn.count(0.2) == 12
