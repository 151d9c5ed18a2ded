from __future__ import annotations

import pytest

from lineal.environments.preferences.records import TEXTS, Pair
from lineal.errors import DataError, UsageError
from lineal.train.preferences.labels import Answers, LabelStore, PairWriter
from lineal.web.desk import Answer, Desk, Question, Visitor

ANNA, BOB = Visitor("anna", "tab-1"), Visitor("bob", "tab-2")


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    ask(tmp_path, 12)
    with LabelStore(tmp_path) as opened:
        yield opened


def ask(folder, count, start=0):
    with PairWriter(folder) as writer:
        writer.add([Pair(f"text {i}", f"other {i}", TEXTS) for i in range(start, start + count)])


def asked(desk: Desk, visitor: Visitor) -> Question:
    """The visitor's question, which there is."""
    question = desk.next(visitor)
    assert question is not None
    return question


def reply(question, choice="left"):
    return Answer(question.pair.id, question.swapped, choice, 2.5, question.control)


def test_two_labellers_never_hold_one_pair(store, clock):
    desk = Desk(store, control=0.0, clock=clock)
    held = [asked(desk, Visitor(f"p{i}", f"tab-{i}")) for i in range(12)]
    assert len({question.pair.id for question in held}) == 12
    assert desk.next(Visitor("late", "tab-99")) is None


def test_the_newest_question_comes_first_and_a_reload_shows_the_same(store, clock, tmp_path):
    desk = Desk(store, control=0.0, clock=clock)
    question = asked(desk, ANNA)
    assert question.pair.first == "text 11"
    clock.now += 60
    assert asked(desk, ANNA) == question
    ask(tmp_path, 1, start=50)
    assert asked(desk, BOB).pair.first == "text 50", "questions may arrive while the desk is open"


def test_a_lease_runs_out_when_the_browser_goes_away(store, clock):
    desk = Desk(store, control=0.0, lease=120, clock=clock)
    gone = asked(desk, ANNA)
    clock.now += 119
    assert asked(desk, BOB).pair != gone.pair
    desk.answer(BOB, reply(asked(desk, BOB)))
    clock.now += 2
    assert asked(desk, BOB).pair == gone.pair
    desk.answer(ANNA, reply(gone))
    assert gone.pair.id in store.answered, "and an answer that comes after all still counts"


def test_asking_renews_the_lease(store, clock):
    desk = Desk(store, control=0.0, lease=100, clock=clock)
    mine = asked(desk, ANNA)
    for _ in range(3):
        clock.now += 90
        assert asked(desk, ANNA) == mine
        assert asked(desk, BOB).pair != mine.pair


@pytest.mark.parametrize(
    ("choice", "straight", "swapped"),
    [("left", 1.0, 0.0), ("right", 0.0, 1.0), ("equal", 0.5, 0.5), ("skip", None, None)],
)
def test_what_stood_left_is_what_left_means(store, choice, straight, swapped):
    desk = Desk(store, control=0.0)
    pair = store.open_pairs[0]
    assert desk.answer(ANNA, Answer(pair.id, False, choice)).preference == straight
    assert desk.answer(ANNA, Answer(pair.id, True, choice)).preference == swapped
    assert store.labels[-1].preference == swapped


def test_sides_are_swapped_half_of_the_time_and_blindly(store, clock):
    swaps = []
    for i in range(200):
        question = asked(Desk(store, control=0.0, clock=clock), Visitor("anna", f"tab-{i}"))
        swaps.append(question.swapped)
        sides = (question.pair.first, question.pair.second)
        assert question.sides == (sides[::-1] if question.swapped else sides)
    assert 70 < sum(swaps) < 130


