"""What every tokenizer promises, checked on each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lineal.tokenizers import ByteTokenizer, CharTokenizer, HFTokenizer, Pipeline, Tokenizer, load_tokenizer
from lineal.tokenizers.files.huggingface import read_huggingface

TEXT = (
    "The quick brown fox\r\n\tjumps over 12+34=46. É é e\u0301 吾輩は猫である 👩‍👩‍👧 <b>&amp;</b>\u2028\x00"
)


def byte_level_bpe(folder: Path) -> HFTokenizer:
    """A small byte-level BPE, trained here, as tokenizer.json has it."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizer.json needs the [hf] extra")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([TEXT] * 3, trainer)
    inner.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<eos>", "pad_token": {"__type": "AddedToken", "content": "<pad>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return HFTokenizer.load(folder)


KINDS: dict[str, Callable[[Path], Tokenizer]] = {
    "char": lambda _: CharTokenizer.train(TEXT + "<pad><eos>"),
    "byte": lambda _: ByteTokenizer(),
    "hf": byte_level_bpe,
    "pipeline": lambda folder: read_huggingface(byte_level_bpe(folder) and folder),
}


@pytest.fixture(params=list(KINDS), scope="module")
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Each tokenizer in turn."""
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


ALPHABET = sorted(set(TEXT + "<pad><eos>"))
texts = st.text(st.sampled_from(ALPHABET), max_size=40)
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(texts)
@example("")
@example("a<eos>b<pad>")
@example("<<eos>>")
@many
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, special=True), skip_special=False) == text
    ids = tokenizer.encode(text)
    assert all(0 <= index < tokenizer.vocab_size for index in ids)
    assert not {tokenizer.eos_id, tokenizer.pad_id} & set(ids)
    assert tokenizer.decode(ids) == text


def test_the_written_form_of_a_special_token_is_that_token_only_when_asked(tokenizer):
    assert tokenizer.encode("<eos>", special=True) == [tokenizer.eos_id]
    assert tokenizer.encode("T<pad><eos>T", special=True).count(tokenizer.eos_id) == 1
    assert tokenizer.encode("<eos>") != [tokenizer.eos_id]
    assert tokenizer.encode_prompt("<eos>", special=True) == [*tokenizer.prefix, tokenizer.eos_id]


def test_special_tokens_are_shown_only_when_asked_for(tokenizer):
    ids = [tokenizer.pad_id, *tokenizer.encode("fox"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "fox"
    assert tokenizer.decode(ids, skip_special=False) == "<pad>fox<eos>"
    assert tokenizer.eos_id in tokenizer.stop_ids


def test_a_prompt_is_its_prefix_and_its_text(tokenizer):
    assert tokenizer.encode_prompt("fox") == [*tokenizer.prefix, *tokenizer.encode("fox")]


@given(st.data())
@many
def test_any_ids_decode_even_beyond_the_vocabulary(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=30))
    known = [index for index in ids if index < tokenizer.vocab_size]
    assert tokenizer.decode(ids) == tokenizer.decode(known)


@given(st.data())
@many
def test_a_stream_shows_each_part_of_the_text_once(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    stream = tokenizer.stream()
    parts = [stream.push(index) for index in ids]
    assert "".join(parts) + stream.finish() == tokenizer.decode(ids)


def test_a_stream_holds_back_an_unfinished_character(tokenizer):
    stream = tokenizer.stream()
    parts = [stream.push(index) for index in tokenizer.encode("a吾👩‍👩‍👧b")]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts)
    assert "".join(parts) == "a吾👩‍👩‍👧b"


def test_it_comes_back_from_its_folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    # What the library opened before is opened here by our own.
    assert type(again) is (Pipeline if isinstance(tokenizer, HFTokenizer) else type(tokenizer))
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    names = ("vocab_size", "bos_id", "eos_id", "pad_id", "stop_ids", "prefix", "chat_template")
    assert [getattr(again, name) for name in names] == [getattr(tokenizer, name) for name in names]


@given(texts)
@example(TEXT)
@example("<<eos>>")
@many
def test_the_tokenizers_library_gives_equal_ids(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizer.json needs the [hf] extra")
    folder = tmp_path_factory.getbasetemp() / f"saved-{type(tokenizer).__name__}"
    if not folder.exists():
        tokenizer.save(folder)
    other = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, special=True)
    assert other.encode(text).ids == ids
    for skip in (True, False):
        assert other.decode(ids, skip_special_tokens=skip) == tokenizer.decode(ids, skip)


def test_transformers_opens_it(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")
    tokenizer.save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert other(TEXT)["input_ids"] == tokenizer.encode(TEXT)
    assert (other.eos_token_id, other.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)
    assert other.decode(tokenizer.encode(TEXT)) == TEXT
