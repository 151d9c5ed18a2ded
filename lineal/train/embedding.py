"""Texts as vectors, from any pre-trained model; which of them are alike, and which are nearest to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.prefill import evaluating
from lineal.models.finetuned import Body, Inputs
from lineal.models.hf.awd import is_awd
from lineal.models.hf.elmo import is_elmo
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.opening import open_tokenizer
from lineal.train.build import model_folder
from lineal.train.device import pick_device
from lineal.train.finetune.bodies import BODIES, family_of
from lineal.train.finetune.inputs import Framed, Framing, lay_out, micro_batches

POOLING = ("mean", "cls", "last")


class Near(ABC):
    """Texts compared by their vectors, whatever makes them."""

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        """One vector for each text, float32 on the CPU."""

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Float[Tensor, "N M"]:
        """The cosine of every text of one side with every one of the other."""
        a_NE, b_ME = (torch.nn.functional.normalize(self(texts), dim=-1) for texts in (first, second))
        return a_NE @ b_ME.T

    def nearest(self, text: str, among: Sequence[str], count: int = 5) -> list[tuple[str, float]]:
        """The texts that are nearest to one by their cosine, the nearest first."""
        value_M, place_M = self.similarity([text], among)[0].topk(min(count, len(among)))
        return [
            (among[int(i)], float(value)) for i, value in zip(place_M.tolist(), value_M.tolist(), strict=True)
        ]


@dataclass
class Embedder(Near):
    """A model as a source of vectors. Three lines use it::

    embed = load_embedder("RUN")
    vectors = embed(["a fine film", "a waste of time"])
    print(embed.nearest("lovely", ["a fine film", "a waste of time"]))

    pooling: mean of the text's tokens, of the first token (cls) or of the last one. layers: whose states are put side by side,
    0 the embeddings, -1 the last layer. marks: the tokens around a text, None for none.
    """

    body: Body
    tokenizer: Tokenizer
    marks: Framing | None
    pooling: str = "mean"
    layers: tuple[int, ...] = (-1,)
    token_budget: int = 16384

    def __post_init__(self) -> None:
        if self.pooling not in POOLING:
            raise UsageError(f"--pooling {self.pooling} is not one of {', '.join(POOLING)}.")
        count = self.body.layer_count
        for layer in self.layers:
            if not -count - 1 <= layer <= count:
                raise UsageError(
                    f"--layers {layer}: the model has {count} (0 is its embeddings, -1 its last layer)."
                )

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        """One vector for each text, float32 on the CPU; what a model cannot read at once is read in parts and averaged.

        A vector is the mean over the parts, weighted by their tokens, of each layer's pooled state; layers side by side.
        """
        parts = [self._parts(text) for text in texts]
        framed = [[part] for whole in parts for part in whole]
        found: list[Tensor | None] = [None] * len(framed)
        with evaluating(self.body), torch.no_grad():
            for group in micro_batches(framed, self.token_budget):
                inputs = lay_out([framed[i] for i in group], self.body.device)
                states = [self._pool(state, inputs) for state in self._layers(inputs)]
                for i, vector_E in zip(group, torch.cat(states, -1).float().cpu(), strict=True):
                    found[i] = vector_E
        vectors = iter(vector for vector in found if vector is not None)
        rows = []
        for whole in parts:
            weight_P = torch.tensor([float(len(part)) for part in whole])
            rows.append(
                (torch.stack([next(vectors) for _ in whole]) * (weight_P / weight_P.sum())[:, None]).sum(0)
            )
        return torch.stack(rows) if rows else torch.zeros(0, self.body.width * len(self.layers))

    def _parts(self, text: str) -> list[Framed]:
        """The text in sequences that the model can read, at least one."""
        ids, context = self.tokenizer.encode(text), self.body.context
        if self.marks is None:
            ids = ids or [self.tokenizer.eos_id or 0]
            return [Framed(ids[i : i + context], len(ids)) for i in range(0, len(ids), context)]
        room = context - self.marks.added(pair=False)
        return [self.marks.enclose(ids[i : i + room]) for i in range(0, max(1, len(ids)), room)]

    def _layers(self, inputs: Inputs) -> list[Tensor]:
        states = self.body.layer_states(inputs)
        return [states[layer] for layer in self.layers]

    def _pool(self, state_NTD: Tensor, inputs: Inputs) -> Tensor:
        if self.pooling == "cls":
            return state_NTD[:, 0]
        if self.pooling == "last":
            return state_NTD[torch.arange(len(state_NTD), device=state_NTD.device), inputs.last_N]
        mask_NT1 = inputs.mask_NT[..., None].to(state_NTD.dtype)
        return (state_NTD * mask_NT1).sum(1) / mask_NT1.sum(1)


def load_embedder(
    name: str | Path, device: str = "auto", *, pooling: str = "mean", layers: Sequence[int] = (-1,)
) -> Near:
    """The model of a run, a folder, or hf:OWNER/NAME, fine-tuned or not, as a source of vectors."""
    folder = model_folder(str(name))
    if is_awd(folder) or is_elmo(folder):
        from lineal.train.recurrent.embedding import load_recurrent_embedder

        return load_recurrent_embedder(folder, pick_device(device), pooling, tuple(layers))
    family, tokenizer = BODIES[family_of(folder)], open_tokenizer(folder)
    body = family.load(folder, pick_device(device)).eval()
    return Embedder(body, tokenizer, family.alone(tokenizer, str(folder)), pooling, tuple(layers))
