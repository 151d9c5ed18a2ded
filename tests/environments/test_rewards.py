"""The built-in rewards, value by value, and the names of rewards."""

from __future__ import annotations

import gzip
import hashlib
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.patterns import matches
from lineal.environments.rewards import (
    BUILTIN_REWARDS,
    countdown,
    countdown_subset,
    exact,
    find_number,
    number,
    parse_reward_spec,
    parse_rewards,
    source_hash,
)
from lineal.environments.worker_child import BadRow
from lineal.errors import UsageError


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        ("42", "42", 1.0),
        (" 42\n", "42", 1.0),
        ("42", " 42", 1.0),
        ("42", 42, 1.0),
        ("42.0", "42", 0.0),
        ("42 43", "42", 0.0),
        ("", "", 1.0),
        ("x", None, None),
        ([{"role": "assistant", "content": "42"}], "42", 1.0),
    ],
)
def test_exact(completion: object, answer: object, reward: float | None) -> None:
    assert exact([completion], [answer]) == [reward]


def test_exact_includes_the_end() -> None:
    assert exact(["42", "42"], ["42", "42"], finish=["stop", "length"]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 18", 18),
        ("so 3 and 4.\n#### 1,080", 1080),
        ("#### 5\nno, rather\n#### 7", 7),
        ("#### $18 each, 3 of them", 18),
        ("#### nothing", None),
        (r"so \boxed{-3} or 4", -3),
        (r"\boxed{\$1,000}", 1000),
        ("The answer is 18.", 18),
        ("18", 18),
        ("It costs $1,080.50", Fraction("1080.5")),
        ("3.0", 3),
        ("-7", -7),
        ("−7", -7),
        ("-$7", -7),
        ("$-7", -7),
        ("9-7", 7),
        ("x = -7.", -7),
        (".5", Fraction(1, 2)),
        ("1/4", Fraction(1, 4)),
        ("1/0", 1),
        ("1,2,3", 3),
        ("12,345,678", 12345678),
        ("1234,567", 567),
        ("10%", 10),
        ("no number", None),
        ("", None),
        ("9" * 5000, None),
        ("٣", None),
        ("0012", 12),
    ],
)
def test_the_final_number_is_found(text: str, value: object) -> None:
    assert find_number(text) == value


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_numbers_read_back_however_they_are_written(whole: int, thousandths: int) -> None:
    sign = "-" if whole < 0 else ""
    for text in (f"{whole}.{thousandths:03d}", f"{sign}${abs(whole):,}.{thousandths:03d}"):
        value = Fraction(f"{whole}.{thousandths:03d}")
        assert find_number(f"so it is {text}.") == value == find_number(f"1 2 3\n#### {text}")


@pytest.mark.timeout(60)  # quadratic reading would take many minutes
def test_hostile_text_is_read_at_once() -> None:
    for text in (
        "1" + ",000" * 10**5 + "0",
        "9" * 10**6,
        "#" * 10**6,
        "\\boxed{" * 10**5,
        "-" * 10**6,
        "1/" * 10**5,
    ):
        find_number(text)


def test_number_compares_values() -> None:
    gold = "She sells 9 * 2 = $<<9*2=18>>18 dollars.\n#### 18"
    assert number(["it is 18.00", "17", "", "#### 18"], [gold] * 4) == [1.0, 0.0, 0.0, 1.0]
    assert number(["5"], [None]) == [None]


def test_number_needs_a_number_to_compare_with() -> None:
    with pytest.raises(BadRow, match="'seven' holds none"):
        number(["7"], ["seven"])


def test_every_public_answer_is_read_as_its_own_number(data: Path) -> None:
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt") as lines:
        answers = [json.loads(line)["answer"] for line in lines]
    plain = [answer.rsplit("####", 1)[1].strip().replace(",", "") for answer in answers]
    assert [find_number(answer) for answer in answers] == [Fraction(text) for text in plain]
    assert number([f"The answer is {text}." for text in plain], answers) == [1.0] * len(answers)
    assert sum(r or 0.0 for r in number(plain[1:] + plain[:1], answers)) < 0.05 * len(answers)


def test_countdown_rewards() -> None:
    texts, nums, target = ["3*4", "2*3+4", "3*4 + 2 - 2"], [[2, 3, 4]] * 3, [12, 10, 12]
    assert countdown(texts, nums, target) == [0.0, 1.0, 0.0]
    assert countdown_subset(texts, nums, target) == [1.0, 1.0, 0.0]


def test_format_matches_the_whole_completion() -> None:
    pattern = r"<think>.*</think>\d+"
    assert matches(["<think>a\nb</think>5", "<think></think>5 ", "5"], pattern) == [1.0, 0.0, 0.0]
    assert matches([[{"role": "assistant", "content": "<think></think>1"}]], pattern) == [1.0]


def test_every_built_in_is_found_by_its_name_and_says_what_it_does() -> None:
    for name, function in BUILTIN_REWARDS.items():
        reward = parse_reward_spec(name, 0.5)
        assert (reward.function, reward.name, reward.weight, reward.path) == (function, name, 0.5, None)
        assert function.__doc__


def test_a_file_and_a_function(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(completions, **kw): return [0.0 for c in completions]\n")
    reward = parse_reward_spec(f"{path}:f")
    assert (reward.name, reward.path, reward.attribute, reward.function) == ("f", path, "f", None)


def test_a_format_keeps_its_colons() -> None:
    reward = parse_reward_spec("format:a:b")
    assert reward.name == "format" and dict(reward.fixed) == {"pattern": "a:b"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exac", "Did you mean exact"),
        ("", "There are exact, number"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("mine.py", "write mine.py:function"),
        ("mine:f", "There are exact"),
        ("format:(", "not a regular expression"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_its_remedy(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_reward_spec(spec)


def test_a_function_name_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    with pytest.raises(UsageError, match="'a b' is no function's name"):
        parse_reward_spec(f"{tmp_path}/mine.py:a b")


def test_several_rewards_have_weights_and_distinct_names() -> None:
    rewards = parse_rewards(["exact", "format:a", "format:b"], [1.0, 0.5, 0.25])
    assert [(r.name, r.weight) for r in rewards] == [("exact", 1.0), ("format", 0.5), ("format-2", 0.25)]
    assert [r.weight for r in parse_rewards(["exact", "number"])] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("specs", "weights", "message"),
    [
        ([], [], "--reward exact"),
        (["exact"], [1.0, 2.0], "2 weights for 1 rewards"),
        (["exact"], [float("nan")], "finite"),
        (["exact"], [float("inf")], "finite"),
    ],
)
def test_wrong_numbers_of_weights_are_refused(specs: list[str], weights: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rewards(specs, weights)


def test_the_hash_of_a_users_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(): pass\n")
    before = source_hash(f"{path}:f")
    assert before == hashlib.sha256(b"def f(): pass\n").hexdigest()
    path.write_text("def f(): pass  # changed\n")
    assert source_hash(f"{path}:f") != before
    assert source_hash("exact") is None and source_hash("format:a") is None
