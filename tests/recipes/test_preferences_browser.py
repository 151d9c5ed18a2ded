"""The whole of it: an agent is taught by what somebody sees on the page and answers with keys and clicks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lineal.train.metrics import read_lines
from lineal.train.preferences.labels import Answers

playwright = pytest.importorskip("playwright.sync_api")
for name in ("starlette", "uvicorn", "PIL"):
    pytest.importorskip(name)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

HEIGHT = """
() => strips.map(s => {
  // How high the red of the pole stands, on average over the frames: all that this person looks at.
  const c = new OffscreenCanvas(s.picture.width, s.picture.height).getContext("2d");
  c.drawImage(s.picture, 0, 0);
  const d = c.getImageData(0, 0, s.picture.width, s.picture.height).data;
  let sum = 0, n = 0;
  for (let y = 0; y < s.picture.height; y += 2) for (let x = 0; x < s.picture.width; x += 2) {
    const i = 4 * (y * s.picture.width + x);
    if (d[i] > 150 && d[i + 1] < 150) { sum += s.height / 2 - (y % s.height); n++; }
  }
  return n ? sum / n : 0;
})
"""


def serve(folder: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "lineal", "label", str(folder), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[1]


def test_a_person_in_a_browser_teaches_pendulum_from_zero(tmp_path):
    """150 comparisons of clips, the server killed half way; random play is about -1200, the true reward gives -175."""
    folder, labels, port = tmp_path / "run", 150, 18765
    words = [
        sys.executable,
        "-m",
        "lineal",
        "run",
        "preferences",
        "--labeller",
        "web",
        "--labels",
        str(labels),
    ]
    words += [
        "--algorithm",
        "ppo",
        "--env-steps",
        "100000",
        "--out",
        str(folder),
        "--quiet",
        "--instruction",
        "Which pole is up?",
    ]
    trainer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (folder / "preferences" / "pairs.jsonl").exists():
        assert trainer.poll() is None, trainer.communicate()[1]
        time.sleep(0.1)
    server, address = serve(folder, port)
    answered, killed = 0, False
    try:
        with playwright.sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.goto(address)
            last = ""
            while trainer.poll() is None:
                pair = page.evaluate("document.body.dataset.pair || ''")
                if not pair or (pair, answered) == last or page.evaluate("busy"):
                    time.sleep(0.02)
                    continue
                left, right = page.evaluate(HEIGHT)
                if abs(left - right) < 2:
                    page.keyboard.press("ArrowUp")
                elif answered % 2:
                    page.keyboard.press("ArrowLeft" if left > right else "ArrowRight")
                else:
                    page.click("#left" if left > right else "#right")
                answered, last = answered + 1, (pair, answered + 1)
                page.wait_for_function("() => !busy")
                if answered == labels // 2 and not killed:
                    killed = True
                    os.kill(server.pid, signal.SIGKILL)
                    server.wait()
                    before = len(Answers(folder / "preferences").history)
                    assert before == answered, (
                        "each answer was on the disk before the next question was shown"
                    )
                    server, again = serve(folder, port)
                    assert again == address
            browser.close()
    finally:
        server.kill()
        trainer.kill()
        trainer.communicate()
    final = list(read_lines(folder / "metrics.jsonl"))[-1]
    answers = Answers(folder / "preferences")
    print(f"{len(answers.labels)} labels, agreement {answers.agreement()}, return {final['eval/return']:.4g}")
    assert killed and len(answers.labels) <= labels
    assert final["eval/return"] > -600
