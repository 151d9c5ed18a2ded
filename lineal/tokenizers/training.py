"""Training by name: for each kind of tokenizer the parts that its users expect, all of which can be exchanged.

Training is three steps, here as three functions: `count` (pieces of the corpus, by several processes), `learn` (a vocabulary
from the counts alone) and `assemble` (the vocabulary with its parts). `train` does one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.errors import DataError, UsageError
from lineal.tokenizers import decode
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.base import Tokenizer
from lineal.tokenizers.bytes import ByteTokenizer
from lineal.tokenizers.characters import CharTokenizer
from lineal.tokenizers.corpus.counting import PieceCounts, count_files, count_texts
from lineal.tokenizers.decode import Rule
from lineal.tokenizers.parts import Model, Normaliser, Splitter
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.text.prepared import Prepared, ReplacePattern

if TYPE_CHECKING:
    from lineal.tokenizers.pipeline import Pipeline

SYMBOL = "▁"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
Progress = Callable[[str, int, int], Any]
"""Called with what is being done ("counting", "learning"), how much is done and how much there is."""


@dataclass(frozen=True)
class Parts:
    """What is around a vocabulary.

    special: special tokens in the order of their ids, which come first. roles: what they are for, by the names of
    tokenizer_config.json without `_token` (bos, eos, unk, pad, cls, sep, mask). template: what is put around one text and
    around two, as `Template.parse` reads it; None for nothing.
    """

    normaliser: Normaliser | None = None
    splitter: Splitter = field(default_factory=split.Whole)
    decoder: Rule | None = None
    special: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    template: tuple[str, str] | None = None


@dataclass(frozen=True)
class Learning:
    """How a vocabulary is learned.

    vocab_size: ids in all, special tokens and bytes counted. min_frequency: rarer pieces (of BPE: pairs) are passed over.
    algorithm: "unigram" or "bpe", of the kind sentencepiece. score: "frequency" or "likelihood", of WordPiece. coverage:
    the share of the corpus's characters that the alphabet must cover (the rarest are left to bytes or to the unknown
    token). longest: longest token in characters. byte_fallback: whether what the alphabet lacks becomes bytes.
    """

    vocab_size: int = 32000
    min_frequency: int = 0
    algorithm: str = "unigram"
    score: str = "frequency"
    coverage: float = 1.0
    longest: int | None = None
    byte_fallback: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer: its parts, how its vocabulary is learned, and what is lost when a text is decoded again."""

    summary: str
    parts: Parts
    learn: Callable[[PieceCounts, Parts, Learning, Progress], Model]
    loses: str = "nothing"
    lines: Normaliser | None = None
    """What is done to the lines of a file for counting alone: where the kind cuts no line ends off, they are not counted."""


