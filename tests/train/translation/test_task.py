"""What a translation run works on: which pairs are left and what is said of the rest, translations by definition, and verdicts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import ModelError, UsageError
from lineal.generate.beam import BeamSearch
from lineal.models.transformer import Transformer, TransformerConfig
from lineal.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from lineal.tokenizers.training import Learning, train
from lineal.train.translation.bleu import Bleu
from lineal.train.translation.options import BeamOptions, PairOptions
from lineal.train.translation.pairs import Corpus, Pairs
from lineal.train.translation.task import (
    SHOWN,
    Judged,
    Task,
    beam_search,
    judge,
    make_task,
    translations,
    unknown_tokens,
)

LETTERS = CharTokenizer.train("abcdefghij ")
END, CONTEXT = 1, 12
GREEDY = BeamSearch(1, 8, 0.6, 100)


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A float64 model with weights large enough that each source has a translation of its own."""
    config = TransformerConfig(14, 16, 24, 2, 1, 1, context=CONTEXT, pad=0, start=END)
    made = Transformer(config).initialise(0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made.eval()


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """Unigram pieces of four letters, without bytes for the others."""
    learning = Learning(vocab_size=12, byte_fallback=False)
    return train("sentencepiece", texts=["ab abc ba", "cab d dab"] * 20, learning=learning)


def corpus(sources: list[str], targets: list[str], *, split: bool = False) -> Corpus:
    """These pairs to train on; two to validate and test on, the second of which is long."""
    valid = Pairs(["ab", "abcdefghi"], ["ba", "ihgfedcba"], "held out")
    return Corpus(Pairs(sources, targets, "here", {"empty": 2}), valid, valid, split)


def by_hand(model: Transformer, text: str, most: int) -> str:
    """The most probable next token but padding, read anew from the start each time, until the end token or `most`."""
    source, found = torch.tensor([[*LETTERS.encode(text), END]]), [END]
    while len(found) <= most:
        logits = model.logits(model(source, torch.tensor([found]))[0, -1])
        found.append(int(logits[1:].argmax()) + 1)
        if found[-1] == END:
            break
    return LETTERS.decode([i for i in found if i != END])


class TestMakeTask:
    def test_pairs_are_ids_and_what_is_left_out_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = PairOptions(max_tokens=5, max_ratio=1.5, target_language="de")
        made = make_task(options, corpus(["ab", "abcdef", "a"], ["ba", "a", "abcde"]), LETTERS, CONTEXT)
        assert len(made.train) == 1 and made.train.source(0) == [*LETTERS.encode("ab"), END]
        assert (made.ids.start, made.ids.end, made.ids.pad) == (1, 1, 0) and made.language == "de"
        assert capsys.readouterr().err == "here: 1 pairs, left out: 2 empty, 1 too long, 1 ratio\n"

    def test_validation_pairs_of_their_own_files_are_all_kept(self) -> None:
        whole = corpus(["ab"], ["ba"])
        made = make_task(PairOptions(max_tokens=5), whole, LETTERS, CONTEXT)
        assert len(made.valid) == 2 and made.corpus is whole

    def test_held_out_pairs_are_cleaned_as_those_they_came_from(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = make_task(PairOptions(max_tokens=5), corpus(["ab"], ["ba"], split=True), LETTERS, CONTEXT)
        assert made.corpus.valid.sources == ["ab"] and made.corpus.valid.targets == ["ba"]
        assert len(made.valid) == 1 and made.corpus.test is made.corpus.valid
        assert capsys.readouterr().err == "here: 1 pairs, left out: 2 empty, 1 too long\n"

    def test_test_pairs_of_their_own_files_stay_as_they_are(self) -> None:
        test = Pairs(["abcdefghi"], ["a"], "test")
        both = corpus(["ab"], ["ba"], split=True)
        made = make_task(
            PairOptions(max_tokens=5), Corpus(both.train, both.valid, test, True), LETTERS, CONTEXT
        )
        assert made.corpus.test is test and len(made.corpus.valid) == 1

    def test_the_context_bounds_both_sides_with_their_end(self) -> None:
        """Of a context of 4 one place is the end token's."""
        made = make_task(PairOptions(), corpus(["abc", "abcd"], ["abc", "a"], split=True), LETTERS, 4)
        assert len(made.train) == 1 and made.train.dropped["too long"] == 1
        assert len(made.train.source(0)) == 4

    def test_nothing_left_is_refused(self) -> None:
        said = r"^here: of 1 pairs none is left after cleaning \(1 too long, 0 of unequal length\): raise --max-tokens"
        with pytest.raises(UsageError, match=said):
            make_task(PairOptions(max_tokens=1), corpus(["ab"], ["ba"]), LETTERS, CONTEXT)

    def test_a_tokenizer_without_an_end_is_refused(self) -> None:
        endless = CharTokenizer.train("ab")
        endless.eos_id = None  # type: ignore[assignment]
        with pytest.raises(ModelError, match=r"^the tokenizer has no end-of-sentence token \(</s>\)"):
            make_task(PairOptions(), corpus(["ab"], ["ba"]), endless, CONTEXT)


class TestUnknown:
    def test_unknown_tokens_of_both_sides_are_counted_and_warned_of(
        self, pieces: Tokenizer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Neighbours that are unknown are one token: two in the source, one in the target."""
        made = make_task(PairOptions(), corpus(["a x b yz", "ab"], ["ab q", "ba"]), pieces, 64)
        assert unknown_tokens(made.train, pieces) == 3
        said = "warning: 3 training tokens are unknown to the vocabulary; they become <unk>.\n"
        assert capsys.readouterr().err.endswith(said)

    def test_nothing_is_said_where_nothing_is(
        self, pieces: Tokenizer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for tokenizer, texts in ((pieces, ["ab d"]), (ByteTokenizer(), ["日本 ☃"])):
            made = make_task(PairOptions(), corpus(texts, texts), tokenizer, 64)
            assert unknown_tokens(made.train, tokenizer) == 0
        assert "unknown" not in capsys.readouterr().err


class TestTranslations:
    def test_one_beam_is_the_most_probable_token_each_time(self, model: Transformer) -> None:
        sources = ["ab", "j", "abc def", "hhhh", "cab ij", "a"]
        found = translations(model, sources, LETTERS, GREEDY)
        assert found == [by_hand(model, text, 8) for text in sources]
        assert len(set(found)) > 1 and any(found)

    @settings(max_examples=20)
    @given(st.lists(st.sampled_from(["", " ", "ab", " ab ", "j", "ij d", "\t"]), max_size=6))
    def test_each_sentence_is_translated_as_if_alone_and_empty_ones_stay(
        self, model: Transformer, sources: list[str]
    ) -> None:
        found = translations(model, sources, LETTERS, BeamSearch(2, 4, 0.6, 4))
        alone = [
            translations(model, [text.strip()], LETTERS, BeamSearch(2, 4, 0.6, 4))[0] for text in sources
        ]
        assert found == alone
        assert all(not text for text, source in zip(found, sources, strict=True) if not source.strip())

    def test_a_sentence_that_is_too_long_is_refused_by_its_number(self, model: Transformer) -> None:
        sources = ["a", "", "abcdefghij a", "b"]
        for first, number in ((1, 3), (41, 43)):
            with pytest.raises(UsageError) as caught:
                translations(model, sources, LETTERS, GREEDY, first=first)
            assert str(caught.value) == (
                f"line {number} has 12 subwords and the model takes 11 ('abcdefghij a'): split it into sentences, or "
                "--cut reads only its beginning. It and what follows it was not translated."
            )
        assert len(translations(model, ["abcdefghij "[:11] + "\n", "a" * 11], LETTERS, GREEDY)) == 2

    def test_what_is_shown_of_it_is_safe_and_short(self, model: Transformer) -> None:
        with pytest.raises(UsageError) as caught:
            translations(model, ["\x1b[31m" + "a" * 100], LETTERS, GREEDY)
        assert f"('{'a' * 39}…')" in str(caught.value) and "\x1b" not in str(caught.value)

    def test_cut_reads_the_beginning(self, model: Transformer) -> None:
        long = "abc dej hhh gab"
        assert translations(model, [long, "ab"], LETTERS, GREEDY, cut=True) == [
            by_hand(model, text, 8) for text in (long[: CONTEXT - 1], "ab")
        ]


class TestBeamSearch:
    def test_each_option_goes_to_its_place(self) -> None:
        options = BeamOptions(beams=3, length_penalty=0.25, max_new_tokens=17, max_batch=99)
        assert beam_search(options) == BeamSearch(
            beams=3, max_new_tokens=17, length_penalty=0.25, max_batch=99
        )

    def test_greedy_is_a_beam_of_one_and_else_the_same(self) -> None:
        options = BeamOptions(beams=3, length_penalty=0.25, max_new_tokens=17, max_batch=99)
        assert beam_search(options, greedy=True) == BeamSearch(1, 17, 0.25, 99)


class TestJudged:
    def test_exact_is_the_share_of_the_very_words(self) -> None:
        pairs = Pairs(["a", "b", "c", "d"], ["w", "x", "y", "z"], "here")
        assert Judged(pairs, ["w", "X", "y ", "z"], None).exact == 0.5
        assert Judged(Pairs([], [], "nothing"), [], None).exact == 0

    def test_metrics_hold_what_was_measured(self) -> None:
        pairs = Pairs(["a"], ["w"], "here")
        assert Judged(pairs, ["w"], None).metrics() == {"eval/exact": 1.0}
        scores = Bleu(30.0, "signature", 35.0, 36.0)
        assert Judged(pairs, ["v"], scores).metrics() == {
            "eval/bleu": 30.0,
            "eval/bleu_tokenised": 35.0,
            "eval/bleu_tokenised_lower": 36.0,
            "eval/exact": 0.0,
        }

    def test_a_record_is_one_pair_with_its_translation(self) -> None:
        right, wrong = Judged(Pairs(["a", "b"], ["v w", "x"], "here"), ["v w", "y"], None).records()
        assert right == {
            "kind": "eval", "prompt": "a", "answer": "v w", "completions": ["v w"], "rewards": [1.0],
        }  # fmt: skip
        assert wrong["completions"] == ["y"] and wrong["rewards"] == [0.0]

    def test_records_of_twenty_are_eight_places_apart_alike(self) -> None:
        words = [str(i) for i in range(20)]
        shown = [record["prompt"] for record in Judged(Pairs(words, words, "here"), words, None).records()]
        assert shown == ["0", "2", "5", "7", "10", "12", "15", "17"]

    @given(st.integers(0, 60))
    def test_records_are_different_and_in_order(self, count: int) -> None:
        words = [f"{i:02}" for i in range(count)]
        shown = [str(record["prompt"]) for record in Judged(Pairs(words, words, ""), words, None).records()]
        assert len(shown) == min(SHOWN, count) and shown == sorted(set(shown))


class TestJudge:
    @pytest.fixture
    def task(self) -> Task:
        """Pairs that are never trained on."""
        return make_task(PairOptions(), corpus(["ab"], ["ba"]), LETTERS, CONTEXT)

    @pytest.mark.parametrize(("most", "count"), [(0, 3), (2, 2), (3, 3), (9, 3)])
    def test_the_first_so_many_are_translated(
        self, model: Transformer, task: Task, most: int, count: int
    ) -> None:
        sources = ["ab", "j", "abc def"]
        right = [by_hand(model, text, 8) for text in sources]
        pairs = Pairs(sources, [right[0], "wrong", right[2]], "here")
        found = judge(model, pairs, task, GREEDY, most=most, whole=False)
        assert found.found == right[:count] and found.pairs == pairs.part(range(count), "here")
        assert found.exact == (1 / 2 if count == 2 else 2 / 3)

    def test_long_sentences_are_cut_and_counted(self, model: Transformer, task: Task) -> None:
        found = judge(model, Pairs(["a" * 30], ["a"], "here"), task, GREEDY, whole=False)
        assert found.found == [by_hand(model, "a" * 11, 8)]

    def test_tokenised_scores_are_of_the_whole_alone(self, model: Transformer, task: Task) -> None:
        pytest.importorskip("sacrebleu")
        pytest.importorskip("sacremoses")
        pairs = Pairs(["ab"], ["ba"], "here")
        part, whole = (judge(model, pairs, task, GREEDY, whole=w).metrics() for w in (False, True))
        assert set(part) == {"eval/bleu", "eval/exact"}
        assert set(whole) - set(part) == {"eval/bleu_tokenised", "eval/bleu_tokenised_lower"}