def test_undo_takes_back_one_answer_after_another(store):
    desk = Desk(store, control=0.0)
    seen = []
    for _ in range(3):
        seen.append(asked(desk, ANNA))
        desk.answer(ANNA, reply(seen[-1]))
    again = desk.undo(ANNA)
    assert again is not None and again.pair == seen[2].pair and len(store.labels) == 2
    assert asked(desk, ANNA) == again, "it is asked again at once"
    desk.answer(ANNA, reply(again, "equal"))
    assert store.labels[-1].preference == 0.5
    for expected in (seen[2], seen[1], seen[0]):
        undone = desk.undo(ANNA)
        assert undone is not None and undone.pair == expected.pair
    assert desk.undo(ANNA) is None and store.labels == []


def test_undo_is_one_s_own(store):
    desk = Desk(store, control=0.0)
    desk.answer(ANNA, reply(asked(desk, ANNA)))
    assert desk.undo(BOB) is None and len(store.labels) == 1


def test_control_pairs_measure_agreement_and_are_not_trained_on(store):
    desk = Desk(store, control=0.5)
    seen = 0
    for _ in range(40):
        question = desk.next(ANNA)
        if question is None:
            break
        if question.control:
            seen += 1
            assert question.pair.id in store.answered
            earlier = next(label for label in store.labels if label.pair == question.pair.id)
            agree = (earlier.preference == 1.0) != question.swapped
            desk.answer(ANNA, reply(question, "left" if agree else "right"))
        else:
            desk.answer(ANNA, reply(question))
    assert seen >= 2
    assert store.agreement() == (seen, seen) and len(store.labels) == 12
    assert desk.progress()["agreed"] == seen


def test_progress(store, clock):
    desk = Desk(store, control=0.0, wanted=30, clock=clock, wall=clock)
    assert desk.progress() == {
        "labels": 0,
        "wanted": 30,
        "open": 12,
        "per_minute": 0.0,
        "agreed": 0,
        "repeated": 0,
    }
    clock.now += 2.5
    for _ in range(7):
        desk.answer(ANNA, reply(asked(desk, ANNA)))
        clock.now += 5
    found = desk.progress()
    assert found["labels"] == 7 and found["open"] == 5
    assert found["per_minute"] == pytest.approx(60 * 7 / 37.5, abs=0.1)
    clock.now += 1000
    assert desk.progress()["per_minute"] == 0


def test_the_rate_is_each_labeller_s_own_and_outlives_the_server(store, clock):
    desk = Desk(store, control=0.0, clock=clock, wall=clock)
    clock.now += 100
    for _ in range(4):
        desk.answer(ANNA, reply(asked(desk, ANNA)))
        clock.now += 10
    desk.answer(BOB, reply(asked(desk, BOB)))
    again = Desk(store, control=0.0, clock=clock, wall=clock)
    assert again.rate("anna") == desk.rate("anna") == pytest.approx(60 * 4 / 42.5)
    assert again.rate("bob") == pytest.approx(60 / 10), "one answer of a moment ago is no rate of hundreds"
    assert again.rate("carl") == 0 and again.rate() == pytest.approx(60 * 5 / 42.5)
    again.undo(ANNA)
    assert again.rate("anna") == pytest.approx(60 * 3 / 42.5), "what was taken back does not count"
    clock.now += 280
    assert again.rate("anna") == pytest.approx(60 / 300), "only the last minutes count"


def test_answers_survive_a_new_desk(tmp_path):
    ask(tmp_path, 3)
    with LabelStore(tmp_path) as store:
        question = asked(Desk(store, control=0.0), ANNA)
    with LabelStore(tmp_path) as store:
        desk = Desk(store, control=0.0)
        desk.answer(ANNA, reply(question))
        undone = desk.undo(ANNA)
        assert undone is not None and undone.pair == question.pair
        desk.answer(ANNA, reply(question))
    assert len(Answers(tmp_path).labels) == 1


def test_nonsense_is_refused(store):
    desk = Desk(store)
    with pytest.raises(UsageError, match="none of left"):
        desk.answer(ANNA, Answer(store.open_pairs[0].id, False, "up"))
    with pytest.raises(DataError, match="unknown"):
        desk.answer(ANNA, Answer("nobody-asked", False, "left"))
    with pytest.raises(UsageError, match="--control"):
        Desk(store, control=0.9)
