"""Saving and loading whole model folders, and config.json of every layout."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.hf import load_config, load_model, read_tensors, save_model
from lineal.models.hf.files import write_tensors
from lineal.models.layers import RopeScaling

SHAPE = {"vocab_size": 13, "width": 16, "layers": 2, "heads": 4, "inner": 64, "context": 24}


def saved(folder: Path, layout: str = "llama", **options: object) -> Decoder:
    decoder = Decoder(PRESETS[layout](**{**SHAPE, **options})).initialise(0).eval()
    save_model(decoder, folder)
    return decoder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


VARIANTS = [
    ("openai-gpt", {"dropout": 0.1}),
    ("gpt2", {"inner": 40, "tied": False}),
    ("llama", {"kv_heads": 2, "tied": False, "head_width": 6}),
    ("llama", {"qkv_bias": True, "out_bias": True, "mlp_bias": True}),
    ("llama", {"rope_theta": 5e5, "rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 16)}),
    ("llama", {"rope_scaling": RopeScaling("linear", 2.0), "norm_eps": 1e-5}),
    ("qwen2", {"kv_heads": 1}),
    ("qwen3", {"kv_heads": 2, "head_width": 8, "tied": False}),
]


@pytest.mark.parametrize(("layout", "options"), VARIANTS)
def test_a_round_trip_keeps_configuration_and_weights(tmp_path, layout, options):
    decoder = saved(tmp_path, layout, **options)
    again, config = load_model(tmp_path)
    assert config == decoder.config
    assert not again.training
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert ("lm_head.weight" in read_tensors(tmp_path)) == (not config.tied)


def test_the_rotary_tables_of_a_loaded_model_are_filled(tmp_path):
    decoder = saved(tmp_path)
    again, _ = load_model(tmp_path, torch.float64)
    expected = decoder.double().rotary
    assert again.rotary is not None and expected is not None
    assert torch.equal(again.rotary.sin_SD, expected.sin_SD)


def test_weights_take_the_type_asked_for(tmp_path):
    decoder = Decoder(PRESETS["llama"](**SHAPE)).initialise(0).to(torch.bfloat16)
    save_model(decoder, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    for dtype in (torch.float32, torch.bfloat16):
        again, _ = load_model(tmp_path, dtype)
        assert again.dtype == dtype
        assert torch.equal(again.embedding.weight.float(), decoder.embedding.weight.float())


def test_whole_tensors_can_be_given_apart(tmp_path):
    decoder = Decoder(PRESETS["llama"](**SHAPE)).initialise(0)
    other = {name: p + 1 for name, p in decoder.named_parameters()}
    save_model(decoder, tmp_path, tensors=other)
    again, _ = load_model(tmp_path)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, other[name])


def test_special_ids_go_into_both_configurations(tmp_path):
    decoder = saved(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["eos_token_id"] is None and content["bos_token_id"] is None
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {}
    save_model(decoder, tmp_path, eos_id=[1, 2], pad_id=0)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / name).read_text())
        assert (content["eos_token_id"], content["pad_token_id"]) == ([1, 2], 0)


def test_names_without_their_prefix_and_old_buffers_are_read(tmp_path):
    decoder = saved(tmp_path, "gpt2")
    bare = {name.removeprefix("transformer."): t for name, t in read_tensors(tmp_path).items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
    bare["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    write_tensors(tmp_path, bare)
    again, _ = load_model(tmp_path)
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_rope_settings_of_older_folders_are_read(tmp_path):
    saved(tmp_path)
    scaling = {"type": "linear", "factor": 4.0}
    edit(tmp_path, rope_parameters=None, rope_theta=777.0, rope_scaling=scaling)
    config = load_config(tmp_path)
    assert config.rope_theta == 777.0
    assert config.rope_scaling == RopeScaling("linear", 4.0)
    edit(tmp_path, rope_scaling=None)
    assert load_config(tmp_path).rope_scaling is None


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("llama", {"model_type": "mamba"}, "architecture mamba is not supported; supported are llama, qwen2"),
        ("llama", {"model_type": None, "architectures": ["X"]}, r"\['X'\] is not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act to 'gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}},
            "does not say low_freq_factor",
        ),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama", {"num_attention_heads": 0}, "config.json lacks or holds a value that makes no model"),
        ("llama", {"num_hidden_layers": -1}, "layers must be at least 1; -1"),
        ("llama", {"hidden_size": "many"}, "config.json lacks or holds a value"),
        ("llama", {"vocab_size": None}, "does not say vocab_size"),
        ("llama", {"num_key_value_heads": 3}, "config.json: 4 heads cannot share 3"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window to True"),
        ("gpt2", {"activation_function": "relu"}, "activation_function to 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("openai-gpt", {"afn": "relu"}, "afn to 'relu'"),
    ],
)
def test_what_we_cannot_compute_is_refused(tmp_path, layout, change, message):
    saved(tmp_path, layout)
    edit(tmp_path, head_dim=None)
    edit(tmp_path, **change)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)


def test_a_missing_or_misshapen_or_unknown_tensor_is_named(tmp_path):
    saved(tmp_path, tied=False)
    tensors = read_tensors(tmp_path)
    name = "model.layers.1.self_attn.k_proj.weight"
    for change, message in (
        ({name: None}, f"lacks the tensor {name}"),
        (
            {name: torch.zeros(3, 16)},
            r"k_proj.weight \+ .* has shape \[35, 16\]; config.json implies \[48, 16\]",
        ),
        ({"lm_head.weight": None}, "lacks the tensor lm_head.weight"),
        (
            {"score.weight": torch.zeros(2, 16)},
            "holds score.weight .and 0 more. that layout llama has no place",
        ),
    ):
        changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        write_tensors(tmp_path, changed)
        with pytest.raises(ModelError, match=message):
            load_model(tmp_path)


def test_no_code_of_a_folder_is_run(tmp_path):
    saved(tmp_path)
    (tmp_path / "modeling.py").write_text("raise SystemExit('run')")
    edit(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    load_model(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    decoder = Decoder(PRESETS["llama"](**SHAPE))
    with pytest.raises(ModelError, match="cannot be made"):
        save_model(decoder, tmp_path / "file" / "folder")


def test_configurations_are_equal_by_value():
    config = PRESETS["llama"](**SHAPE)
    assert dataclasses.replace(config) == config
