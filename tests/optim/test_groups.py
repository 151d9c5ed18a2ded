"""Parameter groups: what decays, which update is used, and subsets by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.models.decoder import PRESETS, Decoder
from lineal.optim.groups import adamw, decay_groups, select_parameters, set_learning_rate


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    config = PRESETS["gpt2"](vocab_size=5, width=8, layers=12, heads=2, inner=12, context=8)
    return dict(Decoder(config).named_parameters())


def names_of(group: dict) -> list[str]:
    return [name for name, _ in group["params"]]


# --- decay


def test_matrices_decay_and_gains_and_biases_do_not(parameters: dict[str, nn.Parameter]):
    matrices, others = decay_groups(parameters, 0.1)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert "embedding.weight" in names_of(matrices)
    assert all(parameter.ndim == 2 for _, parameter in matrices["params"])
    assert all("norm" in name or name.endswith("bias") for name in names_of(others))
    assert sorted(names_of(matrices) + names_of(others)) == sorted(parameters)


def test_a_scale_parts_the_groups_further(parameters: dict[str, nn.Parameter]):
    optimiser = adamw(
        parameters, 0.1, weight_decay=0.5, scale=lambda name: 0.25 if "embedding" in name else 1.0
    )
    set_learning_rate(optimiser, 0.2)
    rates = {name: group["lr"] for group in optimiser.param_groups for name in group["param_names"]}
    assert rates == {name: 0.05 if "embedding" in name else 0.2 for name in parameters}


def test_frozen_parameters_and_empty_groups_are_left_out(parameters: dict[str, nn.Parameter]):
    for name, parameter in parameters.items():
        parameter.requires_grad_(name.endswith("bias"))
    (group,) = decay_groups(parameters, 0.1)
    assert group["weight_decay"] == 0.0
    assert names_of(group) == [name for name in parameters if name.endswith("bias")]


def test_a_step_without_gradient_shrinks_matrices_only(parameters: dict[str, nn.Parameter]):
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(1.0)
    optimiser = adamw(parameters, 0.1, weight_decay=0.5)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for parameter in parameters.values():
        expected = 0.95 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))


# --- AdamW


def trained(fused: bool | None) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimiser = adamw(dict(model.named_parameters()), 1e-2, betas=(0.8, 0.9), weight_decay=0.1, fused=fused)
    for step in range(5):
        optimiser.zero_grad()
        model(torch.full((4, 3), float(step))).square().sum().backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_fused_update_is_taken_where_there_is_one_and_gives_the_same():
    optimiser = adamw({"weight": nn.Parameter(torch.ones(2, 2))}, 1e-3)
    assert all(group["fused"] for group in optimiser.param_groups)
    torch.testing.assert_close(trained(True), trained(False), rtol=1e-6, atol=1e-7)
    assert torch.equal(trained(None), trained(True))


def test_where_there_is_no_fused_update_the_plain_one_serves():
    odd = {"weight": nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))}
    odd["weight"].grad = torch.ones_like(odd["weight"])
    with pytest.raises(RuntimeError, match="fused"):
        adamw(odd, 1e-3, fused=True).step()
    optimiser = adamw(odd, 0.5)
    optimiser.step()
    assert [group["fused"] for group in optimiser.param_groups] == [False]
    assert float(odd["weight"].detach().real.max()) == pytest.approx(0.5)


def test_the_state_can_be_saved_by_name(parameters: dict[str, nn.Parameter]):
    groups = adamw(parameters, 1e-3).state_dict()["param_groups"]
    assert sorted(name for group in groups for name in group["param_names"]) == sorted(parameters)


def test_an_optimiser_over_nothing_is_refused(parameters: dict[str, nn.Parameter]):
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    with pytest.raises(UsageError, match="unfrozen"):
        adamw(parameters, 1e-3)


def test_the_learning_rate_is_set_in_proportion_to_each_groups_scale():
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([{"params": [one]}, {"params": [two], "scale": 1 / 2.6}], lr=1.0)
    set_learning_rate(optimiser, 0.01)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.01, 0.01 / 2.6])


# --- subsets


def test_no_pattern_means_all(parameters: dict[str, nn.Parameter]):
    assert select_parameters(parameters, None) == parameters


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("blocks.1", lambda name: name.startswith("blocks.1.")),
        ("blocks.11.", lambda name: name.startswith("blocks.11.")),
        ("1.attention", lambda name: name.startswith("blocks.1.attention")),
        ("mlp", lambda name: ".mlp." in name or ".mlp_norm." in name),
        ("blocks.1*", lambda name: name.startswith(("blocks.1.", "blocks.10.", "blocks.11."))),
        (
            "blocks.1[01].*.bias",
            lambda name: name.startswith("blocks.1") and name[8] in "01" and ".bias" in name,
        ),
        ("embedding", lambda name: name == "embedding.weight"),
        ("*", lambda name: True),
    ],
)
def test_a_pattern_is_a_glob_or_a_part_that_cuts_no_number(parameters, pattern: str, expected):
    assert list(select_parameters(parameters, [pattern])) == [name for name in parameters if expected(name)]


def test_several_patterns_add_up_in_the_models_order_and_without_repeats(parameters):
    chosen = list(select_parameters(parameters, ["blocks.11", "embedding", "blocks.11.mlp"]))
    assert chosen[0] == "embedding.weight"
    assert len(set(chosen)) == len(chosen)
    assert chosen == [name for name in parameters if name in set(chosen)]
    assert all(select_parameters(parameters, chosen)[name] is parameters[name] for name in chosen)


def test_a_pattern_that_matches_nothing_names_its_neighbour(parameters):
    with pytest.raises(UsageError, match=r"'blocs\.3'.*nearest name is 'blocks\.3"):
        select_parameters(parameters, ["embedding", "blocs.3"])
    with pytest.raises(UsageError, match="nearest"):
        select_parameters(parameters, [""])
    with pytest.raises(UsageError, match=r"no parameter's name matches 'blocks\.12'"):
        select_parameters(parameters, ["blocks.12"])


def test_frozen_parameters_are_never_chosen_and_asking_for_them_alone_is_refused(parameters):
    parameters["embedding.weight"].requires_grad_(False)
    assert "embedding.weight" not in select_parameters(parameters, None)
    with pytest.raises(UsageError, match="frozen"):
        select_parameters(parameters, ["embedding"])
