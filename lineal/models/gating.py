"""Gating networks: which experts a token goes to, and with what weight (Shazeer et al. 2017, section 2.1).

Shapes here: N tokens, E experts (or groups of them), K experts chosen for a token, D width, M (token, group) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError

GATES = ("noisy_top_k", "top_k", "softmax")
OVERFLOWS = ("next", "around")

Noise = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, position of each token [N], number of each gate's output [N, E]) -> standard normal numbers [N, E]."""


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in the place of a feed-forward layer.

    count: experts, over all groups. chosen: k, experts of each token; with groups k at each of the two levels, so that
    a token goes to k * k experts. inner: hidden width of each expert.
    activation: "swiglu" (Mixtral, Qwen3) or "relu" (the paper's experts: one hidden layer, no biases).
    gate: "noisy_top_k" (trainable noise while training), "top_k" (none), "softmax" (every expert, k is not used).
    renormalise: weights are a softmax over the chosen experts alone; False: over all, so that they sum to less than 1.
    groups: a of the two-level hierarchy, each with count / a experts; 1 for a flat mixture.
    capacity: an expert takes at most ceil(capacity * choices / count) tokens of a training batch; None: all that come.
    overflow: tokens that find their expert full go to the "next" best one with room, or "around" the layer.
    dense: numbers of the decoder's layers that keep their ordinary feed-forward.
    """

    count: int
    chosen: int = 2
    inner: int = 1024
    activation: str = "swiglu"
    gate: str = "top_k"
    renormalise: bool = True
    groups: int = 1
    capacity: float | None = None
    overflow: str = "next"
    dense: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("count", "chosen", "inner", "groups"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of experts must be at least 1; {getattr(self, name)} was given.")
        for name, allowed in (
            ("activation", ("swiglu", "relu")),
            ("gate", GATES),
            ("overflow", OVERFLOWS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}.")
        if self.count % self.groups:
            raise UsageError(f"{self.count} experts cannot be dealt evenly to {self.groups} groups.")
        for choices, what in self.levels:
            if self.chosen > choices and self.gate != "softmax":
                raise UsageError(
                    f"each token should go to {self.chosen} of {choices} {what}: choose at most {choices} (k is the "
                    "number chosen), or make more."
                )
        # nan is not above 0 either.
        if self.capacity is not None and not self.capacity > 0:
            raise UsageError(
                f"a capacity factor of {self.capacity:g} leaves the experts no room: it must be above 0 (1 is just enough "
                "when all are chosen equally often; None takes all tokens)."
            )
        if self.capacity == math.inf:
            raise UsageError("a capacity factor of inf is no number of tokens: None takes all that come.")
        if self.groups > 1 and self.gate == "softmax":
            raise UsageError("a softmax gate uses every expert, so groups would save nothing: use groups=1.")

    @property
    def per_group(self) -> int:
        """Experts of one group."""
        return self.count // self.groups

    @property
    def levels(self) -> tuple[tuple[int, str], ...]:
        """What is chosen from at each level, and its name."""
        if self.groups == 1:
            return ((self.count, "experts"),)
        return ((self.groups, "groups of experts"), (self.per_group, "experts of a group"))

    @property
    def noisy(self) -> bool:
        """Whether the gates have trainable noise."""
        return self.gate == "noisy_top_k"

    @property
    def active(self) -> int:
        """Experts that compute for one token."""
        return self.count if self.gate == "softmax" else self.chosen ** len(self.levels)


@dataclass(frozen=True)
class Gating:
    """What one gating network says of its tokens.

    clean_NE: x W_g. noisy_NE: H(x) = clean + noise * scale; the same tensor where there is no noise.
    scale_NE: softplus(x W_noise), None where there is no noise. chosen_NK: the k greatest of noisy_NE (the gate's own
    choice, whatever was replayed or refused). gate_NK: their weights.
    """

    clean_NE: Tensor
    noisy_NE: Tensor
    scale_NE: Tensor | None
    chosen_NK: Tensor
    gate_NK: Tensor


@dataclass(frozen=True)
class Routing:
    """Where one layer sent the tokens of one pass; gradients flow through all but the numbers of experts.

    expert_NK: the expert of each place, -1 where none took the token. weight_NK: with what weight; 0 there.
    wanted_NK: what the gate itself chose. primary: the gate over experts, or over groups of them.
    secondary, pair_M, group_M: with groups, the gates inside the chosen groups: row m belongs to pair pair_M[m] (token *
    k + place, see `primary.chosen_NK`) and to group group_M[m].
    """

    layer: int
    config: ExpertsConfig
    expert_NK: Tensor
    weight_NK: Tensor
    wanted_NK: Tensor
    primary: Gating
    secondary: Gating | None = None
    pair_M: Tensor | None = None
    group_M: Tensor | None = None


class Routes:
    """What a pass tells the mixture layers that it goes through, and what they tell it.

    noise: where noisy gates get their normal numbers; None: no noise, as whenever a policy samples or is scored.
    limited: whether experts have their capacity (a training batch), or take all that come.
    position_N: the number of each token in the batch, for the noise and for who comes first; None: 0..N-1.
    replay_NLK: experts to use, [tokens, mixture layers in order, k], -1 where the gate decides; weights are the
    gate's own of today. together: of several processes that share a batch, gives the rows of all of them and where one's
    own stand, None where they do not count; for capacity. keep: whether `routing` is filled, one entry per mixture layer.
    """

    # No dataclass: FSDP copies those on their way into a module, and what layers add to a copy would be lost.

    def __init__(
        self,
        noise: Noise | None = None,
        *,
        limited: bool = False,
        position_N: Tensor | None = None,
        replay_NLK: Tensor | None = None,
        together: Callable[[Tensor], tuple[Tensor, slice | None]] | None = None,
        keep: bool = True,
    ) -> None:
        self.noise, self.limited, self.position_N = noise, limited, position_N
        self.replay_NLK, self.together, self.keep = replay_NLK, together, keep
        self.routing: list[Routing] = []
        self.seen = 0

    def replayed(self) -> Tensor | None:
        """The next mixture layer's experts [N, K], or None."""
        self.seen += 1
        return None if self.replay_NLK is None else self.replay_NLK[:, self.seen - 1]

    def positions(self, count: int, device: torch.device) -> Tensor:
        """The number of each token."""
        return torch.arange(count, device=device) if self.position_N is None else self.position_N


class Gate(nn.Module):
    """A gating network over `count` outputs; with `groups` one such network per group, for rows sorted by group.

    G(x) = softmax(KeepTopK(H(x), k)), H(x) = x W_g + normal() * softplus(x W_noise). W_g and W_noise start at zero
    where there is noise: no signal and some noise (the paper's appendix A). Scores are float32 or better whatever the
    precision around them, so that ties and near-ties do not depend on it.
    """

    def __init__(self, width: int, count: int, noisy: bool, groups: int = 1):
        super().__init__()
        shape = (count, width) if groups == 1 else (groups, count, width)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.noise = nn.Parameter(torch.zeros(shape)) if noisy else None

    def forward(
        self,
        x_ND: Float[Tensor, "N D"],
        normal: Callable[[], Tensor] | None = None,
        sizes: list[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Clean scores, noisy scores [N, E] and the noise's scale; without `normal` the first two are one tensor.

        sizes: with groups, how many rows belong to each.
        """
        with torch.autocast(x_ND.device.type, enabled=False):
            clean_NE = _scores(x_ND, self.weight, sizes)
            if self.noise is None or normal is None:
                return clean_NE, clean_NE, None
            scale_NE = F.softplus(_scores(x_ND, self.noise, sizes))
            return clean_NE, clean_NE + normal().to(clean_NE.dtype) * scale_NE, scale_NE


def _scores(x_ND: Tensor, weight: Tensor, sizes: list[int] | None) -> Tensor:
    x_ND = x_ND.to(weight.dtype)
    if sizes is None:
        found = F.linear(x_ND, weight)
    else:
        parts = zip(x_ND.split(sizes), weight.unbind(0))
        found = torch.cat([F.linear(part, own) for part, own in parts])
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


def choose(
    scores: tuple[Tensor, Tensor, Tensor | None],
    chosen: int | None,
    renormalise: bool = True,
    replay_NK: Int[Tensor, "N K"] | None = None,
) -> tuple[Gating, Int[Tensor, "N K"], Float[Tensor, "N K"]]:
    """The gate's own choice, and the experts to use with their weights: its own, or what is replayed.

    chosen: k; None takes every expert (softmax gating).
    """
    clean_NE, noisy_NE, scale_NE = scores
    count = noisy_NE.shape[1]
    if chosen is None:
        expert_NK = torch.arange(count, device=noisy_NE.device).expand(len(noisy_NE), count)
        weight_NK = noisy_NE.softmax(-1)
        return Gating(clean_NE, noisy_NE, scale_NE, expert_NK, weight_NK), expert_NK, weight_NK
    own_NK = noisy_NE.detach().topk(chosen, sorted=True).indices
    own = weights(noisy_NE, own_NK, renormalise)
    gating = Gating(clean_NE, noisy_NE, scale_NE, own_NK, own)
    if replay_NK is None:
        return gating, own_NK, own
    expert_NK = torch.where(replay_NK >= 0, replay_NK, own_NK)
    return gating, expert_NK, weights(noisy_NE, expert_NK, renormalise)


def weights(
    score_NE: Float[Tensor, "N E"], expert_NK: Int[Tensor, "N K"], renormalise: bool = True
) -> Float[Tensor, "N K"]:
    """softmax over the given experts' scores (-1 is none of them: weight 0), or over all experts where not renormalised."""
    there_NK = expert_NK >= 0
    if not renormalise:
        return score_NE.softmax(-1).gather(1, expert_NK.clamp_min(0)) * there_NK
    taken_NK = score_NE.gather(1, expert_NK.clamp_min(0))
    # A token that nobody took has no finite score; its weights are 0, not nan.
    lost_N1 = ~there_NK.any(1, keepdim=True)
    taken_NK = taken_NK.masked_fill(~there_NK & ~lost_N1, -torch.inf)
    return taken_NK.softmax(-1) * there_NK
