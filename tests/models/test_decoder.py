"""The decoder by itself: shapes, starts, dropout, types, positions, packing, gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lineal.errors import UsageError
from lineal.models.decoder import PRESETS, Decoder, DecoderConfig, llama_config, parameter_count

SHAPE = {"vocab_size": 13, "width": 16, "layers": 2, "heads": 4, "inner": 64, "context": 24}


def test_hidden_states_and_logits_have_their_shapes(build, layout, token_BT):
    decoder = build(layout)
    hidden_BTD = decoder(token_BT)
    assert hidden_BTD.shape == (3, 12, 16)
    assert decoder.logits(hidden_BTD).shape == (3, 12, 13)
    assert decoder.logits(hidden_BTD[0, 0]).shape == (13,)
    assert decoder.head_weight.shape == (13, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_type_stays_itself(build, layout, token_BT, dtype):
    decoder = build(layout, dtype)
    assert decoder.dtype == dtype
    assert decoder(token_BT).dtype == dtype
    exact = build(layout)(token_BT)
    error = (decoder(token_BT).double() - exact).abs().mean()
    assert error < {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]


def test_initialise_depends_on_the_seed_only(layout):
    config = PRESETS[layout](**SHAPE)
    torch.manual_seed(5)
    first = Decoder(config).initialise(3).state_dict()
    torch.manual_seed(6)
    again = Decoder(config).to(torch.float64).initialise(3).state_dict()
    other = Decoder(config).initialise(4).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name].float()), name
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_initialise_has_the_stated_scales():
    config = llama_config(400, 128, 8, 4, 512, 32)
    state = Decoder(config).initialise(0).state_dict()
    assert state["embedding.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert state["blocks.3.attention.qkv.weight"].std() == pytest.approx(0.02, rel=0.02)
    for name in ("attention.out.weight", "mlp.down.weight"):
        assert state[f"blocks.3.{name}"].std() == pytest.approx(0.02 / 4, rel=0.03)
    assert torch.equal(state["norm.weight"], torch.ones(128))


def test_biases_start_at_zero_and_norms_at_one():
    state = Decoder(PRESETS["gpt2"](**SHAPE)).initialise(0).state_dict()
    for name, tensor in state.items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name


def test_dropout_acts_in_training_only(build, layout, token_BT):
    decoder = build(layout, dropout=0.3)
    still = build(layout)
    assert torch.equal(decoder(token_BT), still(token_BT))
    decoder.train()
    assert not torch.equal(decoder(token_BT), decoder(token_BT))


def test_tied_weights_are_one_parameter(build):
    tied, untied = build("llama", tied=True), build("llama", tied=False)
    assert tied.head_weight is tied.embedding.weight
    assert untied.head_weight is not untied.embedding.weight
    assert parameter_count(untied.config) - parameter_count(tied.config) == 13 * 16


@pytest.mark.parametrize("tied", [True, False])
def test_parameter_count_is_the_sum_over_parameters(layout, tied):
    config = PRESETS[layout](**SHAPE, tied=tied)
    assert parameter_count(config) == sum(p.numel() for p in Decoder(config).parameters())


def test_parameter_count_of_gpt2_small():
    assert parameter_count(PRESETS["gpt2"](50257, 768, 12, 12, 3072, 1024)) == 124_439_808


def test_parameter_count_of_gpt1():
    assert parameter_count(PRESETS["openai-gpt"](40478, 768, 12, 12, 3072, 512)) == 116_534_784


def test_positions_given_are_those_meant(build, layout, token_BT):
    decoder = build(layout)
    position_BT = torch.arange(12).expand(3, 12)
    torch.testing.assert_close(decoder(token_BT, position_BT), decoder(token_BT))
    later = decoder(token_BT, position_BT + 5)
    if decoder.config.position == "rotary":
        # Only distances count.
        torch.testing.assert_close(later, decoder(token_BT), rtol=0, atol=1e-5)
    else:
        assert (later - decoder(token_BT)).abs().max() > 1e-2


def test_packed_documents_do_not_see_each_other(build, layout, token_BT):
    decoder = build(layout)
    lengths = (5, 7)
    segment_BT = torch.tensor([[0] * 5 + [1] * 7]).expand(3, 12)
    position_BT = torch.tensor([[*range(5), *range(7)]]).expand(3, 12)
    packed = decoder(token_BT, position_BT, segment_BT=segment_BT)
    apart = torch.cat([decoder(part) for part in token_BT.split(lengths, 1)], 1)
    torch.testing.assert_close(packed, apart)


def test_a_sequence_beyond_the_context_is_refused(build, layout):
    decoder = build(layout)
    with pytest.raises(UsageError, match="context of 24"):
        decoder(torch.zeros(1, 25, dtype=torch.int64))


def test_second_derivatives_exist_with_the_math_kernel(build, layout, token_BT):
    decoder = build(layout)
    parameters = list(decoder.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        total = decoder.logits(decoder(token_BT)).log_softmax(-1).square().mean()
        first = torch.autograd.grad(total, parameters, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), parameters)
    assert all(g.isfinite().all() for g in second)
    assert sum(g.abs().sum() for g in second) > 0


def test_every_parameter_takes_part(build, layout, token_BT):
    decoder = build(layout)
    decoder.logits(decoder(token_BT)).log_softmax(-1)[..., 0].sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_trip_through_bfloat16_leaves_exact_tables(build):
    decoder = build("llama", torch.float32)
    exact = decoder.rotary.cos_SD.clone()
    decoder.to(torch.bfloat16)
    assert decoder.rotary.cos_SD.dtype == torch.bfloat16
    assert torch.equal(decoder.float().rotary.cos_SD, exact)


def test_a_copy_is_independent(build, token_BT):
    decoder = build("llama")
    twin = copy.deepcopy(decoder)
    before = twin(token_BT)
    with torch.no_grad():
        decoder.embedding.weight.add_(1.0)
    assert torch.equal(twin(token_BT), before)


def test_under_autocast_it_stays_close(build, layout, token_BT):
    decoder = build(layout, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rough = decoder.logits(decoder(token_BT))
    assert (rough.float() - decoder.logits(decoder(token_BT))).abs().max() < 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "norm 'batch'"),
        ({"heads": 4, "kv_heads": 3}, "cannot share 3"),
        ({"layout": "gpt2", "kv_heads": 2}, "no grouped heads"),
        ({"head_width": 5}, "even head width"),
        ({"layout": "openai-gpt", "inner": 50}, "inner = 4 x width"),
    ],
)
def test_meaningless_shapes_are_refused(options, message):
    shape = {**SHAPE, "kv_heads": 4, "head_width": 4, **options}
    with pytest.raises(UsageError, match=message):
        DecoderConfig(**shape)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(UsageError, match="not a multiple of 3 heads"):
        llama_config(13, 16, 1, 3, 32, 8)
