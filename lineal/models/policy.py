"""A decoder as a policy, with the critic that some algorithms ask for."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lineal.models.decoder import Decoder
from lineal.models.heads import ValueHead


class ActorCritic(nn.Module):
    """A decoder (the actor) and its critic: none, a head on the actor's hidden states, or a decoder of its own.

    critic: None, "head" or "separate". A separate critic starts as a copy of the actor.
    orthogonal: start the critic's head as an orthogonal matrix instead of zeros.
    """

    def __init__(self, decoder: Decoder, critic: str | None = None, orthogonal: bool = False):
        super().__init__()
        self.decoder = decoder
        self.critic = copy.deepcopy(decoder) if critic == "separate" else None
        self.value_head = ValueHead(decoder.config.width) if critic else None
        if self.value_head is not None:
            reference = decoder.head_weight
            self.value_head.to(device=reference.device, dtype=reference.dtype)
            if orthogonal:
                for parameter in self.value_head.parameters():
                    if parameter.ndim == 2:
                        # A single row: orthogonal means unit norm; drawn from its own generator to stay reproducible.
                        draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
                        parameter.data.copy_(draw / draw.norm())

    def actor_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's own parameters by name (no critic)."""
        return {f"decoder.{name}": parameter for name, parameter in self.decoder.named_parameters()}

    def critic_parameters(self) -> dict[str, nn.Parameter]:
        """The critic's parameters by name."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("decoder.")}

    def values(self, hidden: Tensor, read: Callable[[Decoder], Tensor], detach: bool) -> Tensor | None:
        """The critic's value of each hidden state, the actor's own or those that its own decoder reads.

        read: gives the hidden states of the same tokens under another decoder. detach: a head's loss must not move
        the actor.
        """
        if self.value_head is None:
            return None
        if self.critic is not None:
            hidden = read(self.critic)
        elif detach:
            hidden = hidden.detach()
        value = self.value_head(hidden)
        return value if value.dtype in (torch.float32, torch.float64) else value.float()
