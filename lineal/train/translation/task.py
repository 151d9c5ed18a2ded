"""Everything a translation run works on: sentences as ids, their vocabulary, and how a model is judged by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lineal.errors import UsageError
from lineal.generate.beam import BeamSearch
from lineal.generate.translate import Ids, best_texts, translate
from lineal.models.transformer import Transformer
from lineal.tokenizers import Tokenizer
from lineal.train.console import clean, note, warn
from lineal.train.translation.batches import Encoded, encode
from lineal.train.translation.bleu import Bleu, bleu, sentence_score
from lineal.train.translation.options import BeamOptions, PairOptions
from lineal.train.translation.pairs import Corpus, Pairs, said
from lineal.train.translation.vocabulary import ids_of

SHOWN = 8
"""Translations of an evaluation that are kept for the report."""


@dataclass(frozen=True)
class Task:
    """Training and validation pairs as ids, the sentences to translate, and the vocabulary."""

    train: Encoded
    valid: Encoded
    corpus: Corpus
    tokenizer: Tokenizer
    ids: Ids
    language: str


def make_task(options: PairOptions, corpus: Corpus, tokenizer: Tokenizer, context: int) -> Task:
    """Encode a corpus; what was left out is said by name."""
    ids = ids_of(tokenizer)
    longest = min(options.max_tokens, context - 1)
    wanted = {"longest": longest, "ratio": options.max_ratio}
    train = encode(corpus.train, tokenizer, ids.end, **wanted)
    left = train.dropped
    if corpus.split:
        valid = encode(corpus.valid, tokenizer, ids.end, **wanted)
        left = {reason: count + valid.dropped.get(reason, 0) for reason, count in left.items()}
        kept = corpus.valid.part(valid.rows, corpus.valid.name)
        corpus = replace(corpus, valid=kept, test=kept if corpus.test is corpus.valid else corpus.test)
    else:
        valid = encode(corpus.valid, tokenizer, ids.end, longest=context - 1)
    note(f"{corpus.train.name}: {len(train):,} pairs" + (f", left out: {said(left)}" if said(left) else ""))
    unknown = unknown_tokens(train, tokenizer)
    if unknown:
        warn(f"{unknown:,} training tokens are unknown to the vocabulary; they become <unk>.")
    return Task(train, valid, corpus, tokenizer, ids, options.target_language)


def unknown_tokens(data: Encoded, tokenizer: Tokenizer) -> int:
    """How many ids of a corpus are the unknown token."""
    unknown = getattr(getattr(tokenizer, "model", None), "unknown", None)
    return 0 if unknown is None else int((data.source_N == unknown).sum() + (data.target_N == unknown).sum())


def beam_search(options: BeamOptions, greedy: bool = False) -> BeamSearch:
    """How the options ask to search."""
    beams = 1 if greedy else options.beams
    return BeamSearch(beams, options.max_new_tokens, options.length_penalty, options.max_batch)


def translations(
    model: Transformer,
    sources: Sequence[str],
    tokenizer: Tokenizer,
    search: BeamSearch,
    *,
    cut: bool = False,
    first: int = 1,
) -> list[str]:
    """The best translation of each sentence; an empty sentence stays empty.

    cut: read only as much of a sentence as the model takes; else one that is too long is refused, by its number. first: the
    number of the first one.
    """
    ids, room = ids_of(tokenizer), model.config.context - 1
    encoded = [tokenizer.encode(text.strip()) for text in sources]
    for number, row in enumerate(encoded, first):
        if len(row) > room and not cut:
            raise UsageError(
                f"line {number} has {len(row):,} subwords and the model takes {room:,} ({clean(sources[number - first], 40)!r}): "
                "split it into sentences, or --cut reads only its beginning. It and what follows it was not translated."
            )
    rows = [i for i, row in enumerate(encoded) if row]
    found = translate(model, [[*encoded[i][:room], ids.end] for i in rows], search, ids)
    result = [""] * len(encoded)
    for i, best in zip(rows, best_texts(found, ids.end), strict=True):
        result[i] = tokenizer.decode(best)
    return result


@dataclass(frozen=True)
class Judged:
    """The translations of some pairs, and their BLEU (None without the extra)."""

    pairs: Pairs
    found: list[str]
    bleu: Bleu | None

    @property
    def exact(self) -> float:
        """Share of translations that are the reference, word for word."""
        return sum(f == t for f, t in zip(self.found, self.pairs.targets, strict=True)) / max(
            1, len(self.found)
        )

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        return {**(self.bleu.metrics() if self.bleu else {}), "eval/exact": self.exact}

    def records(self) -> list[dict[str, object]]:
        """A few of the translations, spread over the set, as samples.jsonl takes them."""
        count = len(self.found)
        picked = [place * count // min(SHOWN, count) for place in range(min(SHOWN, count))]
        return [
            {
                "kind": "eval",
                "prompt": self.pairs.sources[i],
                "answer": self.pairs.targets[i],
                "completions": [self.found[i]],
                "rewards": [round(sentence_score(self.found[i], self.pairs.targets[i]), 4)],
            }
            for i in picked
        ]


def judge(
    model: Transformer, pairs: Pairs, task: Task, search: BeamSearch, *, most: int = 0, whole: bool = True
) -> Judged:
    """Translate (the first `most`; 0: all of) some pairs and compare. whole: with the tokenised scores."""
    some = pairs.part(range(min(most, len(pairs)) if most else len(pairs)), pairs.name)
    found = translations(model, some.sources, task.tokenizer, search, cut=True)
    return Judged(some, found, bleu(found, some.targets, task.language, whole))
