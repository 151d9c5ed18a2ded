"""The recurrent model: reading on from a state, its layers as the paper writes them, and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError, UsageError
from lineal.models.gating import ExpertsConfig, Routes
from lineal.models.hf.files import read_tensors, write_tensors
from lineal.models.hf.recurrent import is_recurrent, load_recurrent, save_recurrent
from lineal.models.lstm import LSTMConfig, RecurrentModel, recurrent_parameters

EXPERTS = ExpertsConfig(6, 2, 10, activation="relu", gate="noisy_top_k")


def built(**options: object) -> RecurrentModel:
    config = LSTMConfig(**{"vocab_size": 13, "width": 8, "context": 12, "experts": EXPERTS, **options})  # type: ignore[arg-type]
    model = RecurrentModel(config).initialise(0).double().eval()
    with torch.no_grad():
        if model.mixture is not None:
            made = torch.Generator().manual_seed(1)
            model.mixture.gate.weight.copy_(torch.randn(model.mixture.gate.weight.shape, generator=made))
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 13, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"experts": None}, {"tied": True}, {"layers": 3}, {"hidden": 16}])
def test_reading_on_from_a_state_is_reading_at_once(options: dict) -> None:
    model = built(**options)
    whole_BTD = model(tokens())
    first_BTD, state = model.read(tokens()[:, :5])
    rest_BTD, _ = model.read(tokens()[:, 5:], state)
    torch.testing.assert_close(torch.cat((first_BTD, rest_BTD), 1), whole_BTD)
    assert model.logits(whole_BTD).shape == (3, 12, 13)


def test_the_layers_are_the_papers() -> None:
    """Embedding, LSTM, mixture through a sigmoid, LSTM: each added to what went into it."""
    model = built()
    assert model.mixture is not None
    x_BTD = model.embedding(tokens())
    x_BTD = x_BTD + model.layers[0](x_BTD)[0]
    x_BTD = x_BTD + torch.sigmoid(model.mixture(x_BTD))
    x_BTD = x_BTD + model.layers[1](x_BTD)[0]
    torch.testing.assert_close(model(tokens()), x_BTD)


def test_a_later_token_changes_nothing_before_it() -> None:
    model, changed = built(), tokens()
    changed[:, 7] = (changed[:, 7] + 1) % 13
    before, after = model(tokens()), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amax((0, 2)).min() > 0


def test_dropout_is_for_training() -> None:
    model = built(dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    torch.manual_seed(0)
    one = model(tokens())
    torch.manual_seed(0)
    assert torch.equal(model(tokens()), one)
    assert not torch.equal(model(tokens()), one)


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    one = built().state_dict()
    torch.manual_seed(6)
    other = built().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    forget = RecurrentModel(built().config).initialise(0).layers[0].bias_ih_l0.chunk(4)[1]  # type: ignore[operator]
    assert forget.eq(1).all()
    fresh = RecurrentModel(built().config).initialise(0)
    assert fresh.mixture is not None and fresh.mixture.gate.weight.abs().max() == 0


def test_the_mixture_says_where_tokens_went() -> None:
    routes = Routes()
    built()(tokens(), routes=routes)
    assert routes.routing[0].expert_NK.shape == (36, 2)


def test_parameters_are_counted() -> None:
    model = built()
    whole, active = recurrent_parameters(model.config)
    assert whole == sum(parameter.numel() for parameter in model.parameters())
    assert whole - active == 4 * 2 * 8 * 10
    assert recurrent_parameters(built(experts=None).config)[0] < active


def test_a_folder_comes_back(tmp_path: Path) -> None:
    model = built(
        dropout=0.1, experts=ExpertsConfig(8, 2, 10, activation="relu", gate="noisy_top_k", groups=4)
    )
    save_recurrent(model.float(), tmp_path, eos_id=3, pad_id=None)
    assert is_recurrent(tmp_path)
    again = load_recurrent(tmp_path)
    assert again.config == model.config and not again.training
    assert torch.equal(again(tokens()), model.eval()(tokens()))
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9}, "embedding.weight is .13, 8. in the file, and config.json implies .13, 9."),
        ({"width": "wide"}, "makes no model"),
        ({"experts": {"count": 2, "chosen": 3}}, "choose at most 2"),
        ({"layers": 0}, "layers must be at least 1"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, change: dict, message: str) -> None:
    save_recurrent(built(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        load_recurrent(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    save_recurrent(built(), tmp_path)
    tensors = read_tensors(tmp_path)
    del tensors["head.weight"]
    write_tensors(tmp_path, tensors)
    with pytest.raises(ModelError, match=r"head\.weight is absent in the file"):
        load_recurrent(tmp_path)


@pytest.mark.parametrize(("options", "message"), [({"hidden": 4}, "4 cells"), ({"width": 0}, "width must be"),
                                                  ({"layout": "llama"}, "no recurrent model's")])  # fmt: skip
def test_shapes_that_make_no_model_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LSTMConfig(**{"vocab_size": 13, "width": 8, "context": 12, **options})
