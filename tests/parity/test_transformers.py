"""Our decoder and transformers' models are the same functions, through the files of either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lineal.models.attention import KeyValueCache
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.hf import load_model, save_model
from lineal.models.hf.files import INDEX

transformers = pytest.importorskip("transformers", reason="parity needs the [hf] extra")

ROTARY = {
    "vocab_size": 31,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT = {
    "vocab_size": 31,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MIXTRAL = {**ROTARY, "num_local_experts": 5, "num_experts_per_tok": 2}
QWEN_MOE = {
    **ROTARY,
    "head_dim": 12,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt1": ("OpenAIGPTConfig", "OpenAIGPTLMHeadModel", GPT),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT),
    "gpt2 inner": ("GPT2Config", "GPT2LMHeadModel", {**GPT, "n_inner": 40}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "num_key_value_heads": 4}),
    "llama grouped, tied": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "tie_word_embeddings": True}),
    "llama one kv head": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "num_key_value_heads": 1}),
    "llama3 rope": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "rope_parameters": LLAMA3}),
    "llama biases": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", ROTARY),
    "qwen2 tied": ("Qwen2Config", "Qwen2ForCausalLM", {**ROTARY, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**ROTARY, "head_dim": 12}),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", MIXTRAL),
    "mixtral tied": ("MixtralConfig", "MixtralForCausalLM", {**MIXTRAL, "tie_word_embeddings": True}),
    "qwen3 moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", QWEN_MOE),
    "qwen3 moe, weights of all": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**QWEN_MOE, "norm_topk_prob": False},
    ),
    "qwen3 moe, every other layer": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**QWEN_MOE, "decoder_sparse_step": 2, "mlp_only_layers": [0]},
    ),
}


def reference(case: str) -> Any:
    """A random transformers model whose weights are far enough from zero for mistakes to show."""
    config, model, options = CASES[case]
    torch.manual_seed(0)
    built = getattr(transformers, model)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No progress bars of transformers in the report."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


@pytest.fixture(params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Decoder]:
    """A transformers model, and ours loaded from its folder."""
    theirs = reference(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, load_model(tmp_path / "theirs")[0]


def tokens(rows: int = 3, width: int = 40) -> torch.Tensor:
    return torch.randint(0, 31, (rows, width), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_agree(pair):
    theirs, ours = pair
    expected = theirs(tokens()).logits
    assert expected.std() > 0.1
    assert (ours.logits(ours(tokens())) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_the_export_loads_there_without_a_missing_or_unexpected_key(pair, tmp_path):
    theirs, ours = pair
    save_model(ours, tmp_path / "ours")
    again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(
        info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    )
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert (again.eval()(tokens()).logits - theirs(tokens()).logits).abs().max() <= 1e-5


@torch.no_grad()
def test_greedy_tokens_agree_with_generate(pair):
    theirs, ours = pair
    prompt_BT = tokens(4, 7)
    options = {
        "max_new_tokens": 24,
        "do_sample": False,
        "pad_token_id": 0,
        "attention_mask": torch.ones_like(prompt_BT),
    }
    expected = theirs.generate(prompt_BT, **options)[:, 7:]
    cache = KeyValueCache(ours.config, 4, 31)
    hidden_BTD, found = ours(prompt_BT, cache=cache), []
    for _ in range(24):
        token_B = ours.logits(hidden_BTD[:, -1]).argmax(-1)
        found.append(token_B)
        if len(found) < 24:
            hidden_BTD = ours(token_B[:, None], cache=cache)
    assert torch.equal(torch.stack(found, 1), expected)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_a_fresh_model_of_ours_means_the_same_there(layout, tied, tmp_path):
    shape = {
        "vocab_size": 31,
        "width": 32,
        "layers": 2,
        "heads": 4,
        "inner": 128,
        "context": 64,
        "tied": tied,
    }
    ours = Decoder(PRESETS[layout](**shape)).initialise(0).eval()
    save_model(ours, tmp_path, eos_id=1, pad_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.config.eos_token_id == 1
    assert theirs.generation_config.pad_token_id == 0
    assert (theirs(tokens()).logits - ours.logits(ours(tokens()))).abs().max() <= 1e-5


@torch.no_grad()
def test_a_sharded_folder_agrees(tmp_path):
    theirs = reference("qwen2")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = set(json.loads((tmp_path / INDEX).read_text())["weight_map"].values())
    assert len(shards) > 2
    ours, _ = load_model(tmp_path)
    assert (ours.logits(ours(tokens())) - theirs(tokens()).logits).abs().max() <= 1e-5
