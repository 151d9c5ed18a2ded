"""One id per character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lineal.errors import DataError, ModelError
from lineal.tokenizers.base import SETTINGS, TOKENIZER, Tokenizer, added_token, read_settings, write_settings
from lineal.tokenizers.special import encode_with_special, special_pattern

SPECIAL = ("<pad>", "<eos>", "<unk>")


class CharTokenizer(Tokenizer):
    """Characters (code points) of a training text, in code point order after <pad>, <eos> and <unk>.

    A character that was not in the training text becomes <unk>.
    """

    def __init__(self, characters: Iterable[str]):
        tokens = [*SPECIAL, *characters]
        self._tokens = tokens
        self._ids = {token: index for index, token in enumerate(tokens)}
        if len(self._ids) != len(tokens) or any(len(token) != 1 for token in tokens[len(SPECIAL) :]):
            raise ModelError("a character tokenizer needs single characters, each once.")
        self._special = {token: self._ids[token] for token in SPECIAL}
        self._pattern = special_pattern(self._special)
        self.vocab_size = len(tokens)
        self.pad_id, self.eos_id, self.unk_id = (self._ids[token] for token in SPECIAL)
        self.stop_ids = (self.eos_id,)

    @classmethod
    def train(cls, text: str) -> CharTokenizer:
        """The tokenizer of the characters of a text; DataError on half a surrogate pair, which no file can hold."""
        characters = sorted(set(text))
        for character in characters:
            if "\ud800" <= character <= "\udfff":
                raise DataError(
                    f"the text holds the lone surrogate U+{ord(character):04X}: decode it as UTF-8."
                )
        return cls(characters)

    @classmethod
    def load(cls, folder: str | Path) -> CharTokenizer:
        """Read what `save` wrote."""
        path = Path(folder) / TOKENIZER
        content = read_settings(path, required=True)
        try:
            vocabulary = content["model"]["vocab"]
            tokens = sorted(vocabulary, key=vocabulary.__getitem__)
            if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
                raise ModelError(f"{path} has gaps in its ids: it was not written by a character tokenizer.")
            return cls(tokens[len(SPECIAL) :])
        except (KeyError, TypeError) as error:
            raise ModelError(f"{path} is no character tokenizer ({error!r}): copy it again.") from error

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """One id per character."""
        if special:
            return encode_with_special(text, self._special, self._encode, self._pattern)
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        find, unknown = self._ids.get, self.unk_id
        return [find(character, unknown) for character in text]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The characters of ids, special tokens left out unless asked for."""
        first, tokens, size = len(SPECIAL) if skip_special else 0, self._tokens, self.vocab_size
        return "".join([tokens[index] for index in ids if first <= index < size])

    def save(self, folder: str | Path) -> None:
        """Write a WordLevel tokenizer.json that splits text into code points, and tokenizer_config.json."""
        folder = Path(folder)
        split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added_token(token, index) for token, index in self._special.items()],
            "normalizer": None,
            "pre_tokenizer": split,
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": self._ids, "unk_token": "<unk>"},
        }
        write_settings(folder / TOKENIZER, content)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "lineal_kind": "char",
            "pad_token": "<pad>",
            "eos_token": "<eos>",
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False,
        }
        write_settings(folder / SETTINGS, settings)
