"""SentencePiece's models as pipelines, and pipelines as SentencePiece's models.

What such a model does to a text, its parts here say exactly (`SentencePieceNormaliser`, Unigram or BPE over characters, a
decoder that turns the symbol back into spaces). The other way only what the format knows can be written.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lineal.errors import ModelError
from lineal.tokenizers import decode
from lineal.tokenizers.added import WHITE, AddedToken
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.parts import Normaliser, Splitter
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    build_model,
)
from lineal.tokenizers.sentencepiece import read_model as read_proto
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.text.charsmap import Charsmap, SentencePieceNormaliser
from lineal.tokenizers.text.normalise import Chain, Metaspace, Prepend, Replace, Strip
from lineal.tokenizers.text.prepared import Prepared, ReplacePattern
from lineal.tokenizers.text.split import SymbolSplit, Whole
from lineal.tokenizers.unigram import Unigram

SYMBOL = "▁"


@dataclass(frozen=True)
class RunSplit(Splitter):
    """A piece starts at each run of symbols: where no token has a symbol behind another character, nothing is changed by it."""

    symbol: str = SYMBOL

    def spans(self, data: bytes) -> array[int]:
        """The text cut before each run."""
        symbol = self.symbol.encode()
        found = SymbolSplit(self.symbol).spans(data)
        if symbol + symbol not in data:
            return found
        joined = array("i")
        start = 0
        for end in found[1::2]:
            # What ends with a symbol is one of a run, and not the last, but at the end of the text.
            if not data.endswith(symbol, start, end) or end == len(data):
                joined.extend((start, end))
                start = end
        return joined


def read_sentencepiece(path: str | Path) -> Pipeline:
    """The tokenizer of a SentencePiece model file; ModelError when it is damaged or of the kind word or char.

    Departures: unknown characters are left out in decoding as other special tokens are, where the library writes " ⁇ ";
    a user-defined piece of a BPE model is cut out of the text before it is normalised.
    """
    return pipeline_of(read_proto(path), str(path))


def pipeline_of(model: SentencePieceModel, where: str = "the model") -> Pipeline:
    """The tokenizer that a model describes."""
    if model.kind not in ("unigram", "bpe"):
        raise ModelError(
            f"{where}: trainer_spec.model_type is {model.kind}, which is not read: only unigram and bpe are."
        )
    normaliser = model.text_normaliser
    special = [AddedToken(_text(model, at, where), at) for at in (*model.ids(CONTROL), model.unknown)]
    defined = [AddedToken(_text(model, at, where), at, special=False) for at in model.ids(USER_DEFINED)]
    inner = _unigram(model) if model.kind == "unigram" else _bpe(model)
    roles = {f"{role}_token": model.pieces[at].text.decode() for role, at in model.special().items()}
    return Pipeline(
        inner,
        normaliser=normaliser,
        splitter=_splitter(model) if normaliser.escape_whitespaces else Whole(),
        decoder=decoder(
            normaliser.add_dummy_prefix or normaliser.remove_extra_whitespaces, model.byte_ids is not None
        ),
        added=special if model.kind == "unigram" else special + defined,
        settings=Settings(roles),
    )


def decoder(strips: bool, bytes_too: bool) -> decode.Decoders:
    """The way back: symbols become spaces, byte tokens bytes, and the space that was put in front goes."""
    rules: list[decode.Rule] = [decode.Replace(SYMBOL, " ")]
    rules += [decode.ByteFallback()] if bytes_too else []
    rules += [decode.Fuse()]
    rules += [decode.Strip(" ", 1, 0)] if strips else []
    return decode.Decoders(tuple(rules))


def _text(model: SentencePieceModel, at: int, where: str) -> str:
    try:
        return model.pieces[at].text.decode()
    except UnicodeDecodeError:
        raise ModelError(
            f"{where}: pieces[{at}].piece is no UTF-8: the file is damaged; get it again."
        ) from None


def _splitter(model: SentencePieceModel) -> Splitter:
    """A text may be cut first wherever no piece goes on: that gives the same tokens, and words that can be remembered.

    Unigram remembers words without that, and its sums then run on through the text, as SentencePiece's do.
    """
    if model.kind == "unigram":
        return Whole()
    texts = [
        piece.text.decode("utf-8", "replace")
        for piece in model.pieces
        if piece.kind in (NORMAL, USER_DEFINED)
    ]
    if not any(SYMBOL in text[1:] for text in texts):
        return SymbolSplit(SYMBOL)
    return Whole() if any(SYMBOL in text.lstrip(SYMBOL) for text in texts) else RunSplit(SYMBOL)


def _unigram(model: SentencePieceModel) -> Unigram:
    return Unigram(
        [(piece.text, piece.score) for piece in model.pieces],
        unknown=model.unknown,
        byte_fallback=model.byte_ids,
        user_defined=model.ids(USER_DEFINED),
        silent=[at for at, piece in enumerate(model.pieces) if piece.kind not in (NORMAL, USER_DEFINED)],
    )


def _bpe(model: SentencePieceModel) -> BPE:
    hidden = {at for at, piece in enumerate(model.pieces) if piece.kind not in (NORMAL, UNKNOWN, BYTE)}
    tokens = [b"" if at in hidden else piece.text for at, piece in enumerate(model.pieces)]
    return BPE(
        tokens,
        scored_merges(model.pieces),
        initial="characters",
        unknown=model.unknown,
        byte_fallback=model.byte_ids,
        fuse_unknown=True,
    )


def scored_merges(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """The merges that scores amount to: all pairs of pieces that make a piece, the best scored piece first."""
    ids = {piece.text: at for at, piece in enumerate(pieces) if piece.kind == NORMAL}
    merges: list[tuple[float, int, int, int]] = []
    for text, at in ids.items():
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut], -1), ids.get(text[cut:], -1)
            if left >= 0 and right >= 0:
                merges.append((-pieces[at].score, at, left, right))
    return [(left, right) for _, _, left, right in sorted(merges)]


def sentencepiece_of(pipeline: Pipeline) -> SentencePieceModel:
    """The model file of a pipeline; ModelError naming the part that SentencePiece does not have."""
    normaliser = _normaliser_of(pipeline.normaliser, pipeline.splitter)
    model = pipeline.model
    if isinstance(model, Unigram):
        kind, scores = "unigram", [score for _, score in model.pieces]
        fallback, defined = model.byte_fallback, model.user_defined
    elif isinstance(model, BPE) and model.initial == "characters" and not model.prefix and not model.suffix:
        kind, scores = "bpe", _scores(model)
        fallback, defined = model.byte_fallback, frozenset()
    else:
        what = "byte-level BPE" if isinstance(model, BPE) else f"a {type(model).__name__} model"
        raise ModelError(
            f"a SentencePiece model holds Unigram or BPE over characters, not {what}: use --to huggingface."
        )
    if model.unknown is None:
        raise ModelError(
            "a SentencePiece model needs an unknown token, which this vocabulary lacks: use --to huggingface."
        )
    added = {token.id: token for token in pipeline.added}
    kinds = {at: CONTROL if token.special else USER_DEFINED for at, token in added.items()}
    kinds |= (
        dict.fromkeys(fallback or (), BYTE) | dict.fromkeys(defined, USER_DEFINED) | {model.unknown: UNKNOWN}
    )
    scores += [0.0] * (pipeline.vocab_size - len(scores))
    texts = [added[at].content.encode() if at in added else text for at, text in enumerate(pipeline.tokens)]
    pieces = [Piece(text, scores[at], kinds.get(at, NORMAL)) for at, text in enumerate(texts)]
    return build_model(
        pieces,
        normaliser,
        kind=kind,
        name="identity" if not normaliser.charsmap else "lineal",
        **_roles(pipeline),
    )


def _scores(model: BPE) -> list[float]:
    """Minus the rank of the merge that makes a token first; characters behind them."""
    ids = {token: at for at, token in enumerate(model.tokens) if token}
    scores = [-float(len(model.merges))] * len(model.tokens)
    for rank in range(len(model.merges) - 1, -1, -1):
        left, right = model.merges[rank]
        scores[ids[model.tokens[left] + model.tokens[right]]] = -float(rank)
    return scores


def _roles(pipeline: Pipeline) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for role in ("unk", "bos", "eos", "pad"):
        token = pipeline.settings.token(role)
        at = pipeline.model.unknown if role == "unk" else None if token is None else pipeline.id(token)
        found[f"{role}_id"] = -1 if at is None else at
        if at is not None:
            found[f"{role}_piece"] = pipeline.tokens[at].decode()
    return found


def _normaliser_of(normaliser: Normaliser | None, splitter: Splitter) -> SentencePieceNormaliser:
    inner = splitter.splitter if isinstance(splitter, Prepared) else splitter
    if inner not in (Whole(), SymbolSplit(SYMBOL), RunSplit(SYMBOL)):
        raise ModelError(
            f"a SentencePiece model cannot say that text is split by {type(inner).__name__}: use --to huggingface."
        )
    if isinstance(normaliser, SentencePieceNormaliser) and splitter.before is None:
        return normaliser
    steps = (
        list(normaliser.parts)
        if isinstance(normaliser, Chain)
        else []
        if normaliser is None
        else [normaliser]
    )
    steps += [] if splitter.before is None else [splitter.before]
    plain = SentencePieceNormaliser(b"", add_dummy_prefix=False, remove_extra_whitespaces=False)
    # A Metaspace puts its symbol only before a text that has none; SentencePiece always: equal once spaces are stripped.
    stripped = _STRIPPED[0] in steps[:-1] and _STRIPPED[1] in steps[:-1]
    match steps:
        case [Prepend(text="▁"), Replace(old=" ", new="▁")]:
            return replace(plain, add_dummy_prefix=True)
        case [Replace(old=" ", new="▁")] | [Metaspace(symbol="▁", prepend="never")]:
            return plain
        case [*before, Metaspace(symbol="▁")] if stripped:
            blobs = [part.charsmap for part in before if isinstance(part, Charsmap)]
            others = [part for part in before if not isinstance(part, Charsmap) and part not in _STRIPPED]
            if not others and len(blobs) < 2:
                return SentencePieceNormaliser(blobs[0] if blobs else b"")
            steps = others
    names = ", ".join(type(step).__name__ for step in steps) or "nothing"
    raise ModelError(
        f"a SentencePiece model cannot say how this text is normalised ({names}): use --to huggingface."
    )


_STRIPPED: tuple[Normaliser, ...] = (ReplacePattern(r" {2,}", " "), Strip())


def without_charsmap_rules(pipeline: Pipeline) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline with SentencePiece's normaliser as the parts that a tokenizer.json has, and what these cannot say."""
    whole = pipeline.normaliser
    if not isinstance(whole, SentencePieceNormaliser):
        return pipeline, ()
    if whole.treat_whitespace_as_suffix or not whole.escape_whitespaces:
        what = "spaces behind words" if whole.treat_whitespace_as_suffix else "spaces as they are"
        raise ModelError(
            f"a tokenizer.json cannot say that SentencePiece writes {what} here: keep the .model file."
        )
    steps: list[Normaliser] = [Charsmap(whole.charsmap)] if whole.charsmap else []
    steps += _STRIPPED if whole.remove_extra_whitespaces else ()
    steps += [Prepend(SYMBOL)] if whole.add_dummy_prefix else []
    steps += [Replace(" ", SYMBOL)]
    lost = []
    kept = set(Charsmap(whole.charsmap)(WHITE) if whole.charsmap else WHITE) & set(WHITE) - {" "}
    if whole.remove_extra_whitespaces and kept:
        lost.append("that only spaces are taken from the ends of a text (there, other white space goes too)")
    if whole.keep:
        lost.append(f"that {len(whole.keep)} user-defined pieces pass the normaliser as they are")
    changed = Pipeline(
        pipeline.model,
        normaliser=Chain(tuple(steps)),
        # No library knows this splitter, which changes nothing.
        splitter=Whole() if isinstance(pipeline.splitter, RunSplit) else pipeline.splitter,
        decoder=pipeline.decoder,
        template=pipeline.template,
        added=pipeline.added,
        settings=pipeline.settings,
        lengths=pipeline.lengths,
    )
    return changed, tuple(lost)
