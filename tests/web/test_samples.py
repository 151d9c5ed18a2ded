"""Samples: before and after, failures among them, hostile text as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lineal.web.read import read_run
from lineal.web.samples import ROWS, Sample, moments, samples_of, samples_section, spread

MakeRun = Callable[..., Path]


def record(step: int, prompt: str, texts: list[str], rewards: list[Any], **more: Any) -> dict[str, Any]:
    return {"step": step, "prompt": prompt, "completions": texts, "rewards": rewards, **more}


def test_records_become_one_sample_per_completion() -> None:
    found = samples_of([record(3, "1+1=", ["2", "3"], [1.0, 0.0], answer=2)])
    assert found == [Sample(3, "1+1=", "2", 1.0, "2"), Sample(3, "1+1=", "3", 0.0, "2")]
    assert [s.right for s in found] == [True, False]


def test_odd_records_are_passed_over() -> None:
    assert samples_of([{"step": 1, "prompt": "x"}, record(1, "x", [], [])]) == []
    assert samples_of([record(1, "x", ["y"], [None])])[0].right is False


def test_first_and_last_step_of_the_held_out_prompts(make_run: MakeRun) -> None:
    said = [
        record(0, "a", ["1"], [0.0], kind="eval"),
        record(4, "train", ["2"], [1.0]),
        record(9, "a", ["3"], [1.0], kind="eval"),
        record(9, "train", ["4"], [1.0]),
    ]
    before, after = moments(read_run(make_run(said=said)))
    assert [(s.step, s.completion) for s in before] == [(0, "1")]
    assert [(s.step, s.completion) for s in after] == [(9, "3")]


def test_without_held_out_ones_those_of_training_are_shown(make_run: MakeRun) -> None:
    run = read_run(make_run(said=[record(1, "a", ["1"], [0.0]), record(2, "b", ["2"], [0.0])]))
    assert [s.prompt for part in moments(run) for s in part] == ["a", "b"]


def test_the_section_shows_what_is_still_wrong(make_run: MakeRun) -> None:
    html = samples_section(read_run(make_run()))
    assert html.index("At step 0") < html.index("At step 120")
    assert "Still without full reward at the end: 1 of the 10 kept completions." in html
    assert ">wrong<" in html.split("At step 120")[1]


def test_no_samples_no_section(make_run: MakeRun) -> None:
    assert samples_section(read_run(make_run(said=[]))) == ""


def test_a_run_with_one_moment_only(make_run: MakeRun) -> None:
    html = samples_section(read_run(make_run(said=[record(5, "p", ["c"], [0.25])])))
    assert "What it writes" in html and "At step" not in html
    assert ">0.25<" in html


def test_hostile_completions_are_text(make_run: MakeRun) -> None:
    bad = "</td><script>alert(1)</script>\x1b[2J\u202e"
    html = samples_section(read_run(make_run(said=[record(1, bad, [bad], [0.0], answer=bad)])))
    assert "<script" not in html and "\x1b" not in html and "\u202e" not in html
    assert html.count("&lt;script&gt;") == 3


def test_a_very_long_completion_is_cut_and_says_so(make_run: MakeRun) -> None:
    html = samples_section(read_run(make_run(said=[record(1, "p", ["x" * 50_000], [0.0])])))
    assert len(html) < 8000
    assert "(50,000 characters)" in html


def test_an_empty_completion_is_visible(make_run: MakeRun) -> None:
    assert "(empty)" in samples_section(read_run(make_run(said=[record(1, "p", [""], [0.0])])))


def test_right_and_wrong_ones_are_both_chosen() -> None:
    wrong = [Sample(1, f"w{i}", "x", 0.0, None) for i in range(20)]
    right = [Sample(1, f"r{i}", "x", 1.0, None) for i in range(20)]
    for samples in (wrong + right, right + wrong):
        chosen = spread(samples)
        assert len(chosen) == ROWS
        assert sum(s.right for s in chosen) == ROWS // 2
    assert len(spread(wrong)) == ROWS
    assert [s.right for s in spread(wrong + right[:1])].count(True) == 1


def test_one_prompt_does_not_fill_the_table() -> None:
    same = [Sample(1, "same", str(i), 0.0, None) for i in range(50)]
    assert len(spread([*same, Sample(1, "other", "x", 0.0, None)])) == 2
