"""Small tokenizers of every kind in use, made with the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

FOUND = find_spec("tokenizers") is not None
if TYPE_CHECKING or FOUND:
    import tokenizers
    from tokenizers import (
        AddedToken,
        Regex,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

TEXT = (
    "The quick brown fox jumps over the lazy dog, doesn't it? Él café naïve 123 4567\n\n"
    "Привет, мир! 吾輩は猫である。名前はまだ無い。 \t 👩‍👩‍👧 hello hello world worlds <b>word</b>\r\n"
)
LINES = [TEXT, TEXT.lower(), "the cat sat on the mat " * 3, "of the people by the people for the people"]
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace("{1,3}", "")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def trained(inner: Any, trainer: Any) -> Any:
    """After learning from LINES."""
    inner.train_from_iterator(LINES, trainer)
    return inner


def bpe(size: int = 400, **settings: Any) -> Any:
    """A trainer of byte-level BPE."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, **settings)


def gpt2(prefix: bool = False) -> Any:
    """GPT-2, or with a space in front RoBERTa."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    trained(inner, bpe(special_tokens=["<|endoftext|>"]))
    if prefix:
        inner.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True)])
        ids: list[Any] = [(token, inner.token_to_id(token)) for token in ("</s>", "<s>")]
        inner.post_processor = processors.RobertaProcessing(*ids)
    return inner


def split_by(pattern: str, whole: str = "") -> Any:
    """Llama 3, Qwen 2: a pattern, then bytes. whole: a token that no merge makes, for pieces that are it."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trained(inner, bpe())
    content = json.loads(inner.to_str())
    if whole:
        content["model"]["ignore_merges"] = True
        content["model"]["vocab"][whole] = len(content["model"]["vocab"])
    inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    inner.add_special_tokens(["<|begin|>", "<|end|>"])
    inner.add_tokens([AddedToken("hello", normalized=False), AddedToken("<b>", normalized=True)])
    begin = ("<|begin|>", inner.token_to_id("<|begin|>"))
    around = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B:1", special_tokens=[begin]
    )
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    return inner


def llama3() -> Any:
    """A whole piece that is a token stays whole, though no merge makes it."""
    return split_by(CL100K, whole="Ġqux")


def qwen2() -> Any:
    """Composed characters, one digit at a time."""
    inner = split_by(QWEN2)
    inner.normalizer = normalizers.NFC()
    return inner


def bert() -> Any:
    """WordPiece, uncased."""
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained(inner, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    inner.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return inner


def llama2(legacy: bool = True) -> Any:
    """Characters with byte fallback; spaces made visible by normalisers, or by Metaspace."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *BYTES], show_progress=False)
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained(inner, trainer)
    content = json.loads(inner.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    if not legacy:
        inner.normalizer = None
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return inner


def t5(data: Path, words: bool = True) -> Any:
    """Unigram with sentencepiece's charsmap; words between white space, or runs of spaces brought down."""
    inner = tokenizers.Tokenizer(models.Unigram())
    charsmap = charsmap_of((data / "tok_sentencepiece" / "test_model.model").read_bytes())
    precompiled = normalizers.Precompiled(charsmap)
    if words:
        inner.normalizer = precompiled
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
    else:
        inner.normalizer = normalizers.Sequence(
            [precompiled, normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
        )
        inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trained(
        inner,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return inner


def charsmap_of(model: bytes) -> bytes:
    """The charsmap in a sentencepiece model."""
    from lineal.tokenizers.sentencepiece import parse_model

    return parse_model(model).text_normaliser.charsmap


def clip() -> Any:
    """Bytes with a mark at the end of a word, lower case, and a pattern whose matches alone are kept."""
    inner = tokenizers.Tokenizer(
        models.BPE(unk_token="!</w>", end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: i
        for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters), "th", "the</w>"])
    }
    inner.model = models.BPE(
        vocabulary, [("t", "h"), ("th", "e</w>")], unk_token="!</w>", end_of_word_suffix="</w>"
    )
    return inner


def old_words() -> Any:
    """Words between white space, an ending mark, digits apart."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    inner.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    trained(inner, trainer)
    inner.enable_truncation(7, stride=2, strategy="only_first", direction="left")
    inner.enable_padding(
        direction="left", pad_id=3, pad_type_id=1, pad_token="<pad>", length=12, pad_to_multiple_of=4
    )
    return inner


def word_level() -> Any:
    """Whole words; of its special tokens one is also a word of the vocabulary."""
    words = ["<unk>", "<pad>", "hello", "world", "the", "cat", "é"]
    inner = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["<pad>", "<unk>"])
    inner.add_tokens([AddedToken("cat", single_word=True), AddedToken("new", rstrip=True, lstrip=True)])
    return inner


KINDS: dict[str, Callable[[Path], Any]] = {
    "gpt2": lambda _: gpt2(),
    "roberta": lambda _: gpt2(prefix=True),
    "llama3": lambda _: llama3(),
    "qwen2": lambda _: qwen2(),
    "bert": lambda _: bert(),
    "llama2": lambda _: llama2(),
    "llama2 with metaspace": lambda _: llama2(legacy=False),
    "t5": t5,
    "t5 of today": lambda data: t5(data, words=False),
    "clip": lambda _: clip(),
    "words": lambda _: old_words(),
    "word level": lambda _: word_level(),
}


NEED_DATA = ("t5", "t5 of today")


@pytest.fixture(scope="session")
def make(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The tokenizer.json of a kind, made once."""
    if not FOUND:
        pytest.skip("the oracle is in the [hf] extra")
    made: dict[str, str] = {}

    def content(name: str) -> str:
        if name not in made:
            folder = request.getfixturevalue("data") if name in NEED_DATA else Path()
            made[name] = KINDS[name](folder).to_str()
        return made[name]

    return content


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind in turn."""
    return request.param
