"""What docs/rewards.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lineal.environments.rewards import BUILTIN_REWARDS, parse_rewards
from lineal.environments.scoring import RESERVED, Samples, Scorer
from lineal.errors import RewardError

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
FIRST, SECOND = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(FIRST)
    return path


def test_the_example_file_works(file: Path) -> None:
    samples = Samples(["p"] * 3, ["so\n12", "13", "?"], [[1], [2, 3], [4]], {"answer": [12, "12", None]})
    with Scorer(parse_rewards([f"{file}:correct", f"{file}:short"], [1.0, 0.5])) as scorer:
        scored = scorer(samples)
    assert scored.parts["correct"] == (1.0, 0.0, None)
    assert scored.rewards == pytest.approx((1.25, 0.5 / 3, 0.25))


def test_the_python_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    exec(SECOND, {})
    assert capsys.readouterr().out == "(1.0,) (True,) {'exact': (1.0,), 'vowels': (0.0,)}\n"


def test_the_shown_error_is_the_real_one(tmp_path: Path) -> None:
    source = (
        "\n" * 7
        + "def correct(completions, **columns):\n    return [float(c.split()[0] == 'a') for c in completions]\n"
    )
    (tmp_path / "rewards.py").write_text(source)
    samples = Samples(["p"] * 256, ["a"] * 3 + [""] + ["a"] * 252, [[1]] * 256)
    with (
        pytest.raises(RewardError) as caught,
        Scorer(parse_rewards([f"{tmp_path}/rewards.py:correct"])) as scorer,
    ):
        scorer(samples)
    shown = " ".join(re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0].split())
    assert str(caught.value).replace(f"{tmp_path}/", "") == shown


def test_every_built_in_is_on_the_page() -> None:
    for name in BUILTIN_REWARDS:
        assert f"| `{name}` |" in PAGE


def test_the_arguments_on_the_page_exist() -> None:
    for name in ("prompts", "completions", "completion_ids", "finish", "trainer_state"):
        assert name in RESERVED and f"`{name}`" in PAGE
