"""Rewards are called, checked, weighted and summed; every fault is named, counted and never silent."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineal.environments.rewards import Reward, parse_rewards
from lineal.environments.scoring import Samples, Scored, Scorer
from lineal.environments.shaping import SoftOverlong
from lineal.environments.worker import Limits
from lineal.errors import RewardError, UsageError

FUNCTIONS = r"""
import asyncio, math, os, re, time
from fractions import Fraction

def length(completions, **kwargs): return [len(c) for c in completions]
def named(completions, answer): return [float(c == a) for c, a in zip(completions, answer)]
async def later(completion_ids, **kwargs): return [len(ids) for ids in completion_ids]
def some(completions, **kwargs): return [None if c == "b" else 2.0 for c in completions]
def never(completions, **kwargs): return [None] * len(completions)
def odd_kinds(completions, **kwargs): return [True, 3, Fraction(1, 2), False]
def state(completions, trainer_state, **kwargs): return [float(trainer_state.global_step)] * len(completions)
def logs(completions, log_metric, log_extra, **kwargs):
    log_metric("mine", 1.0); log_metric("mine", 2.0)
    log_extra("seen", completions)
    print("said hello")
    return [0.0] * len(completions)

def nothing(completions, **kwargs): return None
def scalar(completions, **kwargs): return 0.5
def text(completions, **kwargs): return "0.5"
def mapping(completions, **kwargs): return {"rewards": [0.0] * len(completions)}
def generator(completions, **kwargs): return (0.0 for _ in completions)
def short(completions, **kwargs): return [0.0]
def long(completions, **kwargs): return [0.0] * (len(completions) + 1)
class Tensor:
    def tolist(self): return [0.0] * 4
def tensor(completions, **kwargs): return Tensor()
def needs(completions, nowhere, **kwargs): return [0.0] * len(completions)
def positional(completions, /): return [0.0] * len(completions)

def at(value):
    return lambda completions, **kwargs: [value if c == "c" else 1.0 for c in completions]
nan, inf, words, pair, object_, huge = (at(v) for v in (math.nan, -math.inf, "1.0", [1.0], {}, 10**400))
class Liar:
    def __float__(self): raise RuntimeError("not today")
liar = at(Liar())

def picky(completions, **kwargs): return [1.0 / (c != "c") for c in completions]
def together(completions, **kwargs):
    if len(completions) > 1: raise RuntimeError("only alone")
    return [1.0]
