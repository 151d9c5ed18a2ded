"""The adapter: special tokens, prefixes, templates, and what it refuses."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from lineal.errors import DataError, ModelError
from lineal.tokenizers import ByteTokenizer, CharTokenizer, HFTokenizer, Pipeline, load_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="tokenizer.json needs the [hf] extra")


def make(folder: Path, settings: dict[str, Any] | None = None, **files: Any) -> HFTokenizer:
    """A word tokenizer that puts <s> before and </s> behind, in a folder of its own."""
    words = ["<s>", "</s>", "<pad>", "<|im_end|>", "a", "b", "c"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(words[:4])
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    inner.enable_truncation(3)
    inner.enable_padding(length=10)
    inner.save(str(folder / "tokenizer.json"))
    given = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
    files = {"tokenizer_config.json": given if settings is None else settings, **files}
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return HFTokenizer.load(folder)


def test_special_tokens_come_from_the_settings_as_text_or_object(tmp_path):
    tokenizer = make(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)
    assert tokenizer.stop_ids == (1,)
    assert tokenizer.vocab_size == 7


def test_absent_special_tokens_are_none(tmp_path):
    tokenizer = make(tmp_path, settings={"bos_token": None})
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, None, None)
    assert tokenizer.stop_ids == ()


def test_older_folders_keep_them_in_a_map(tmp_path):
    tokenizer = make(tmp_path, settings={}, special_tokens_map__json={"eos_token": "</s>"})
    assert tokenizer.eos_id == 1


def test_all_ids_that_end_a_text_are_known(tmp_path):
    tokenizer = make(
        tmp_path, generation_config__json={"eos_token_id": [3, 1]}, config__json={"eos_token_id": 1}
    )
    assert tokenizer.eos_id == 1
    assert tokenizer.stop_ids == (1, 3)


def test_the_generation_configuration_can_name_the_end(tmp_path):
    tokenizer = make(tmp_path, settings={}, generation_config__json={"eos_token_id": 3})
    assert tokenizer.eos_id == 3


def test_only_a_prompt_gets_the_prefix_and_nothing_is_cut_or_padded(tmp_path):
    tokenizer = make(tmp_path)
    assert tokenizer.encode("a b c a b") == [4, 5, 6, 4, 5]
    assert tokenizer.prefix == (0,)
    assert tokenizer.encode_prompt("a b c a b") == [0, 4, 5, 6, 4, 5]


@pytest.mark.parametrize(
    "found",
    ["{{ x }}", [{"name": "tool_use", "template": "other"}, {"name": "default", "template": "{{ x }}"}]],
)
def test_the_chat_template_is_found(tmp_path, found):
    assert make(tmp_path, settings={"chat_template": found}).chat_template == "{{ x }}"


def test_a_template_file_wins_and_is_kept(tmp_path):
    (tmp_path / "one").mkdir()
    tokenizer = make(tmp_path / "one", settings={"chat_template": "old"}, chat_template__jinja="new")
    assert tokenizer.chat_template == "new"
    tokenizer.save(tmp_path / "two")
    assert HFTokenizer.load(tmp_path / "two").chat_template == "new"


def test_no_template_is_none(tmp_path):
    assert make(tmp_path).chat_template is None
    assert CharTokenizer.train("a").chat_template is None


def test_ours_are_read_by_it_too(tmp_path):
    for tokenizer in (ByteTokenizer(), CharTokenizer.train("héllo <eos>")):
        tokenizer.save(tmp_path)
        other = HFTokenizer.load(tmp_path)
        assert other.encode("héllo<eos>", special=True) == tokenizer.encode("héllo<eos>", special=True)
        assert (other.vocab_size, other.eos_id, other.pad_id, other.prefix) == (
            tokenizer.vocab_size,
            tokenizer.eos_id,
            tokenizer.pad_id,
            (),
        )


def test_a_missing_library_is_named_but_ours_need_none(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    make(tmp_path / "theirs")
    CharTokenizer.train("ab").save(tmp_path / "ours")
    find = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert load_tokenizer(tmp_path / "ours").encode("ab") == [3, 4]
    assert load_tokenizer(tmp_path / "theirs").encode("a b") == [4, 5]
    lacking(tmp_path / "theirs")
    with pytest.raises(
        ModelError, match=r"a Nmt normalizer, which lineal does not have.*pip install 'lineal\[hf\]'"
    ):
        load_tokenizer(tmp_path / "theirs")


def lacking(folder: Path) -> None:
    """Make a folder's tokenizer ask for a part that we lack."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "normalizer": {"type": "Nmt"}}))


def test_a_part_that_we_lack_is_left_to_the_library_and_named(tmp_path, capsys):
    ours = make(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), Pipeline)
    assert capsys.readouterr().err == ""
    lacking(tmp_path)
    theirs = load_tokenizer(tmp_path)
    assert isinstance(theirs, HFTokenizer)
    assert theirs.encode("a b") == ours.encode("a b")
    said = capsys.readouterr().err
    assert "normalizer.type asks for a Nmt normalizer" in said
    assert said.count("\n") == 1


def test_half_a_surrogate_pair_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"U\+D83D at character 1"):
        make(tmp_path).encode("a\ud83d")


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "Magic"}}', "\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json: the tokenizers library cannot read it"):
        HFTokenizer.load(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"has no tokenizer\.json.*AutoTokenizer"):
        load_tokenizer(tmp_path)


def test_settings_that_are_no_json_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json cannot be read as JSON"):
        load_tokenizer(tmp_path)
