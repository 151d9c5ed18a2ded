"""What an algorithm prints: its formula, put together from its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lineal.objectives.advantage import FullReturn, RewardToGo
from lineal.objectives.algorithm import NaturalGradient, complete
from lineal.objectives.baseline import Learned
from lineal.objectives.formula import objective_formula, short
from lineal.objectives.penalty import Entropy, OldKL, ReferenceKL, SqrtKL
from lineal.objectives.policy import ALGORITHMS, VARIANTS
from lineal.objectives.surrogate import Clip

EVERYTHING = ALGORITHMS | VARIANTS


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("reinforce", "1/B Σᵢ Σₜ log π(yₜ) Aₜ"),
        ("rloo", "1/B Σᵢ Σₜ log π(yₜ) Aᵢ"),
        ("trpo", "1/N Σₜ w Aₜ"),
        ("ppo", "1/N Σₜ min(w Aₜ, clip(w, 1 − 0.2, 1 + 0.2) Aₜ)"),
        ("ppo-kl", "1/N Σₜ w Aₜ − β · 1/N Σₜ KL(π_old ‖ π)"),
        ("grpo", "1/P Σₚ 1/G Σᵢ 1/|yᵢ| Σₜ min(w Aᵢ, clip(w, 1 − 0.2, 1 + 0.2) Aᵢ)"),
        ("dapo", "1/P Σₚ 1/Σᵢ|yᵢ| Σᵢ Σₜ min(w Aᵢ, clip(w, 1 − 0.2, 1 + 0.28) Aᵢ)"),
        ("dr-grpo", "1/P Σₚ 1/G Σᵢ 1/max_new_tokens Σₜ min(w Aᵢ, clip(w, 1 − 0.2, 1 + 0.2) Aᵢ)"),
        ("gspo", "1/P Σₚ 1/G Σᵢ min(s Aᵢ, clip(s, 1 − 0.0003, 1 + 0.0004) Aᵢ)"),
        ("cispo", "1/P Σₚ 1/Σᵢ|yᵢ| Σᵢ Σₜ sg[clip(w, 0, 5)] Aᵢ log π(yₜ)"),
        (
            "grpo-reference-kl",
            "1/P Σₚ 1/G Σᵢ 1/|yᵢ| Σₜ [min(w Aᵢ, clip(w, 1 − 0.2, 1 + 0.2) Aᵢ) − 0.04 KL[k3](π ‖ π_ref)]",
        ),
        ("dr-grpo-formula", "1/P Σₚ 1/G Σᵢ Σₜ min(w Aᵢ, clip(w, 1 − 0.2, 1 + 0.2) Aᵢ)"),
    ],
)
def test_the_objective_on_one_line(name, formula):
    assert objective_formula(EVERYTHING[name]) == formula
    assert str(EVERYTHING[name]).startswith(f"{name}: maximise {formula}\n")


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_symbol_is_explained(name):
    text = str(EVERYTHING[name])
    lines = text.splitlines()
    assert 3 <= len(lines) <= 4
    assert max(len(line) for line in lines) <= 240
    for symbol, definition in (
        ("1/N", "N counted steps"),
        ("1/P", "P prompts"),
        ("1/B", "B completions"),
        (" s ", "s = "),
    ):
        assert (symbol not in lines[0]) or (definition in text)
    assert ("w = π(yₜ) / π_old(yₜ)" in text) == (" w " in lines[0] or "(w" in lines[0])
    assert EVERYTHING[name].step.formula() in lines[2]
    assert ("critic (" in text) == (EVERYTHING[name].advantage.critic_part is not None)


def test_penalties_and_switches_are_printed():
    grpo, rloo = ALGORITHMS["grpo"], ALGORITHMS["rloo"]
    everything = replace(grpo, penalty=(Entropy(0.01), OldKL(0.5, "k3"), ReferenceKL(0.04)))
    assert (
        str(everything)
        .splitlines()[0]
        .endswith("− 0.04 KL[k3](π ‖ π_ref)] + 0.01 · 1/N Σₜ H(π) − 0.5 · 1/N Σₜ KL[k3](π_old ‖ π)")
    )
    assert "− 2 · √(1/N Σₜ KL(π_old ‖ π))" in str(replace(ALGORITHMS["ppo-kl"], penalty=(SqrtKL(2.0),)))
    in_reward = str(replace(rloo, penalty=(ReferenceKL(0.05, "k1", place="reward"),)))
    assert in_reward.splitlines()[0] == str(rloo).splitlines()[0]
    assert "rₜ less 0.05 KL[k1](π_old ‖ π_ref)" in in_reward
    assert "w KL[k1]" in str(replace(grpo, penalty=(ReferenceKL(0.1, "k1", ratio_weighted=True),)))
    assert "Aᵢ < 0: max(" in str(replace(grpo, surrogate=Clip(dual=3.0)))
    gspo = replace(ALGORITHMS["gspo"], penalty=(ReferenceKL(),))
    assert "1/|yᵢ| Σₜ [min(s" in str(gspo)


def test_other_parts_print_too():
    reinforce = ALGORITHMS["reinforce"]
    assert "Aₜ = Σ(k ≥ t) 0.9ᵏ⁻ᵗ rₖ − V(sₜ)" in str(replace(reinforce, advantage=RewardToGo(Learned(), 0.9)))
    assert "Aᵢ = Σₜ 0.9ᵗ rₜ;" in str(replace(reinforce, advantage=FullReturn(discount=0.9)))
    assert "no line search" in str(replace(ALGORITHMS["trpo"], step=NaturalGradient(exact=True)))
    assert "1/64 Σₜ" in str(complete(ALGORITHMS["dr-grpo"], 64))


@pytest.mark.parametrize(
    ("number", "text"), [(1e-6, "1e-6"), (0.28, "0.28"), (4.0, "4"), (3e-4, "0.0003"), (1e20, "1e+20")]
)
def test_numbers_as_a_person_writes_them(number, text):
    assert short(number) == text
