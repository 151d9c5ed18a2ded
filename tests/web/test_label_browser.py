"""The page in a real browser: keys and clicks become labels, and a server that is killed loses none."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lineal.environments.control.opening import open_environment
from lineal.environments.preferences.records import TEXTS, Pair
from lineal.environments.preferences.wrappers import LearnedReward
from lineal.train.files import replace_file
from lineal.train.preferences.labels import Answers, PairWriter
from lineal.train.preferences.segments import SegmentStore

playwright = pytest.importorskip("playwright.sync_api")
for name in ("starlette", "uvicorn", "PIL"):
    pytest.importorskip(name)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def ask_clips(folder: Path, pairs: int = 6) -> None:
    world = LearnedReward(open_environment("Pendulum-v1", 1))
    world.reset(0)
    for _ in range(24 * pairs):
        world.step(np.random.default_rng(0).uniform(-2, 2, (1, 1)).astype(np.float32))
    segments, _ = world.take(12)
    SegmentStore(folder).add(segments)
    with PairWriter(folder) as writer:
        sides = list(zip(segments[::2], segments[1::2], strict=True))[:pairs]
        writer.add(Pair(a.id, b.id) for a, b in sides)
    replace_file(
        folder / "about.json", b'{"env": "Pendulum-v1", "instruction": "Which swings up?", "labels": 6}'
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(folder: Path, port: int, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    words = [
        sys.executable,
        "-m",
        "lineal",
        "label",
        str(folder),
        "--port",
        str(port),
        "--control",
        "0",
        *more,
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("open"), process.communicate()[1]
    try:
        yield line.split()[1], process
    finally:
        process.kill()
        process.communicate()


def shown(page) -> str:
    page.wait_for_selector("body[data-pair]")
    return page.evaluate("document.body.dataset.pair")


def after(page, before: str) -> str:
    """The question that follows."""
    page.wait_for_function("p => document.body.dataset.pair && document.body.dataset.pair !== p", arg=before)
    return shown(page)


def labels(folder: Path, count: int) -> Answers:
    """The store once it holds that many labels."""
    answers = Answers(folder)
    for _ in range(400):
        answers.refresh()
        if len(answers.labels) == count:
            return answers
        time.sleep(0.05)
    raise AssertionError(f"{len(answers.labels)} labels, not {count}")


def test_keys_clicks_and_undo_become_labels(browser, tmp_path):
    ask_clips(tmp_path)
    with server(tmp_path, free_port(), "--instruction", "Which is <b>higher</b>?") as (address, _):
        page = browser.new_page()
        page.goto(address + "&name=anna")
        seen = [shown(page)]
        assert page.inner_text("h1") == "Which is <b>higher</b>?"
        drawn = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.some(v => v < 200) }"
        assert all(page.eval_on_selector(f"#{side} canvas", drawn) for side in ("left", "right")), (
            "no blank clip"
        )
        page.keyboard.press("ArrowLeft")
        seen.append(after(page, seen[-1]))
        page.click("#right")
        seen.append(after(page, seen[-1]))
        page.keyboard.press("ArrowUp")
        seen.append(after(page, seen[-1]))
        page.click("#skip")
        seen.append(after(page, seen[-1]))
        found = labels(tmp_path, 4)
        assert [label.pair for label in found.labels] == seen[:4]
        assert {label.labeller for label in found.labels} == {"anna"}
        assert [label.preference for label in found.labels][2:] == [0.5, None]
        assert {label.preference for label in found.labels[:2]} <= {0.0, 1.0}
        page.keyboard.press("z")
        assert after(page, seen[-1]) == seen[3], "undo asks the last question again"
        labels(tmp_path, 3)
        page.keyboard.press("2")
        labels(tmp_path, 4)
        after(page, seen[3])
        assert "4 of 6 labels" in page.inner_text("#facts")
        page.close()


def test_the_left_key_means_what_stands_left(browser, tmp_path):
    """Texts say which is which: always take the long one, wherever it stands."""
    with PairWriter(tmp_path) as writer:
        writer.add(Pair(f"long long text {i}", f"short {i}", TEXTS, "<i>Prompt</i>") for i in range(8))
    with server(tmp_path, free_port()) as (address, _):
        page = browser.new_page(viewport={"width": 390, "height": 780})
        page.goto(address)
        before = ""
        for i in range(8):
            before = after(page, before)
            assert page.inner_text("#prompt") == "<i>Prompt</i>"
            long_left = page.inner_text("#left .text").startswith("long")
            page.keyboard.press("ArrowLeft" if long_left else "ArrowRight")
            labels(tmp_path, i + 1)
        found = Answers(tmp_path)
        assert all(label.preference == 1.0 for label in found.labels), (
            "the long one is always the first of its pair"
        )
        page.wait_for_selector("#wait:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            "nothing hangs over on a phone"
        )
        page.close()


def test_a_killed_server_loses_nothing_and_the_open_page_goes_on(browser, tmp_path):
    ask_clips(tmp_path)
    port = free_port()
    page = browser.new_page()
    with server(tmp_path, port) as (address, process):
        page.goto(address)
        first = shown(page)
        page.keyboard.press("ArrowLeft")
        second = after(page, first)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        labels(tmp_path, 1)
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#say.bad")
        assert len(Answers(tmp_path).labels) == 1
    with server(tmp_path, port) as (again, _):
        assert again == address, "the address lasts, so an open page need not be opened anew"
        assert after(page, second)
        found = labels(tmp_path, 2)
        assert [label.pair for label in found.labels] == [first, second], "the answer given meanwhile arrived"
    page.close()


def test_two_tabs_are_asked_different_things(browser, tmp_path):
    ask_clips(tmp_path)
    with server(tmp_path, free_port()) as (address, _):
        pages = [browser.new_page() for _ in range(2)]
        for page in pages:
            page.goto(address)
        assert shown(pages[0]) != shown(pages[1])
        for page in pages:
            page.close()


def test_without_the_token_the_page_says_so(browser, tmp_path):
    ask_clips(tmp_path)
    with server(tmp_path, free_port()) as (address, _):
        page = browser.new_page()
        page.goto(address.split("#")[0])
        page.wait_for_selector("#say.bad")
        assert "whole address" in page.inner_text("#say")
        page.close()


def test_a_second_server_on_one_store_is_refused(tmp_path):
    ask_clips(tmp_path)
    with server(tmp_path, free_port()):
        done = subprocess.run(
            [sys.executable, "-m", "lineal", "label", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1 and "in use by process" in done.stderr and done.stderr.count("\n") == 1
