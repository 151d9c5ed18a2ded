"""Scoring completions with a policy: the one forward pass that all algorithms share.

A micro-batch is a flat run of tokens without padding in which each prompt stands once, however many completions it
has; only the hidden states of counted tokens reach the output layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lineal.models.decoder import Decoder
from lineal.models.gating import Routes
from lineal.models.policy import ActorCritic
from lineal.models.ragged import Ragged, lay_out
from lineal.train.distributed import ALONE, Ranks, deal
from lineal.types import Rollout, Scores

ROUND = 64
"""Runs of tokens are filled up to a multiple of this: sizes recur, and kernels compiled for a size (oneDNN's, in
bfloat16) are compiled once."""
LOGITS_AT_ONCE = 1 << 25
"""Most logits (tokens x vocabulary) held at once; beyond it the output layer runs in checkpointed chunks."""


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of a rollout as one flat run of tokens, and where their counted steps are.

    row_N: rows of the rollout. token_1N, ragged: each of their prompts once, then the completions without their last
    tokens. width: steps kept of the rollout's T axis. state_N: for each counted step, the flat token that predicts it.
    slot_N: the same steps as indices into the flattened [B, width] results. action_N: the tokens taken.
    route_NLK: of a mixture of experts, those that each flat token went to when it was sampled; replay: they are used
    again, with the policy's weights of today.
    """

    row_N: Tensor
    token_1N: Tensor
    ragged: Ragged
    width: int
    state_N: Tensor
    slot_N: Tensor
    action_N: Tensor
    route_NLK: Tensor | None = None
    replay: bool = False

    def routes(self) -> Routes | None:
        """What a pass of the policy (not of a critic or a reference) tells its mixtures of experts."""
        if self.route_NLK is None:
            return None
        return Routes(replay_NLK=self.route_NLK if self.replay else None)

    def hidden(self, decoder: Decoder, routes: Routes | None = None) -> Tensor:
        """A decoder's hidden state before each counted step, [N, D]."""
        return decoder(self.token_1N, ragged=self.ragged, routes=routes)[0].index_select(0, self.state_N)

    def changed(self, routes: Routes) -> Tensor:
        """Before each counted step, the share of the sampled experts that the gates would not choose now [N]."""
        assert self.route_NLK is not None
        wanted_NLK = torch.stack([routing.wanted_NK for routing in routes.routing], 1)
        same_NLK = (self.route_NLK[..., None] == wanted_NLK[:, :, None]).any(-1)
        return 1 - same_NLK.float().mean((1, 2)).index_select(0, self.state_N)


