"""BLEU is sacrebleu's, and each of its forms is named by what was done to the text."""

from __future__ import annotations

import pytest

from lineal.train.translation import bleu as module
from lineal.train.translation.bleu import bleu, sentence_score

sacrebleu = pytest.importorskip("sacrebleu", reason="BLEU needs the [mt] extra")
FOUND = ["Ein Hund rennt durch den Schnee.", "Zwei junge, weiße Männer sind im Freien!"]
WANTED = ["Ein Hund läuft durch den Schnee.", "Zwei junge weiße Männer sind draußen."]


def test_the_score_is_sacrebleus_with_its_signature() -> None:
    score = bleu(FOUND, WANTED, "de", whole=False)
    assert score is not None
    assert score.detokenised == pytest.approx(sacrebleu.corpus_bleu(FOUND, [WANTED]).score)
    assert "tok:13a" in score.signature and "case:mixed" in score.signature and "version:" in score.signature
    assert score.tokenised is None and set(score.metrics()) == {"eval/bleu"}


def test_tokenised_scores_stand_beside_it() -> None:
    pytest.importorskip("sacremoses")
    score = bleu(["A dog runs through the snow."], ["a dOG RUNS Through the snow."], "en")
    assert score is not None and score.tokenised is not None and score.lower == pytest.approx(100)
    assert score.tokenised < 50
    cut = bleu(FOUND, WANTED, "de")
    assert cut is not None and cut.tokenised is not None
    # Moses's words, joined by spaces, scored without another tokenizer.
    tokens = ["Ein Hund rennt durch den Schnee .", "Zwei junge , weiße Männer sind im Freien !"]
    wanted = ["Ein Hund läuft durch den Schnee .", "Zwei junge weiße Männer sind draußen ."]
    expected = sacrebleu.corpus_bleu(tokens, [wanted], tokenize="none", force=True).score
    assert cut.tokenised == pytest.approx(expected) and "Moses" in cut.line()


def test_a_sentence_is_scored_between_0_and_1() -> None:
    assert sentence_score(WANTED[0], WANTED[0]) == pytest.approx(1)
    assert 0 < sentence_score(FOUND[0], WANTED[0]) < 1


def test_without_the_extra_there_is_no_bleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available", lambda: False)
    assert bleu(FOUND, WANTED, "de") is None
    assert sentence_score("a", "a") == 1.0 and sentence_score("a", "b") == 0.0
