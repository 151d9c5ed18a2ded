"""An algorithm's formula in words and Unicode mathematics, put together from its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineal.objectives.definition import Algorithm


def short(number: int | float) -> str:
    """A number as a person writes it: 1e-6, 0.28, 4."""
    return f"{number:g}".replace("e-0", "e-").replace("e+0", "e")


def describe(algorithm: Algorithm) -> str:
    """The formula: what is maximised, what each symbol is, which groups, how parameters move, and the critic."""
    definitions = [
        algorithm.ratio.formula(),
        algorithm.advantage.formula(),
        algorithm.reduction.legend,
        *(penalty.legend() for penalty in algorithm.penalty),
    ]
    lines = [
        f"{algorithm.name}: maximise {objective_formula(algorithm)}",
        "  where " + "; ".join(text for text in definitions if text),
        f"  {algorithm.group.formula()}; {algorithm.step.formula()}",
    ]
    critic = algorithm.advantage.critic_part
    if critic is not None:
        lines.append(f"  critic ({critic.kind}): minimise {short(critic.coefficient)} · {critic.formula()}")
    return "\n".join(lines)


def objective_formula(algorithm: Algorithm) -> str:
    """The expression that is maximised, on one line."""
    term = algorithm.surrogate.formula(algorithm.ratio.symbol, algorithm.advantage.symbol)
    inside = [penalty.formula() for penalty in algorithm.penalty if penalty.inside]
    outside = [penalty.formula() for penalty in algorithm.penalty if not penalty.inside]
    if inside:
        term = f"[{' '.join([term, *inside])}]"
    sums = algorithm.reduction.formula(algorithm.ratio.whole_sequence and not inside)
    return " ".join(text for text in (sums, term, *outside) if text)
