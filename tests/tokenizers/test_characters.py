"""The character tokenizer's own rules."""

from __future__ import annotations

import json

import pytest

from lineal.errors import DataError, ModelError
from lineal.tokenizers import CharTokenizer, load_tokenizer


def test_ids_follow_the_code_points_after_the_special_tokens():
    tokenizer = CharTokenizer.train("banana 3")
    assert tokenizer.vocab_size == 3 + 5
    assert tokenizer.encode(" 3abn") == [3, 4, 5, 6, 7]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)


def test_training_depends_on_the_set_of_characters_only():
    assert CharTokenizer.train("abcabc").encode("cab") == CharTokenizer.train("bca").encode("cab")


def test_an_unknown_character_becomes_unk():
    tokenizer = CharTokenizer.train("ab")
    assert tokenizer.encode("azb") == [3, 2, 4]
    assert tokenizer.decode([3, 2, 4]) == "ab"
    assert tokenizer.decode([3, 2, 4], skip_special=False) == "a<unk>b"


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match=r"U\+D83D"):
        CharTokenizer.train("a\ud83d")


def test_characters_must_be_single_and_distinct():
    for characters in (["ab"], ["a", "a"], [""]):
        with pytest.raises(ModelError):
            CharTokenizer(characters)


@pytest.mark.parametrize("vocabulary", [{"<pad>": 0, "a": 7}, {}, None])
def test_a_damaged_folder_is_named(tmp_path, vocabulary):
    CharTokenizer.train("ab").save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = vocabulary
    if not vocabulary:
        del content["model"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_whole_play_comes_back(data):
    text = (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.vocab_size == 65 + 3
    assert tokenizer.decode(tokenizer.encode(text)) == text
