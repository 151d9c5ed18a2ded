"""Inputs as the paper draws them (figure 1, right), what is cut, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.models.decoder import Decoder, gpt1_config
from lineal.models.finetuned import DecoderBody, FineTuned, widened
from lineal.tokenizers import CharTokenizer
from lineal.tokenizers.training import Learning, train
from lineal.train.finetune.inputs import Framed, Marks, extended, lay_out, micro_batches, sequences

S, D, E = 100, 101, 102
MARKS = Marks(S, D, E)


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        ("classification", [[1, 2]], [[S, 1, 2, E]]),
        ("pair", [[1, 2], [3]], [[S, 1, 2, D, 3, E]]),
        ("similarity", [[1, 2], [3]], [[S, 1, 2, D, 3, E], [S, 3, D, 1, 2, E]]),
        ("choice", [[1], [2], [3, 4]], [[S, 1, D, 2, E], [S, 1, D, 3, 4, E]]),
    ],
)
def test_sequences_are_the_paper_s(kind: str, texts: list, expected: list) -> None:
    assert [framed.ids for framed in sequences(kind, texts, MARKS, 50)] == expected


@given(
    st.sampled_from(["classification", "pair", "similarity", "choice"]),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
    st.integers(6, 30),
)
def test_no_sequence_outgrows_the_context(kind: str, lengths: list[int], context: int) -> None:
    texts = [[7] * length for length in lengths]
    for sequence in sequences(kind, texts, MARKS, context):
        assert len(sequence) <= context
        ids = sequence.ids
        assert ids[0] == S and ids[-1] == E and ids.count(D) == (kind != "classification")


def test_a_choice_loses_the_beginning_of_its_context() -> None:
    found = sequences("choice", [[1, 2, 3, 4], [5], [6, 7]], MARKS, 7)
    assert [framed.ids for framed in found] == [
        [S, 2, 3, 4, D, 5, E],
        [S, 3, 4, D, 6, 7, E],
    ]


def tiny() -> Decoder:
    decoder = Decoder(gpt1_config(103, 16, 2, 2, 64, 24)).initialise(0).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return decoder


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pair", "similarity", "choice"])
def test_scores_are_those_of_each_row_alone(kind: str) -> None:
    body = DecoderBody(tiny())
    model = FineTuned(body, kind, 1 if kind == "choice" else 3, 0.1, seed=1).double().eval()
    texts = [[[1, 2], [3], [4, 5, 6]], [[7] * 9, [8, 9], [1]]]
    rows = [sequences(kind, t if kind == "choice" else t[:2], MARKS, 24) for t in texts]
    both = lay_out(rows)
    score_BC, _ = model(both)
    assert score_BC.shape == (2, 2 if kind == "choice" else 3)
    for row, score_C in zip(rows, score_BC, strict=True):
        alone = lay_out([row])
        torch.testing.assert_close(model(alone)[0][0], score_C)
    state = [body.decoder(torch.tensor([s.ids]))[0, -1] for s in rows[0]]
    if kind == "similarity":
        torch.testing.assert_close(model.head(state[0] + state[1]), score_BC[0])
        swapped = lay_out([rows[0][::-1]])
        torch.testing.assert_close(model(swapped)[0][0], score_BC[0])
    if kind == "choice":
        torch.testing.assert_close(torch.cat([model.head(s) for s in state]), score_BC[0])


@torch.no_grad()
def test_the_language_loss_is_each_sequence_s_mean() -> None:
    body = DecoderBody(tiny())
    model = FineTuned(body, "pair", 2, 0.0).double().eval()
    inputs = lay_out([[MARKS.enclose([1, 2])], [MARKS.enclose([3, 4, 5, 6])]])
    _, hidden_NTD = model(inputs)
    expected = 0.0
    for row in ([S, 1, 2, E], [S, 3, 4, 5, 6, E]):
        logp_TV = body.decoder.logits(body.decoder(torch.tensor([row])))[0].log_softmax(-1)
        expected -= sum(logp_TV[t, row[t + 1]].item() for t in range(len(row) - 1)) / (len(row) - 1)
    assert model.body.language_loss(hidden_NTD, inputs).item() == pytest.approx(expected, abs=1e-12)


def test_micro_batches_hold_every_row_once_within_the_budget() -> None:
    rows = [[Framed([0] * n, n), Framed([0] * (n // 2), 1)] for n in (9, 3, 12, 30, 5, 5)]
    groups = micro_batches(rows, 48)
    assert sorted(i for g in groups for i in g) == list(range(6))
    for group in groups:
        assert len(group) == 1 or len(group) * 2 * max(len(rows[i][0]) for i in group) <= 48


@torch.no_grad()
def test_new_tokens_leave_the_others_as_they_were() -> None:
    decoder = tiny()
    wider = widened(decoder, 106, seed=0)
    token_BT = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(wider.logits(wider(token_BT))[..., :103], decoder.logits(decoder(token_BT)))
    assert 0.005 < wider.embedding.weight[103:].std().item() < 0.05
    assert widened(decoder, 100, seed=0) is decoder


def test_a_tokenizer_gets_the_tokens_and_makes_them_of_no_text(tmp_path) -> None:
    tokenizer = train("bpe", texts=["a b c <start> "] * 9, learning=Learning(vocab_size=300))
    wider, marks = extended(tokenizer)
    assert [marks.start, marks.delimiter, marks.extract] == list(
        range(tokenizer.vocab_size, tokenizer.vocab_size + 3)
    )
    assert wider.encode("<start>") == tokenizer.encode("<start>")
    assert extended(wider) == (wider, marks)
    plain = CharTokenizer.train("abc")
    same, ids = extended(plain)
    assert same is plain and ids.start == plain.vocab_size
