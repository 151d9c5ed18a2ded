"""The shape key and the few records that travel between folders.

Suffixes of tensor names, everywhere: B completions or environments, T tokens or steps, V vocabulary, D width,
H heads, L layers, G group, P prompts, N free (a flattened or unnamed axis).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Completion:
    """One sampled answer to one prompt.

    ids: token ids, the end-of-text token included when it was sampled.
    logp: log-probability of each id under the policy that sampled it (`behaviour_logp`), at its temperature.
    finish: "stop" (end-of-text, a stop id or a stop string: *terminated*) or "length" (the cap: *truncated*).
    route_NLK: of a mixture of experts, when asked for: the experts that the prompt's tokens and these but the last went
    to, [tokens, mixture layers, k].
    """

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    finish: str
    route_NLK: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Rollout:
    """A batch of experience, rectangular [B, T], from text or from environments.

    action_BT: token ids or choices, 0 where padded; several choices or A real numbers per step as [B, T, A].
    mask_BT: True where a step counts.
    reward_BT: reward of each step; an outcome reward sits on its completion's last counted token.
    behaviour_logp_BT: log-probability under the policy that sampled, as the sampler saw it.
    group_B: index in 0..P-1 of the prompt that each row answers.
    terminated_BT, truncated_BT: the step ended its episode (end-of-text; length cap).
    segment_BT: index of the episode within its row, 0 for text.
    old_logp_BT: log-probability under the policy at the start of the update, from the trainer's own forward.
    reference_logp_BT: log-probability under the frozen reference policy.
    value_BT, next_value_BT: the critic's value before each step, and after it (before any reset).
    prompts: for text, the P prompts as token ids; row b answers prompts[group_B[b]].
    route_BTLK: of a mixture of experts, those that each token went to when it was sampled, by mixture layer; -1 where it
    was not read (the last one). prompt_route_NLK: the same of the prompts' tokens, one prompt after another.
    """

    action_BT: Int[Tensor, "B T"] | Int[Tensor, "B T A"] | Float[Tensor, "B T A"]
    mask_BT: Bool[Tensor, "B T"]
    reward_BT: Float[Tensor, "B T"]
    behaviour_logp_BT: Float[Tensor, "B T"]
    group_B: Int[Tensor, " B"]
    terminated_BT: Bool[Tensor, "B T"]
    truncated_BT: Bool[Tensor, "B T"]
    segment_BT: Int[Tensor, "B T"]
    old_logp_BT: Float[Tensor, "B T"] | None = None
    reference_logp_BT: Float[Tensor, "B T"] | None = None
    value_BT: Float[Tensor, "B T"] | None = None
    next_value_BT: Float[Tensor, "B T"] | None = None
    prompts: tuple[tuple[int, ...], ...] = ()
    route_BTLK: Int[Tensor, "B T L K"] | None = None
    prompt_route_NLK: Int[Tensor, "N L K"] | None = None

    def rows(self, index: Tensor) -> Rollout:
        """The rollout of the given rows only; `prompts` stay whole, so `group_B` keeps its meaning."""
        changed = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name not in ("prompts", "prompt_route_NLK") and value is not None:
                changed[part.name] = value[index]
        return replace(self, **changed)


@dataclass(frozen=True)
class Scores:
    """What a policy says about the steps of a rollout (or of some of its rows); gradients flow through it.

    logp_BT: log-probability of each action; 0 where padded.
    entropy_BT: entropy of each step's distribution, when asked for.
    kl_BT: exact KL(old || new) of each step's distribution, when asked for.
    value_BT: the critic's value before each step, when there is a critic.
    reference_kl_BT: exact KL(new || reference) of each step's distribution, when asked for.
    changed_BT: of a mixture of experts, the share of the experts chosen when sampling that would not be chosen now.
    """

    logp_BT: Float[Tensor, "B T"]
    entropy_BT: Float[Tensor, "B T"] | None = None
    kl_BT: Float[Tensor, "B T"] | None = None
    value_BT: Float[Tensor, "B T"] | None = None
    reference_kl_BT: Float[Tensor, "B T"] | None = None
    changed_BT: Float[Tensor, "B T"] | None = None