def train(
    kind: str,
    files: Sequence[str | Path] = (),
    *,
    texts: Iterable[str] | None = None,
    parts: Parts | None = None,
    learning: Learning | None = None,
    workers: int = 1,
    cap: int | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """A tokenizer of a kind (a name of KINDS), trained on files line by line, or on texts.

    parts: in place of the kind's own (`dataclasses.replace(KINDS["bpe"].parts, splitter=Cl100k())`). workers: processes
    that count. cap: count at most so many different pieces (see PieceCounts). The result's `vocab_size` is less than
    learning.vocab_size where the corpus has no more to give.
    Raises UsageError for settings that cannot work, DataError for a corpus that cannot be read or has no text.
    """
    chosen, parts, learning = _kind(kind), parts or _kind(kind).parts, learning or Learning()
    check(learning)
    if kind == "byte":
        return ByteTokenizer()
    report = progress or _silent
    splitter = parts.splitter
    normaliser = _joined(chosen.lines, parts.normaliser) if texts is None else parts.normaliser
    if texts is not None:
        counts = count_texts(texts, normaliser, splitter, cap)
    else:

        def counted(done: int, total: int) -> None:
            report("counting", done, total)

        counts = count_files(files, normaliser, splitter, workers=workers, cap=cap, progress=counted)
    if not len(counts):
        raise DataError("there is no text to learn from: give files or texts that are not empty.")
    if kind == "char":
        return CharTokenizer(_characters(counts, learning))
    return assemble(learn(kind, counts, parts=parts, learning=learning, progress=report), parts)


def learn(
    kind: str,
    counts: PieceCounts,
    *,
    parts: Parts | None = None,
    learning: Learning | None = None,
    progress: Progress | None = None,
) -> Model:
    """The vocabulary of a kind from how often each piece occurs (see `count_files`, `count_texts`, `merge_counts`)."""
    import warnings

    chosen = _kind(kind)
    if kind in ("char", "byte"):
        raise UsageError(f"nothing is learned of the kind {kind}: train({kind!r}, ...) makes it at once.")
    with warnings.catch_warnings():
        # That the corpus gave less than was asked is said by the size of what comes back.
        warnings.simplefilter("ignore")
        return chosen.learn(counts, parts or chosen.parts, learning or Learning(), progress or _silent)


def assemble(model: Model, parts: Parts) -> Pipeline:
    """The tokenizer of a vocabulary whose first ids are the special tokens of its parts."""
    from lineal.tokenizers.pipeline import Pipeline
    from lineal.tokenizers.settings import Settings
    from lineal.tokenizers.template import Template
    from lineal.tokenizers.unigram import Unigram

    ids = {name: at for at, name in enumerate(parts.special)}
    # Unigram finds and remembers the words between symbols by itself, and faster.
    inside = isinstance(model, Unigram) and parts.splitter == split.SymbolSplit(SYMBOL)
    return Pipeline(
        model,
        normaliser=parts.normaliser,
        splitter=split.Whole() if inside else parts.splitter,
        decoder=parts.decoder,
        template=Template.parse(*parts.template, ids) if parts.template else None,
        added=[AddedToken(name, at) for name, at in ids.items()],
        settings=Settings({f"{role}_token": name for role, name in parts.roles.items()}),
    )


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UsageError(f"there is no kind of tokenizer {name!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[name]


def check(learning: Learning) -> None:
    """Raise UsageError for settings that cannot work, whatever the corpus."""
    if learning.vocab_size < 1:
        raise UsageError(f"vocab_size {learning.vocab_size}: must be at least 1.")
    if not 0 < learning.coverage <= 1:
        raise UsageError(f"coverage {learning.coverage}: must be above 0 and at most 1.")
    if learning.min_frequency < 0:
        raise UsageError(f"min_frequency {learning.min_frequency}: must be at least 0.")
    if learning.longest is not None and learning.longest < 1:
        raise UsageError(f"longest {learning.longest}: must be at least 1.")
    choices = {"algorithm": ("unigram", "bpe"), "score": ("frequency", "likelihood")}
    for name, known in choices.items():
        if getattr(learning, name) not in known:
            raise UsageError(f"{name} {getattr(learning, name)}: must be {' or '.join(known)}.")


def _silent(what: str, done: int, total: int) -> None:
    return None


def _joined(first: Normaliser | None, then: Normaliser | None) -> Normaliser | None:
    parts = tuple(part for part in (first, then) if part is not None)
    return normalise.Chain(parts) if len(parts) > 1 else parts[0] if parts else None


def alphabet_of(counts: PieceCounts, coverage: float) -> list[str]:
    """The most frequent characters that make up so large a share of all, the most frequent first; at 1 every one."""
    seen: dict[str, int] = {}
    for piece, count in counts.items():
        for character in piece.decode():
            seen[character] = seen.get(character, 0) + count
    ordered = sorted(seen, key=lambda character: (-seen[character], character))
    wanted, had = coverage * sum(seen.values()), 0
    for size, character in enumerate(ordered, 1):
        had += seen[character]
        if had >= wanted:
            return ordered[:size]
    return ordered


def _characters(counts: PieceCounts, learning: Learning) -> list[str]:
    from lineal.tokenizers.characters import SPECIAL

    found = alphabet_of(counts, learning.coverage)
    return sorted(found[: max(0, learning.vocab_size - len(SPECIAL))])


def _learn_words(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    from lineal.tokenizers.words import WordLevel, train_words

    model = train_words(
        counts,
        learning.vocab_size,
        min_frequency=learning.min_frequency,
        special=parts.special,
        unknown=_unknown(parts),
        progress=lambda done, total: progress("learning", done, total),
    )
    return WordLevel(_hidden(model.tokens, parts, model.unknown), unknown=model.unknown)


def _learn_bytes(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    from lineal.tokenizers.bpe import train_bpe

    return train_bpe(
        counts,
        learning.vocab_size,
        initial="bytes",
        min_frequency=learning.min_frequency,
        special=parts.special,
        longest=learning.longest,
        progress=lambda done, total: progress("learning", done, total),
    )


def _learn_characters(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    suffix = next((rule.suffix for rule in _rules(parts.decoder) if isinstance(rule, decode.BPEDecoder)), "")
    return _character_bpe(counts, parts, learning, progress, suffix.encode(), False)


def _character_bpe(
    counts: PieceCounts,
    parts: Parts,
    learning: Learning,
    progress: Progress,
    suffix: bytes,
    byte_fallback: bool,
) -> Model:
    from lineal.tokenizers.bpe import train_bpe

    limit = None if learning.coverage == 1 else len(alphabet_of(counts, learning.coverage))
    model = train_bpe(
        counts,
        learning.vocab_size,
        initial="characters",
        min_frequency=learning.min_frequency,
        special=parts.special,
        unknown=_unknown(parts),
        byte_fallback=byte_fallback,
        limit=limit,
        longest=learning.longest,
        suffix=suffix,
        progress=lambda done, total: progress("learning", done, total),
    )
    if model.byte_fallback is None:
        return model
    tokens = list(model.tokens)
    for at, name in zip(model.byte_fallback, BYTES):
        tokens[at] = name.encode()
    return replace(model, tokens=tokens, fuse_unknown=True)


def _learn_wordpiece(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    from lineal.tokenizers.wordpiece import WordPiece, train_wordpiece

    model = train_wordpiece(
        _covered(counts, learning),
        learning.vocab_size,
        score=learning.score,
        special=parts.special,
        unknown=_unknown(parts) or "",
        min_frequency=learning.min_frequency,
        progress=lambda done, total: progress("learning", done, total),
    )
    return WordPiece(_hidden(model.tokens, parts, model.unknown), unknown=model.unknown, prefix=model.prefix)


def _covered(counts: PieceCounts, learning: Learning) -> PieceCounts:
    """The counts without the words that have a character beyond the alphabet, which WordPiece can't say anyway."""
    if learning.coverage == 1:
        return counts
    known = set(alphabet_of(counts, learning.coverage))
    return PieceCounts({piece: count for piece, count in counts.items() if known.issuperset(piece.decode())})


def _learn_unigram(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    return _unigram(counts, parts, learning, progress, False)


def _learn_pieces(counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress) -> Model:
    if learning.algorithm == "bpe":
        return _character_bpe(counts, parts, learning, progress, b"", learning.byte_fallback)
    return _unigram(counts, parts, learning, progress, learning.byte_fallback)


def _unigram(
    counts: PieceCounts, parts: Parts, learning: Learning, progress: Progress, byte_fallback: bool
) -> Model:
    from lineal.tokenizers.unigram import Unigram
    from lineal.tokenizers.unigram_train import UnigramTraining, train_unigram

    longest = UnigramTraining.longest if learning.longest is None else learning.longest
    model = train_unigram(
        counts,
        learning.vocab_size,
        special=parts.special,
        unknown=_unknown(parts),
        byte_fallback=byte_fallback,
        training=UnigramTraining(coverage=learning.coverage, longest=longest),
        progress=lambda done, total: progress("learning", done, total),
    )
    texts = _hidden(model.tokens, parts, model.unknown)
    pieces = list(zip(texts, (score for _, score in model.pieces)))
    return Unigram(pieces, unknown=model.unknown, byte_fallback=model.byte_fallback)


def _rules(rule: Rule | None) -> tuple[Rule, ...]:
    return rule.flat() if isinstance(rule, decode.Decoders) else () if rule is None else (rule,)


def _unknown(parts: Parts) -> str | None:
    return parts.roles.get("unk")


def _hidden(tokens: Sequence[bytes], parts: Parts, unknown: int | None) -> list[bytes]:
    """Tokens without the names of special ones, which no text may give; they stand among the added tokens."""
    return [b"" if at < len(parts.special) and at != unknown else token for at, token in enumerate(tokens)]


_LINES = normalise.Chain((normalise.Replace("\r\n", ""), normalise.Replace("\n", "")))
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_END = "<|endoftext|>"

KINDS: dict[str, Kind] = {
    "word": Kind(
        "a word is a token, any other is unknown",
        Parts(
            splitter=split.Whitespace(),
            special=("<pad>", "<unk>", "<s>", "</s>"),
            roles={"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"},
        ),
        _learn_words,
        loses="white space (a space between any two tokens), unknown words",
    ),
    "char": Kind(
        "a character is a token, one that the corpus lacks is unknown",
        Parts(splitter=split.Gpt2()),
        _learn_words,
        loses="unknown characters",
    ),
    "byte": Kind("a byte is a token; nothing to train", Parts(), _learn_words),
    "bpe": Kind(
        "byte-level BPE as GPT-2's: any text, nothing unknown",
        Parts(
            splitter=split.Gpt2(),
            decoder=decode.ByteLevel(),
            special=(_END,),
            roles={"bos": _END, "eos": _END},
        ),
        _learn_bytes,
    ),
    "char-bpe": Kind(
        "BPE over the characters of words (Sennrich et al.), a word ending in </w>",
        Parts(
            splitter=split.WhitespaceSplit(),
            decoder=decode.BPEDecoder("</w>"),
            special=("<unk>", "<s>", "</s>", "<pad>"),
            roles={"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"},
        ),
        _learn_characters,
        loses="white space (one space between words), unknown characters",
    ),
    "wordpiece": Kind(
        "BERT's: lower case without accents, longest match, ## inside words",
        Parts(
            normaliser=normalise.Bert(),
            splitter=split.BertSplit(),
            decoder=decode.WordPieceDecoder(),
            special=_BERT,
            roles={"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
            template=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        ),
        _learn_wordpiece,
        loses="case, accents, white space, words with unknown characters",
    ),
    "unigram": Kind(
        "Unigram over words that begin with ▁ (T5, ALBERT), text in NFKC",
        Parts(
            normaliser=normalise.Chain(
                (normalise.Unicode("NFKC"), ReplacePattern(r"\s+", " "), normalise.Strip())
            ),
            splitter=Prepared(normalise.Metaspace(SYMBOL), split.SymbolSplit(SYMBOL)),
            decoder=decode.MetaspaceDecoder(SYMBOL),
            special=("<pad>", "</s>", "<unk>"),
            roles={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
        ),
        _learn_unigram,
        loses="what NFKC changes, runs of white space (one space), unknown characters",
    ),
    "sentencepiece": Kind(
        "SentencePiece's way: the raw text with ▁ for its spaces, Unigram or BPE, bytes for what is rare",
        Parts(
            normaliser=normalise.Chain((normalise.Prepend(SYMBOL), normalise.Replace(" ", SYMBOL))),
            splitter=split.SymbolSplit(SYMBOL),
            decoder=decode.Decoders(
                (decode.Replace(SYMBOL, " "), decode.ByteFallback(), decode.Fuse(), decode.Strip(" ", 1, 0))
            ),
            special=("<unk>", "<s>", "</s>"),
            roles={"unk": "<unk>", "bos": "<s>", "eos": "</s>"},
        ),
        _learn_pieces,
        loses="the symbol ▁ itself (a space)",
        lines=_LINES,
    ),
}
"""Every kind, by the name that the command takes."""

NORMALISERS: dict[str, Normaliser] = {
    "nfc": normalise.Unicode("NFC"),
    "nfd": normalise.Unicode("NFD"),
    "nfkc": normalise.Unicode("NFKC"),
    "nfkd": normalise.Unicode("NFKD"),
    "lowercase": normalise.Lowercase(),
    "strip-accents": normalise.StripAccents(),
    "strip": normalise.Strip(),
    "spaces": ReplacePattern(r"\s+", " "),
    "bert": normalise.Bert(),
    "bert-cased": normalise.Bert(lowercase=False),
}
"""What can be done to a text first, by the name that the command takes."""

SPLITTERS: dict[str, Splitter] = {
    "gpt2": split.Gpt2(),
    "cl100k": split.Cl100k(),
    "o200k": split.O200k(),
    "words": split.Whitespace(),
    "whitespace": split.WhitespaceSplit(),
    "bert": split.BertSplit(),
    "punctuation": split.Punctuation(),
    "digits": split.Digits(),
    "digit": split.Digits(individual=True),
    "none": split.Whole(),
}
"""Ways of cutting a text, by the name that the command takes."""
