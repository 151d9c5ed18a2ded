"""An algorithm's formula in words and Unicode mathematics, put together from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineal.objectives.definition import Algorithm


def describe(algorithm: Algorithm) -> str:
    """The formula: what is maximised, where each symbol comes from, which groups, and how parameters move."""
    lines = [f"{algorithm.name}: maximise {objective_formula(algorithm)}"]
    where = [text for text in (algorithm.ratio.formula(), algorithm.advantage.formula()) if text]
    lines.append(f"  where {'; '.join(where)}")
    lines.append(f"  {algorithm.group.formula()}; {algorithm.step.formula()}")
    critic = algorithm.advantage.critic_part
    if critic is not None:
        lines.append(f"  critic ({critic.kind}): minimise {critic.coefficient:g} · {critic.formula()}")
    return "\n".join(lines)


def objective_formula(algorithm: Algorithm) -> str:
    """The expression that is maximised, on one line."""
    sums = algorithm.reduction.formula(algorithm.ratio.whole_sequence)
    term = algorithm.surrogate.formula(algorithm.ratio.symbol, algorithm.advantage.symbol)
    return " ".join([sums, term, *(penalty.formula() for penalty in algorithm.penalty)])
