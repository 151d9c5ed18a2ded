"""An algorithm is a value, `Algorithm(group, advantage, ratio, surrogate, reduction, penalty, step)`, and
this is everything a loop does with one; the parts themselves live in the module of their slot, the named
values in `policy.py`.

::

    algorithm = complete(named("grpo"), max_new_tokens)          needs(algorithm): what the loop must supply
    state = initial_state(algorithm)
    batch = prepare(algorithm, rollout, state)                   rewards -> advantages, once per rollout
    for row_N, part in split(algorithm, batch, seed):            optimiser batches, each with its own weights
        value, metrics = objective(algorithm, scores, part, state)        maximise; plain sums over rows loss,
        more = value_loss(algorithm, scores, part)                  minimise, when needs(algorithm).critic
    state = update_state(algorithm, state, statistics(algorithm, rollout, state) | {"kl": kl})
"""

from lineal.objectives.batch import Batch
from lineal.objectives.definition import Algorithm, Needs, initial_state, needs
from lineal.objectives.group import Group, mixed_groups
from lineal.objectives.objective import objective, value_loss
from lineal.objectives.override import override
from lineal.objectives.prepare import complete, correct, prepare, split
from lineal.objectives.progress import statistics, summarise, update_state
from lineal.objectives.state import AlgorithmState
from lineal.objectives.step import Adam, NaturalGradient, TrustRegion
from lineal.objectives.value import Critic

__all__ = [
    "Adam",
    "Algorithm",
    "AlgorithmState",
    "Batch",
    "Critic",
    "Group",
    "NaturalGradient",
    "Needs",
    "TrustRegion",
    "complete",
    "correct",
    "initial_state",
    "mixed_groups",
    "needs",
    "objective",
    "override",
    "prepare",
    "split",
    "statistics",
    "summarise",
    "update_state",
    "value_loss",
]