def hangs(completions, **kwargs): time.sleep(3600)
def backtracks(completions, **kwargs): return [float(bool(re.match("(a+)+$", "a" * 60 + "b"))) for _ in completions]
def leaves(completions, **kwargs): print("bye", flush=True); os._exit(3)
"""

SAMPLES = Samples(
    prompts=["p"] * 4,
    completions=["a", "b", "c", "d"],
    completion_ids=[[1], [2, 3], [4], [5, 6, 7, 8]],
    columns={"answer": ["a", "x", "c", "x"], "prompt": ["hidden"] * 4},
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "user.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def run(file: Path) -> Iterator[object]:
    made: list[Scorer] = []

    def score(*names: str, weights: tuple[float, ...] = (), samples: Samples = SAMPLES, **options) -> Scored:
        specs = [name if name in ("exact", "number") or ":" in name else f"{file}:{name}" for name in names]
        state = options.pop("state", None)
        made.append(Scorer(parse_rewards(specs, weights), **options))
        return made[-1](samples, state)

    yield score
    for scorer in made:
        scorer.close()


def test_a_builtin_and_a_users_function_are_weighted_and_summed(run) -> None:
    scored = run("exact", "length", weights=(1.0, 0.25))
    assert scored.parts == {"exact": (1.0, 0.0, 1.0, 0.0), "length": (1.0, 1.0, 1.0, 1.0)}
    assert scored.rewards == (1.25, 0.25, 1.25, 0.25)
    assert scored.keep == (True,) * 4 and not scored.failures


def test_only_the_columns_a_function_names_are_passed(run) -> None:
    assert run("named").rewards == (1.0, 0.0, 1.0, 0.0)


def test_async_functions_and_ids(run) -> None:
    assert run("later").rewards == (1.0, 2.0, 1.0, 4.0)


def test_booleans_integers_and_numbers_of_other_kinds_are_numbers(run) -> None:
    assert run("odd_kinds").rewards == (1.0, 3.0, 0.5, 0.0)


def test_none_means_not_applicable(run) -> None:
    scored = run("exact", "some")
    assert scored.parts["some"] == (2.0, None, 2.0, 2.0)
    assert scored.rewards == (3.0, 0.0, 3.0, 2.0) and all(scored.keep)


def test_a_sample_to_which_nothing_applies_is_not_kept_and_counted(run) -> None:
    scored = run("some")
    assert scored.keep == (True, False, True, True) and math.isnan(scored.rewards[1])
    assert scored.summary()["rewards/dropped"] == 1.0
    assert scored.summary()["rewards/some/mean"] == 2.0


def test_none_for_all_is_an_error_that_says_so(run) -> None:
    with pytest.raises(RewardError, match="any of the 4 completions: never gave None for all"):
        run("never")
    assert run("never", on_error="drop").keep == (False,) * 4


def test_state_logs_and_output_reach_the_run(run) -> None:
    assert run("state", state={"global_step": 7}).rewards == (7.0,) * 4
    scored = run("logs")
    assert scored.summary()["mine"] == 1.5 and scored.extra == {"seen": ["a", "b", "c", "d"]}
    assert scored.output == {"logs": "said hello\n"}


def test_finish_reaches_functions_that_take_it(run) -> None:
    ended = Samples(
        SAMPLES.prompts, SAMPLES.completions, SAMPLES.completion_ids, SAMPLES.columns, ["length"] * 4
    )
    assert run("exact", samples=ended).rewards == (0.0,) * 4


def test_format_runs_as_a_reward(run) -> None:
    assert run("format:[ab]").rewards == (1.0, 1.0, 0.0, 0.0)


def test_a_catastrophic_format_ends_at_its_deadline(run) -> None:
    hostile = Samples(["p"], ["a" * 60 + "b"], [[1]])
    with pytest.raises(
        RewardError, match=r"reward format \(format:\(a\+\)\+\$\) was still running after 0.3 s"
    ):
        run("format:(a+)+$", samples=hostile, limits=Limits(seconds=0.3))


def test_the_overlong_penalty_joins_the_sum(run) -> None:
    scored = run("exact", overlong=SoftOverlong(limit=4, buffer=2))
    assert scored.parts["overlong"] == (0.0, 0.0, 0.0, -1.0)
    assert scored.rewards == (1.0, 0.0, 1.0, -1.0)


WHOLE = {
    "nothing": "returned None where a list of 4 numbers is needed",
    "scalar": "returned a float where",
    "text": "returned a str where",
    "mapping": "returned a dict where",
    "generator": "returned a generator where",
    "tensor": r"returned a Tensor \(call .tolist\(\) on it\) where",
    "short": "returned 1 rewards for 4 completions",
    "long": "returned 5 rewards for 4 completions",
    "needs": "needs the argument 'nowhere', and there are only prompts, completions, completion_ids, answer",
    "positional": "needs the argument 'completions'",
    "hangs": r"was still running after 0.6 s, at line \d+ of user.py. Make it faster",
    "backtracks": r"was still running after 0.6 s, at line \d+ of user.py",
    "leaves": r"ended its process with exit code 3. It last printed 'bye'",
    "together": r"raised RuntimeError at line \d+: only alone",
}


@pytest.mark.parametrize("function", WHOLE)
def test_a_call_that_gives_no_rewards(run, function: str) -> None:
    limits = Limits(seconds=0.6 if function in ("hangs", "backtracks") else 30.0)
    with pytest.raises(RewardError, match=rf"^reward {function} \(.*user.py:{function}\) {WHOLE[function]}"):
        run(function, limits=limits)


@pytest.mark.parametrize("function", ["nothing", "short", "hangs", "leaves"])
def test_a_call_that_gives_no_rewards_can_count_as_zero_or_be_dropped(run, function: str) -> None:
    limits = Limits(seconds=0.3 if function == "hangs" else 30.0)
    zero = run("exact", function, on_error="zero", limits=limits)
    assert zero.rewards == (1.0, 0.0, 1.0, 0.0) and all(zero.keep)
    assert zero.failures == {function: 4} and zero.problems[function].startswith("sample 0: ")
    assert zero.summary()[f"rewards/{function}/failed"] == 4.0
    drop = run("exact", function, on_error="drop", limits=limits)
    assert drop.keep == (False,) * 4 and drop.failures == {function: 4}


ONE = {
    "nan": "gave nan",
    "inf": "gave an infinite number",
    "words": "gave a str, not a number",
    "pair": "gave a list, not a number",
    "object_": "gave a dict, not a number",
    "huge": r"gave an int that is no number \(OverflowError\)",
    "liar": r"gave a Liar that is no number \(RuntimeError\)",
    "picky": r"raised ZeroDivisionError at line \d+: float division by zero",
}


@pytest.mark.parametrize("function", ONE)
def test_one_bad_reward_names_its_sample(run, function: str) -> None:
    with pytest.raises(RewardError, match=rf"{ONE[function]}.*, for sample 2 of 4 \(completion 'c'\)"):
        run(function)


@pytest.mark.parametrize("function", ONE)
def test_one_bad_reward_concerns_only_its_sample(run, function: str) -> None:
    zero = run(function, on_error="zero")
    assert zero.rewards == (1.0, 1.0, 0.0, 1.0) and zero.failures == {function: 1}
    assert zero.problems[function].startswith("sample 2: ")
    drop = run(function, on_error="drop")
    assert drop.keep == (True, True, False, True) and math.isnan(drop.rewards[2])


def test_functions_given_from_python_are_checked_alike() -> None:
    def raises(completions: list[str], **_: object) -> list[float | None]:
        return [1.0 / (said != "c") for said in completions]

    def wrong(**_: object) -> list[float | None]:
        return [float("nan")] * 4

    with pytest.raises(RewardError, match=r"reward mine raised ZeroDivisionError.*sample 2 of 4"):
        Scorer([Reward("mine", "mine", function=raises)])(SAMPLES)
    with pytest.raises(RewardError, match=r"reward mine gave nan.*sample 0 of 4"):
        Scorer([Reward("mine", "mine", function=wrong)])(SAMPLES)


def test_a_file_that_cannot_be_loaded_is_known_before_training(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import no_such_module_here\n")
    with (
        pytest.raises(RewardError, match=r"cannot be loaded: raised ModuleNotFoundError at line 1.*Correct "),
        Scorer(parse_rewards([f"{path}:f"])),
    ):
        pass
    with pytest.raises(RewardError, match="cannot be loaded"):
        Scorer(parse_rewards([f"{path}:f"]), on_error="zero")(SAMPLES)


def test_a_missing_function_is_known_before_training(file: Path) -> None:
    with pytest.raises(RewardError, match="has no function 'lenght'; it has length, named"):
        Scorer(parse_rewards([f"{file}:lenght"])).start()


def test_a_gold_answer_without_a_number_names_its_row(run) -> None:
    rows = Samples(["p"] * 2, ["7", "7"], [[1]] * 2, {"answer": ["7", "seven"]})
    with pytest.raises(RewardError, match=r"reward number needs a number in column `answer`.*sample 1 of 2"):
        run("number", samples=rows)
    assert run("number", samples=rows, on_error="drop").keep == (True, False)


def test_a_missing_column_names_those_there_are(run) -> None:
    bare = Samples(["p"], ["a"], [[1]], {"solution": ["a"]})
    with pytest.raises(
        RewardError, match=r"reward exact needs the argument 'answer', and there are only .*solution"
    ):
        run("exact", samples=bare)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(RewardError, match="2 completions came with 1 values of answer"):
        Samples(["p", "p"], ["a", "b"], [[1], [2]], {"answer": ["a"]})


def test_a_column_that_cannot_travel_is_named(run) -> None:
    dated = Samples(["p"], ["a"], [[1]], {"when": [datetime.date(2020, 1, 1)]})
    with pytest.raises(RewardError, match="column 'when': it holds a date"):
        run("length", samples=dated)


def test_control_codes_in_a_completion_do_not_reach_the_terminal(run) -> None:
    hostile = Samples(["p"] * 3, ["a", "\x1b[2J" * 50, "c"], [[1]] * 3)
    with pytest.raises(RewardError) as caught:
        run("short", samples=hostile)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(RewardError) as caught:
        run("nan", samples=Samples(["p"], ["c"], [[1]]))
    assert str(caught.value).isprintable()


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="--on-reward-error ignore is not one of stop, zero, drop"):
        Scorer([], on_error="ignore")


def test_no_samples_need_no_rewards(run) -> None:
    assert run("exact", "length", samples=Samples([], [], [])).rewards == ()


def test_the_same_samples_score_the_same_after_a_failure(file: Path) -> None:
    with Scorer(parse_rewards([f"{file}:picky"]), on_error="zero") as scorer:
        assert scorer(SAMPLES) == scorer(SAMPLES)
