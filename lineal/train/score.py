"""Scoring completions with a policy: the one forward pass that all algorithms share.

Rows are sorted by length and cut into micro-batches by a token budget, so little of the work is padding; only the
hidden states of counted tokens reach the output layer. Padding stands on the right, where causal attention never
looks, so scores do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
from lineal.types import Rollout, Scores

LOGITS_AT_ONCE = 1 << 25
"""Most logits (tokens x vocabulary) held at once; beyond it the output layer runs in checkpointed chunks."""


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of a rollout as one rectangle of input tokens, and where their counted steps are.

    row_N: rows of the rollout. token_BS: prompt and completion but its last token, padded on the right.
    width: steps kept of the rollout's T axis. position_N: counted steps as indices into the flattened [B, S] hidden
    states. slot_N: the same steps as indices into the flattened [B, width] results. action_N: the tokens taken.
    """

    row_N: Tensor
    token_BS: Tensor
    width: int
    position_N: Tensor
    slot_N: Tensor
    action_N: Tensor


@dataclass(frozen=True)
class Sheet:
    """A rollout laid out once for scoring: whole input rows and each row's lengths (CPU and device)."""

    token_BS: Tensor
    prompt_B: Tensor
    length_B: Tensor
    rollout: Rollout

    @staticmethod
    def of(rollout: Rollout) -> Sheet:
        """Lay out a text rollout: row b is its prompt followed by its completion."""
        device = rollout.action_BT.device
        lengths = torch.tensor([len(p) for p in rollout.prompts], device=device)
        widest = int(lengths.max())
        table = torch.tensor([list(p) + [0] * (widest - len(p)) for p in rollout.prompts], device=device)
        prompt_B = lengths[rollout.group_B]
        length_B = rollout.mask_BT.sum(1)
        size = int((prompt_B + length_B).max())
        position_BS = torch.arange(size, device=device).expand(len(prompt_B), size)
        inside = (position_BS - prompt_B[:, None]).clamp(0, rollout.action_BT.shape[1] - 1)
        answer_BS = rollout.action_BT.gather(1, inside)
        question_BS = table[rollout.group_B].gather(1, position_BS.clamp(max=widest - 1))
        token_BS = torch.where(position_BS < prompt_B[:, None], question_BS, answer_BS)
        return Sheet(token_BS, prompt_B, length_B, rollout)

    def micro_batches(self, row_N: Tensor, token_budget: int) -> Iterator[MicroBatch]:
        """The given rows, sorted by length, in rectangles of at most `token_budget` tokens."""
        total = (self.prompt_B + self.length_B)[row_N]
        order = torch.argsort(total, descending=True, stable=True)
        row_N, total = row_N[order], total[order].tolist()
        start = 0
        while start < len(total):
            # The first row is the longest, so it fixes the rectangle's width.
            count = max(1, token_budget // max(1, total[start]))
            yield self._micro_batch(row_N[start : start + count], total[start])
            start += count

    def _micro_batch(self, row_N: Tensor, longest: int) -> MicroBatch:
        length_B, prompt_B = self.length_B[row_N], self.prompt_B[row_N]
        width, size = int(length_B.max()), max(1, longest - 1)
        step_T = torch.arange(width, device=row_N.device)
        mask_BT = step_T < length_B[:, None]
        index_BT = torch.arange(len(row_N), device=row_N.device)[:, None] * size + prompt_B[:, None] - 1 + step_T
        action_BT = self.rollout.action_BT[row_N, :width]
        slot_N = mask_BT.reshape(-1).nonzero()[:, 0]
        return MicroBatch(
            row_N, self.token_BS[row_N, :size], width, index_BT[mask_BT], slot_N, action_BT[mask_BT]
        )


@dataclass(frozen=True)
class Scoring:
    """How a policy is scored: temperature, tokens at once, the precision of the forward pass, and the reference.

    autocast: a dtype for autocast, or None.
    """

    temperature: float = 1.0
    token_budget: int = 16384
    autocast: torch.dtype | None = None
    reference: Decoder | None = None

    def precision(self, device: torch.device) -> AbstractContextManager:
        """The autocast context that a forward pass runs under."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)


@dataclass(frozen=True)
class Want:
    """What a scoring pass should tell besides log-probabilities and values.

    entropy: "none", "value" (no gradient: for the log) or "gradient".
    old: a frozen copy of the old policy, for the exact KL(old || new) of each step.
    self_kl: take the policy's own detached distribution as the old one (its value is 0; its Hessian is Fisher's).
    reference: the frozen reference, for the exact KL(new || reference) of each step.
    detach_critic: a critic's head reads detached features, so that its loss cannot move the policy.
    """

    entropy: str = "value"
    old: Decoder | None = None
    self_kl: bool = False
    reference: Decoder | None = None
    detach_critic: bool = False


def score(policy: ActorCritic, micro: MicroBatch, temperature: float = 1.0, want: Want | None = None) -> Scores:
    """Score one micro-batch; gradients flow through the result."""
    want = want or Want()
    hidden_BSD = policy.decoder(micro.token_BS)
    hidden_ND = hidden_BSD.flatten(0, 1)[micro.position_N]
    others = [
        None if other is None else _frozen_hidden(other, micro) for other in (want.old, want.reference)
    ]
    terms = _head_terms(policy.decoder, hidden_ND, micro.action_N, temperature, want, others)
    value_BS = policy.values(hidden_BSD, micro.token_BS, want.detach_critic)
    value_N = None if value_BS is None else value_BS.flatten()[micro.position_N]

    size = (len(micro.row_N), micro.width)

    def spread(x_N: Tensor | None) -> Tensor | None:
        if x_N is None:
            return None
        flat = torch.zeros(size[0] * size[1], dtype=x_N.dtype, device=x_N.device)
        return flat.index_copy(0, micro.slot_N, x_N).view(size)

    logp_BT = spread(terms[0])
    assert logp_BT is not None
    return Scores(logp_BT, spread(terms[1]), spread(terms[2]), spread(value_N), spread(terms[3]))


@torch.no_grad()
def _frozen_hidden(decoder: Decoder, micro: MicroBatch) -> Tensor:
    return decoder(micro.token_BS).flatten(0, 1)[micro.position_N]


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

    def terms(hidden: Tensor, action: Tensor, old_hidden: Tensor | None, reference_hidden: Tensor | None) -> Terms:
        logp_NV = _log_distribution(decoder, hidden, temperature)
        logp = logp_NV.gather(1, action[:, None])[:, 0]
        entropy = kl = reference_kl = None
        if want.entropy != "none":
            with torch.set_grad_enabled(want.entropy == "gradient" and torch.is_grad_enabled()):
                entropy = -(logp_NV.exp() * logp_NV).sum(-1)
        if want.self_kl or want.old is not None:
            old_NV = logp_NV.detach()
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
    # Double backward (self_kl) keeps its graph; everything else recomputes a chunk's logits in the backward pass.
    recompute = torch.is_grad_enabled() and not want.self_kl
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
        for micro in sheet.micro_batches(everything, scoring.token_budget):
            with scoring.precision(device):
                scores = score(policy, micro, scoring.temperature, Want(entropy=entropy))
            for name in ("logp_BT", "entropy_BT", "value_BT"):
                part = getattr(scores, name)
                if part is not None:
                    whole = kept.setdefault(name, torch.zeros(shape, dtype=part.dtype, device=device))
                    whole[micro.row_N, : micro.width] = part
    return Scores(**kept)