@dataclass(frozen=True)
class Sheet:
    """A rollout beside the lengths of its rows on the host, ready to be cut into micro-batches.

    replay: mixtures of experts are scored and trained with the experts that sampled.
    """

    rollout: Rollout
    group_B: list[int]
    length_B: list[int]
    replay: bool = False

    @staticmethod
    def of(rollout: Rollout, replay: bool = False) -> Sheet:
        """Lay out a text rollout: row b is prompts[group_B[b]] followed by its completion."""
        return Sheet(rollout, rollout.group_B.tolist(), rollout.mask_BT.sum(1).tolist(), replay)

    def __len__(self) -> int:
        return len(self.length_B)

    def micro_batches(self, row_N: Tensor, token_budget: int) -> Iterator[MicroBatch]:
        """The given rows, group by group, in runs of at most `token_budget` tokens (one row at least)."""
        for run in self.runs(self.by_group(row_N), token_budget):
            yield self.micro_batch(run)

    def by_group(self, row_N: Tensor) -> list[int]:
        """The given rows with those of a group side by side."""
        return sorted(row_N.tolist(), key=lambda row: self.group_B[row])

    def costs(self, rows: list[int]) -> list[int]:
        """Tokens that each row adds to those before it: its completion, and its prompt where a group begins."""
        found, group = [], -1
        for row in rows:
            fresh, group = self.group_B[row] != group, self.group_B[row]
            found.append(self.length_B[row] - 1 + (self._prompt(row) if fresh else 0))
        return found

    def runs(self, rows: list[int], token_budget: int) -> Iterator[list[int]]:
        """Ordered rows cut into runs of at most `token_budget` tokens (one row at least)."""
        start = used = 0
        for place, (row, cost) in enumerate(zip(rows, self.costs(rows), strict=True)):
            if used + cost > token_budget and place > start:
                yield rows[start:place]
                # A run reads the prompts of all its rows, also one that the run before has read.
                start, used, cost = place, 0, self.length_B[row] - 1 + self._prompt(row)
            used += cost
        if rows:
            yield rows[start:]

    def _prompt(self, row: int) -> int:
        return len(self.rollout.prompts[self.group_B[row]])

    def micro_batch(self, rows: list[int]) -> MicroBatch:
        """The given rows, those of a group side by side, as one micro-batch."""
        device = self.rollout.action_BT.device
        row_N = torch.tensor(rows, device=device)
        groups = list(dict.fromkeys(self.group_B[row] for row in rows))
        number = {group: index for index, group in enumerate(groups)}
        prompts = [self.rollout.prompts[group] for group in groups]
        group_B = [number[self.group_B[row]] for row in rows]
        length_B = torch.tensor([self.length_B[row] for row in rows], device=device)
        width = int(length_B.max())
        step_T = torch.arange(width, device=device)
        mask_BT = step_T < length_B[:, None]
        action_BT = self.rollout.action_BT[row_N, :width]
        asked = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        said = action_BT[step_T < length_B[:, None] - 1]
        lengths = [self.length_B[row] - 1 for row in rows]
        ragged = lay_out([len(p) for p in prompts], lengths, group_B, device, ROUND)
        # A first step is predicted by its prompt's last token, any other by the token before it.
        end_P = torch.tensor([len(p) for p in prompts], device=device).cumsum(0) - 1
        inner_B = len(asked) + (length_B - 1).cumsum(0) - (length_B - 1)
        state_BT = torch.where(step_T == 0, end_P[group_B][:, None], inner_B[:, None] + step_T - 1)
        slot_N = mask_BT.flatten().nonzero()[:, 0]
        spare = asked.new_zeros(ragged.position_1N.shape[1] - len(asked) - len(said))
        tokens = torch.cat((asked, said, spare))[None]
        read_BT = step_T < length_B[:, None] - 1
        route_NLK = self._routes(groups, row_N, read_BT, len(spare))
        action_N = action_BT[mask_BT]
        return MicroBatch(
            row_N, tokens, ragged, width, state_BT[mask_BT], slot_N, action_N, route_NLK, self.replay
        )

    def _routes(self, groups: list[int], row_N: Tensor, read_BT: Tensor, spare: int) -> Tensor | None:
        """The sampled experts of the flat tokens: the groups' prompts, the rows' tokens, and -1 for the filling."""
        route_BTLK, asked_NLK = self.rollout.route_BTLK, self.rollout.prompt_route_NLK
        if route_BTLK is None or asked_NLK is None:
            return None
        sizes = [len(prompt) for prompt in self.rollout.prompts]
        by_prompt = asked_NLK.split(sizes)
        said_NLK = route_BTLK[row_N, : read_BT.shape[1]][read_BT]
        filling = said_NLK.new_full((spare, *said_NLK.shape[1:]), -1)
        return torch.cat((*(by_prompt[group] for group in groups), said_NLK, filling)).long()


@dataclass(frozen=True)
class Scoring:
    """How a policy is scored: temperature, tokens at once, the precision of the forward pass, and the reference.

    autocast: a dtype for autocast, or None. ranks: the processes that share the rows. twin: a whole copy of a policy
    that is sharded over them, of the weights that sampled.
    """

    temperature: float = 1.0
    token_budget: int = 16384
    autocast: torch.dtype | None = None
    reference: Decoder | None = None
    ranks: Ranks = ALONE
    twin: ActorCritic | None = None

    def precision(self, device: torch.device) -> AbstractContextManager:
        """The autocast context that a forward pass runs under."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)


def shared_micro_batches(sheet: Sheet, row_N: Tensor, scoring: Scoring) -> Iterator[tuple[MicroBatch, bool]]:
    """This process's micro-batches of some rows; False marks a filler, which is passed through but counts for nothing."""
    budget, ranks = scoring.token_budget, scoring.ranks
    if ranks.world == 1 or not len(row_N):
        yield from ((micro, True) for micro in sheet.micro_batches(row_N, budget))
        return
    rows = sheet.by_group(row_N)
    hands = [
        list(sheet.runs(rows[part.start : part.stop], budget))
        for part in deal(sheet.costs(rows), ranks.world)
    ]
    for run in hands[ranks.rank]:
        yield sheet.micro_batch(run), True
    # Under FSDP2 each pass is a collective, so all processes make as many as the busiest one.
    for _ in range(max(map(len, hands)) - len(hands[ranks.rank])):
        yield sheet.micro_batch([min(rows, key=lambda row: sheet.length_B[row])]), False


@dataclass(frozen=True)
class Want:
    """What a scoring pass should tell besides log-probabilities and values.

    entropy: "none", "value" (no gradient: for the log) or "gradient".
    old: a frozen copy of the old policy, for the exact KL(old || new) of each step.
    reference: the frozen reference, for the exact KL(new || reference) of each step.
    detach_critic: a critic's head reads detached features, so that its loss cannot move the policy.
    """

    entropy: str = "value"
    old: Decoder | None = None
    reference: Decoder | None = None
    detach_critic: bool = False


