"""The first Ctrl-C asks, the second quits; exit codes are 130 and 143."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lineal.train.signals import StopSignals

ROOT = Path(__file__).parents[2]
STUBBORN = """
import time
from lineal.train.signals import StopSignals
with StopSignals() as signals:
    print("ready", flush=True)
    while not signals.received:
        time.sleep(0.01)
    print("asked", flush=True)
    SLOW
raise SystemExit(signals.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_sets_a_flag_and_an_exit_code(number, code, capfd):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None and signals.exit_code == 0
        os.kill(os.getpid(), number)
        assert signals.received == number and signals.exit_code == code
        assert signal.getsignal(number) == signal.SIG_DFL, "the next one is deadly"
    assert signal.getsignal(number) == before
    assert "press Ctrl-C again to quit at once" in capfd.readouterr().err


def start(slow: str) -> subprocess.Popen:
    code = STUBBORN.replace("SLOW", slow)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(second):
    # A long call into C: an ordinary Python handler would not run before it returns.
    process = start("import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)")
    with process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        process.send_signal(second)
        assert process.wait(timeout=60) == -second, "the shell shows this as 128 + the signal"


def test_one_signal_lets_the_process_finish_what_it_must():
    process = start("pass")
    with process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143


def test_outside_the_main_thread_nothing_is_touched():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopSignals() as signals:
            seen.append((signal.getsignal(signal.SIGINT), signals.received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]
