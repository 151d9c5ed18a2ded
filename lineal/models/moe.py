"""The sparsely gated mixture of experts (Shazeer et al. 2017, "Outrageously large neural networks"), flat or two-level."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lineal.models.capacity import admit, capacity_of
from lineal.models.experts import Experts
from lineal.models.gating import ExpertsConfig, Gate, Gating, Routes, Routing, choose, weights


class Mixture(nn.Module):
    """y = sum_i G(x)_i E_i(x), only for the experts whose gate is not zero.

    Flat: G as in `Gate`. With a groups of b experts: y = sum_i sum_j G_primary(x)_i G_i(x)_j E_ij(x), k chosen at each
    level (the paper's appendix B); expert (i, j) has number i * b + j.
    Without `routes` nothing is noisy, every expert takes all that come, and nothing is kept: what sampling and scoring
    want, and why a token's result does not depend on who else is in the batch.
    """

    def __init__(self, config: ExpertsConfig, width: int):
        super().__init__()
        self.config = config
        noisy = config.noisy
        if config.groups == 1:
            self.gate, self.inner_gate = Gate(width, config.count, noisy), None
        else:
            self.gate = Gate(width, config.groups, noisy)
            self.inner_gate = Gate(width, config.per_group, noisy, config.groups)
        self.experts = Experts(config.count, width, config.inner, config.activation)

    def forward(
        self, x: Float[Tensor, "*N D"], routes: Routes | None = None, layer: int = 0
    ) -> Float[Tensor, "*N D"]:
        """The mixture of each position's experts. layer: this layer's number, for the noise and the records."""
        x_ND = x.reshape(-1, x.shape[-1])
        routes = Routes(keep=False) if routes is None else routes
        routing = self.route(x_ND, routes, layer)
        if routes.keep:
            routes.routing.append(routing)
        return self.experts(x_ND, routing.expert_NK, routing.weight_NK).view(x.shape)

    def route(self, x_ND: Float[Tensor, "N D"], routes: Routes, layer: int = 0) -> Routing:
        """Which experts each token goes to, and with what weights."""
        replay_NK = routes.replayed()
        if self.inner_gate is not None:
            return self._two_levels(x_ND, self.inner_gate, routes, layer, replay_NK)
        config, position_N = self.config, routes.positions(len(x_ND), x_ND.device)
        number_1E = torch.arange(config.count, device=x_ND.device)[None]
        normal = None if routes.noise is None else _drawn(routes.noise, layer, position_N, number_1E)
        wanted = None if config.gate == "softmax" else config.chosen
        found = choose(self.gate(x_ND, normal), wanted, config.renormalise, replay_NK)
        gating, expert_NK, weight_NK = found
        if routes.limited and config.capacity is not None:
            expert_NK, weight_NK = self._limit(gating, weight_NK, position_N, routes)
        return Routing(layer, config, expert_NK, weight_NK, gating.chosen_NK, gating)

    def _limit(
        self,
        gating: Gating,
        weight_NK: Tensor,
        position_N: Tensor,
        routes: Routes,
        group_N: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The experts that have room, by position; weights of refused places go round the layer, or to the next best.

        group_N: the group of each row, whose experts they are; the result then counts experts over all groups.
        """
        config = self.config
        assert config.capacity is not None
        wish_NR = gating.chosen_NK
        if config.overflow == "next":
            wish_NR = gating.noisy_NE.detach().argsort(dim=-1, descending=True, stable=True)
        if group_N is not None:
            wish_NR = wish_NR + group_N[:, None] * config.per_group
        taken_NK = _admitted(wish_NR, position_N, gating.chosen_NK.shape[1], config, routes)
        if config.overflow == "around":
            return taken_NK, weight_NK * (taken_NK >= 0)
        local_NK = taken_NK
        if group_N is not None:
            local_NK = torch.where(taken_NK >= 0, taken_NK - group_N[:, None] * config.per_group, -1)
        return taken_NK, weights(gating.noisy_NE, local_NK, config.renormalise)

    def _two_levels(
        self, x_ND: Tensor, inner_gate: Gate, routes: Routes, layer: int, replay_NK: Tensor | None
    ) -> Routing:
        config, position_N = self.config, routes.positions(len(x_ND), x_ND.device)
        k, b = config.chosen, config.per_group
        noise, device = routes.noise, x_ND.device
        group_1A = torch.arange(config.groups, device=device)[None]
        normal = None if noise is None else _drawn(noise, layer, position_N, group_1A)
        replay_NKK = None if replay_NK is None else replay_NK.unflatten(1, (k, k))
        # Both levels of a replayed choice: expert i * b + j belongs to group i.
        groups = None if replay_NKK is None else torch.where(replay_NKK >= 0, replay_NKK // b, -1)[:, :, 0]
        primary, group_NK, weight_NK = choose(self.gate(x_ND, normal), k, config.renormalise, groups)
        pair_M = group_NK.flatten().argsort(stable=True)
        group_M = group_NK.flatten()[pair_M]
        sizes = torch.bincount(group_M, minlength=config.groups).tolist()
        token_M = pair_M // k
        number_ME = config.groups + group_M[:, None] * b + torch.arange(b, device=device)
        place_M = position_N[token_M]
        normal = None if noise is None else _drawn(noise, layer, place_M, number_ME)
        own = None
        if replay_NKK is not None:
            own_MK = replay_NKK.flatten(0, 1)[pair_M]
            own = torch.where(own_MK >= 0, own_MK % b, -1)
        secondary, local_MK, inside_MK = choose(
            inner_gate(x_ND.index_select(0, token_M), normal, sizes), k, config.renormalise, own
        )
        expert_MK = group_M[:, None] * b + local_MK
        if routes.limited and config.capacity is not None:
            expert_MK, inside_MK = self._limit(secondary, inside_MK, place_M, routes, group_M)
        back_M = pair_M.argsort()
        shape = (len(x_ND), k * k)
        expert_NK = expert_MK[back_M].reshape(shape)
        weight = (weight_NK.flatten()[:, None] * inside_MK.index_select(0, back_M)).reshape(shape)
        wanted_NK = (group_M[:, None] * b + secondary.chosen_NK)[back_M].reshape(shape)
        return Routing(layer, config, expert_NK, weight, wanted_NK, primary, secondary, pair_M, group_M)


def _drawn(noise, layer: int, position_N: Tensor, number_NE: Tensor):
    return lambda: noise(layer, position_N, number_NE)


def _admitted(
    wish_NR: Tensor, position_N: Tensor, chosen: int, config: ExpertsConfig, routes: Routes
) -> Tensor:
    """`admit` in the order of positions, with the capacity that the tokens of all processes give."""
    rows_NC, own = torch.cat((position_N[:, None], wish_NR), 1), slice(0, len(wish_NR))
    if routes.together is not None:
        rows_NC, own = routes.together(rows_NC)
    order_N = rows_NC[:, 0].argsort(stable=True)
    room = capacity_of(config.capacity or 1.0, len(rows_NC) * chosen, config.count)
    taken_NK = rows_NC.new_empty(len(rows_NC), chosen)
    taken_NK[order_N] = admit(rows_NC[order_N, 1:], chosen, room, config.count, config.overflow)
    return taken_NK.new_full((len(wish_NR), chosen), -1) if own is None else taken_NK[own]