def score(
    policy: ActorCritic, micro: MicroBatch, temperature: float = 1.0, want: Want | None = None
) -> Scores:
    """Score one micro-batch; gradients flow through the result."""
    want, routes = want or Want(), micro.routes()
    hidden_ND = micro.hidden(policy.decoder, routes)
    others = [
        None if want.old is None else _frozen_hidden(want.old, micro, micro.routes()),
        None if want.reference is None else _frozen_hidden(want.reference, micro),
    ]
    terms = _head_terms(policy.decoder, hidden_ND, micro.action_N, temperature, want, others)
    value_N = policy.values(hidden_ND, micro.hidden, want.detach_critic)
    size = (len(micro.row_N), micro.width)

    def spread(x_N: Tensor | None) -> Tensor | None:
        if x_N is None:
            return None
        flat = torch.zeros(size[0] * size[1], dtype=x_N.dtype, device=x_N.device)
        return flat.index_copy(0, micro.slot_N, x_N).view(size)

    logp_BT = spread(terms[0])
    assert logp_BT is not None
    changed_BT = None if routes is None else spread(micro.changed(routes))
    return Scores(logp_BT, spread(terms[1]), spread(terms[2]), spread(value_N), spread(terms[3]), changed_BT)


@torch.no_grad()
def _frozen_hidden(decoder: Decoder, micro: MicroBatch, routes: Routes | None = None) -> Tensor:
    return micro.hidden(decoder, routes)


Terms = tuple[Tensor | None, ...]


def _head_terms(
    decoder: Decoder,
    hidden_ND: Tensor,
    action_N: Tensor,
    temperature: float,
    want: Want,
    others: list[Tensor | None],
) -> Terms:
    """logp, entropy, KL(old || new) and KL(new || reference) of each step, in chunks when the vocabulary is large."""

    def terms(
        hidden: Tensor, action: Tensor, old_hidden: Tensor | None, reference_hidden: Tensor | None
    ) -> Terms:
        logp_NV = _log_distribution(decoder, hidden, temperature)
        logp = logp_NV.gather(1, action[:, None])[:, 0]
        entropy = kl = reference_kl = None
        if want.entropy != "none":
            with torch.set_grad_enabled(want.entropy == "gradient" and torch.is_grad_enabled()):
                entropy = -(logp_NV.exp() * logp_NV).sum(-1)
        if want.old is not None and old_hidden is not None:
            old_NV = _log_distribution(want.old, old_hidden, temperature)
            kl = (old_NV.exp() * (old_NV - logp_NV)).sum(-1)
        if want.reference is not None and reference_hidden is not None:
            other_NV = _log_distribution(want.reference, reference_hidden, temperature)
            reference_kl = (logp_NV.exp() * (logp_NV - other_NV)).sum(-1)
        return logp, entropy, kl, reference_kl

    chunk = max(1, LOGITS_AT_ONCE // decoder.config.vocab_size)
    if len(action_N) <= chunk:
        return terms(hidden_ND, action_N, *others)
    recompute = torch.is_grad_enabled()
    pieces = []
    for start in range(0, len(action_N), chunk):
        part = slice(start, start + chunk)
        arguments = (hidden_ND[part], action_N[part], *(None if x is None else x[part] for x in others))
        pieces.append(checkpoint(terms, *arguments, use_reentrant=False) if recompute else terms(*arguments))
    return tuple(None if column[0] is None else torch.cat(column) for column in zip(*pieces, strict=True))


def _log_distribution(decoder: Decoder, hidden_ND: Tensor, temperature: float) -> Tensor:
    logits_NV = decoder.logits(hidden_ND)
    if logits_NV.dtype not in (torch.float32, torch.float64):
        logits_NV = logits_NV.float()
    return torch.log_softmax(logits_NV if temperature == 1.0 else logits_NV / temperature, -1)


def score_all(
    policy: ActorCritic,
    sheet: Sheet,
    scoring: Scoring,
    *,
    entropy: str = "value",
    row_N: Tensor | None = None,
) -> Scores:
    """Score a whole rollout without gradients: the pass that fixes `old_logp`, reference log-probabilities, values.

    row_N: score only these rows; the others keep 0.
    """
    shape, device = sheet.rollout.action_BT.shape, sheet.rollout.action_BT.device
    kept: dict[str, Tensor] = {}
    with torch.no_grad():
        everything = torch.arange(shape[0], device=device) if row_N is None else row_N
        for micro, counts in shared_micro_batches(sheet, everything, scoring):
            with scoring.precision(device):
                scores = score(policy, micro, scoring.temperature, Want(entropy=entropy))
            for name in ("logp_BT", "entropy_BT", "value_BT"):
                part = getattr(scores, name)
                if part is not None:
                    whole = kept.setdefault(name, torch.zeros(shape, dtype=part.dtype, device=device))
                    if counts:
                        whole[micro.row_N, : micro.width] = part
    kept = kept or {"logp_BT": torch.zeros(shape, device=device)}
    # Each row was scored by one process only, so the sum is the whole table, on all of them.
    return Scores(**{name: scoring.ranks.sum(part) for name, part in kept.items()})
