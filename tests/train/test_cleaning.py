"""The paper's cleaning: plain punctuation, words apart, what is broken repaired."""

from __future__ import annotations

import builtins

import pytest

from lineal.errors import UsageError
from lineal.train.cleaning import clean, standard


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("He said—no…", "He said - no..."),
        ("what?!  yes!!", "what ? ! yes !!"),
        ("a\t b", "a b"),
        ("(well,then)", "( well , then )"),
        ("", ""),
    ],
)
def test_punctuation_is_plain_and_runs_stand_alone(line: str, expected: str) -> None:
    assert standard(line) == expected


def test_words_are_cut_and_broken_text_is_repaired() -> None:
    pytest.importorskip("ftfy")
    pytest.importorskip("spacy")
    assert clean(["Don't go.\nItâ€™s late"]) == ["Do n't go .\nIt 's late"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **words: object) -> object:
        if name == "ftfy":
            raise ImportError(name="ftfy")
        return real(name, *rest, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"--clean paper needs ftfy: pip install 'lineal\[text\]'"):
        clean(["x"])
