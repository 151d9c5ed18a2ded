"""A tokenizer made of parts: added tokens | normaliser | splitter | model, and decoder and template for the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from lineal.errors import ModelError, UsageError
from lineal.tokenizers.added import WHITE, AddedToken, AddedTokens
from lineal.tokenizers.base import Tokenizer, utf8
from lineal.tokenizers.decode import DecodeTable, Rule, Spaced
from lineal.tokenizers.lengths import Padding, Truncation, truncate, truncate_pair
from lineal.tokenizers.parts import Model, Normaliser, Splitter
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.template import Template
from lineal.tokenizers.text.charsmap import SentencePieceNormaliser
from lineal.tokenizers.text.normalise import Bert, Chain, Metaspace
from lineal.tokenizers.text.split import Whole


@dataclass(frozen=True)
class Encoding:
    """Ids of a text, for each the stretch of the text that it stands for (in characters) and its bytes."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    tokens: list[bytes]


@dataclass(frozen=True)
class Lengths:
    """How a tokenizer's file would cut and fill up. `encode` does neither: see `lineal.tokenizers.lengths`."""

    truncation: Truncation | None = None
    padding: Padding | None = None


class Pipeline(Tokenizer):
    """Added tokens are cut out of a text; what lies between is normalised, split, and encoded by the model.

    model: the vocabulary. normaliser, splitter: None for none. decoder: None puts spaces between tokens. template: what
    is put around a text (`encode_prompt`, `encode_pair`). added: tokens found in a text before anything else, the
    special ones only by `encode(text, special=True)`. settings: names of special tokens, chat template.
    """

    def __init__(
        self,
        model: Model,
        *,
        normaliser: Normaliser | None = None,
        splitter: Splitter | None = None,
        decoder: Rule | None = None,
        template: Template | None = None,
        added: Sequence[AddedToken] = (),
        settings: Settings | None = None,
        lengths: Lengths | None = None,
    ):
        self.model, self.normaliser, self.splitter = model, normaliser, splitter or Whole()
        self.decoder, self.template, self.added = decoder, template, tuple(added)
        self.settings, self.lengths = settings or Settings(), lengths or Lengths()
        self.tokens = _all_tokens(model, self.added)
        self.vocab_size = len(self.tokens)
        self.special_ids = frozenset(token.id for token in self.added if token.special)
        self._found = AddedTokens(self.added, normaliser)
        self._looks = (self._found.any(special=False), self._found.any(special=True))
        before = self.splitter.before
        self._plain = normaliser is None and before is None
        self._whole = _encoder(model, normaliser, before, self.splitter)
        self._first = _encoder(model, None, before, self.splitter)
        self._later = _encoder(model, None, _later(before), self.splitter)
        self._name()

    @cached_property
    def _shown(self) -> DecodeTable:
        return DecodeTable(self.decoder or Spaced(), self.tokens)

    @cached_property
    def _quiet(self) -> DecodeTable:
        silent = self.special_ids
        return DecodeTable(self.decoder or Spaced(), self.tokens, silent) if silent else self._shown

    @cached_property
    def _id_of(self) -> dict[bytes, int]:
        found = dict(zip(reversed(self.tokens), range(self.vocab_size - 1, -1, -1)))
        found.pop(b"", None)
        return found | {token.content.encode(): token.id for token in self.added}

    def _name(self) -> None:
        named = {name: self.settings.token(name) for name in ("bos", "eos", "pad", "unk")}
        here = {token.content: token.id for token in self.added}
        found = {
            name: None if token is None else here[token] if token in here else self.id(token)
            for name, token in named.items()
        }
        self.bos_id, self.pad_id = found["bos"], found["pad"]
        self.unk_id = self.model.unknown if found["unk"] is None else found["unk"]
        self.eos_id = next(iter(self.settings.ends), None) if found["eos"] is None else found["eos"]
        self.stop_ids = self.settings.stop_ids(self.eos_id)
        self.prefix = self.template.prefix if self.template else ()
        self.chat_template = self.settings.chat_template

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text, without what the template puts around it. DataError for half a surrogate pair."""
        if not self._looks[special]:
            return self._whole(text)
        ids: list[int] = []
        for later, part, token in self._cut(text, special):
            if token >= 0:
                ids.append(token)
            else:
                ids += (self._later if later else self._first)(part)
        return ids

    def _cut(self, text: str, special: bool) -> Iterator[tuple[bool, str, int]]:
        """(is it behind the start, normalised text, -1) and ("", id of an added token), in order."""
        for start, end, token in self._found.raw.cut(text, special):
            if token >= 0:
                yield True, "", token
                continue
            part = text[start:end] if self.normaliser is None else self.normaliser(text[start:end])
            for begin, stop, inner in self._found.normalised.cut(part, special):
                yield bool(start or begin), part[begin:stop], inner

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids; ids beyond the vocabulary (a model's padding rows) are passed over."""
        return (self._quiet if skip_special else self._shown)(ids)

    def encode_batch(
        self, texts: Sequence[str], *, threads: int = 1, special: bool = False
    ) -> list[list[int]]:
        """Ids of each text; threads share the work while the compiled cores let the interpreter go."""
        if threads < 1:
            raise UsageError(f"threads={threads}: at least 1 has to do the work.")
        if threads == 1 or len(texts) < 2:
            return [self.encode(text, special=special) for text in texts]
        together = getattr(self.model, "encode_batch", None)
        if together is not None and self._plain and not self._looks[special]:
            # The model's own threads take several short texts at a time.
            datas = [utf8(text) for text in texts]
            return together(datas, [self.splitter.spans(data) for data in datas], threads)
        from concurrent.futures import ThreadPoolExecutor

        size = -(-len(texts) // (4 * threads))
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(lambda part: [self.encode(text, special=special) for text in part], parts)
            return list(chain.from_iterable(done))

    def encode_pair(
        self, first: str, second: str, *, special: bool = False, length: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Ids of two texts in the template, and which text each belongs to (0 or 1, as the template says)."""
        return self.frame(
            self.encode(first, special=special), self.encode(second, special=special), length=length
        )

    def frame(
        self, first: Sequence[int], second: Sequence[int] | None = None, *, length: int | None = None
    ) -> tuple[list[int], list[int]]:
        """The template around the ids of one text or two, and the type of each id.

        length: cut the texts so that everything together has at most so many ids, two of them the longer one first.
        Raises UsageError when the template alone has more.
        """
        template = self.template or Template()
        if length is not None:
            room = length - template.added(second is not None)
            if room < 0:
                raise UsageError(
                    f"length={length} leaves no room: the template alone has {length - room} ids."
                )
            if second is not None:
                first, second = truncate_pair(first, second, room)
            else:
                first = truncate(first, room)[0] if room else []
        return template.apply(first, second)

    def encode_with_offsets(self, text: str, *, special: bool = False) -> Encoding:
        """Ids as `encode` gives them, each with its stretch of the text.

        A stretch covers whole characters: where a character is several tokens, all of them have all of it. What the
        normaliser drops belongs to the token before it, what it puts in to an empty stretch or the token it is part of.
        This goes through the models' reference forms: exact, and slower.
        """
        found: list[tuple[int, int, int]] = []
        for start, end, token in self._found.raw.cut(text, special):
            if token >= 0:
                found.append((token, start, end))
                continue
            part, origins = _aligned(self.normaliser, text[start:end])
            for begin, stop, inner in self._found.normalised.cut(part, special):
                if inner >= 0:
                    found.append((inner, start + origins[begin], start + origins[stop]))
                    continue
                piece, places = part[begin:stop], [start + at for at in origins[begin : stop + 1]]
                found += self._located(piece, places, bool(start or begin))
        if self.template and self.template.trim:
            found = [(token, *_trimmed(text, start, end)) for token, start, end in found]
        ids = [token for token, _, _ in found]
        return Encoding(ids, [(start, end) for _, start, end in found], [self.tokens[i] for i in ids])

    def _located(self, text: str, places: list[int], later: bool) -> Iterator[tuple[int, int, int]]:
        before = self.splitter.before
        text, origins = _aligned(_later(before) if later else before, text)
        places = [places[at] for at in origins]
        data = utf8(text)
        # The character that each byte is part of, and one more for the end.
        character = [i for i, letter in enumerate(text) for _ in range(len(letter.encode()))] + [len(text)]
        spans = self.splitter.spans(data)
        for i in range(0, len(spans), 2):
            at = spans[i]
            for token, begin, stop in self.model.segment(data[at : spans[i + 1]]):
                last = character[at + stop - 1] + 1 if stop > begin else character[at + begin]
                yield token, places[character[at + begin]], places[last]

    def id(self, token: str | bytes) -> int | None:
        """The id of a token given by its text or bytes; None when there is no such token."""
        return self._id_of.get(token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token)

    def token(self, index: int) -> bytes:
        """The bytes of an id; UsageError for one that the vocabulary does not have."""
        if not 0 <= index < self.vocab_size:
            raise UsageError(f"there is no token {index}: the ids are 0 to {self.vocab_size - 1}.")
        return self.tokens[index]

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        from lineal.tokenizers.files.huggingface import write_huggingface

        write_huggingface(self, Path(folder))


def _all_tokens(model: Model, added: tuple[AddedToken, ...]) -> list[bytes]:
    tokens = list(model.tokens)
    most = max((token.id for token in added), default=-1) + 1
    if most > 2 * (len(tokens) + len(added)) + 65536 or min((token.id for token in added), default=0) < 0:
        raise ModelError(
            f"the added tokens have ids up to {most - 1}, but the vocabulary has {len(tokens)} tokens: the ids are damaged."
        )
    tokens += [b""] * (most - len(tokens))
    for token in added:
        tokens[token.id] = utf8(token.content)
    return tokens


def _encoder(
    model: Model, normaliser: Normaliser | None, before: Normaliser | None, splitter: Splitter
) -> Callable[[str], list[int]]:
    """What turns a stretch of text into ids. Made once, so that what a tokenizer does not do costs nothing."""
    encode, spans = model.encode, splitter.spans

    def ids_of(text: str) -> list[int]:
        data = utf8(text)
        return encode(data, spans(data))

    def ids_of_prepared(text: str) -> list[int]:
        for part in steps:
            text = part(text)
            if not text:
                return []
        data = utf8(text)
        return encode(data, spans(data))

    def ids_of_converted(text: str) -> list[int]:
        data = convert(utf8(text))
        return encode(data, spans(data)) if data else []

    steps = [part for part in (normaliser, before) if part is not None]
    if len(steps) == 1 and isinstance(steps[0], Bert | SentencePieceNormaliser):
        # They work on bytes themselves: their text would be made only to be taken apart again.
        convert = steps[0].convert
        return ids_of_converted
    return ids_of_prepared if steps else ids_of


def _later(before: Normaliser | None) -> Normaliser | None:
    """What comes before splitting in stretches of a text behind its start."""
    if isinstance(before, Chain):
        return Chain(tuple(part.later if isinstance(part, Metaspace) else part for part in before.parts))
    return before.later if isinstance(before, Metaspace) else before


def _aligned(normaliser: Normaliser | None, text: str) -> tuple[str, list[int]]:
    return (text, list(range(len(text) + 1))) if normaliser is None or not text else normaliser.align(text)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return min(end - len(part.lstrip(WHITE)), end), max(
        start + len(part.rstrip(WHITE)), end - len(part.lstrip(WHITE))
    )
