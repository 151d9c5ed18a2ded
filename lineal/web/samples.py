"""What the model wrote, before and after, with its failures: read from samples.jsonl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lineal.web.page import escape, show
from lineal.web.read import Record, RunView

LONGEST = 4000
"""Characters of one text that are shown."""
ROWS = 8
"""Completions shown of each moment."""


@dataclass(frozen=True)
class Sample:
    """One completion of one prompt, with its reward and, where known, the right answer."""

    step: int
    prompt: str
    completion: str
    reward: float
    answer: str | None

    @property
    def right(self) -> bool:
        """Full reward, as 0/1 rewards count it."""
        return self.reward >= 1.0


def samples_of(records: Sequence[Record]) -> list[Sample]:
    """The completions of some records; each record is a prompt with several of them."""
    found = []
    for record in records:
        texts, rewards = record.get("completions"), record.get("rewards")
        if not isinstance(texts, list) or not isinstance(rewards, list):
            continue
        answer = record.get("answer")
        for text, reward in zip(texts, rewards):
            value = float(reward) if isinstance(reward, int | float) else math.nan
            prompt = str(record.get("prompt", ""))
            said = None if answer is None else str(answer)
            found.append(Sample(int(record["step"]), prompt, str(text), value, said))
    return found


def moments(run: RunView) -> tuple[list[Sample], list[Sample]]:
    """Completions of the first and of the last step that has any; held-out prompts where they were kept."""
    records = [r for r in run.samples if r.get("kind") == "eval"] or run.samples
    found = samples_of(records)
    if not found:
        return [], []
    first, last = min(s.step for s in found), max(s.step for s in found)
    before = [s for s in found if s.step == first]
    return before, [s for s in found if s.step == last] if last > first else []


def samples_section(run: RunView) -> str:
    """Before and after beside each other, and what is still wrong at the end."""
    before, after = moments(run)
    if not before:
        return ""
    same = {s.prompt for s in before} & {s.prompt for s in after}
    parts = ["<h2>What it writes</h2>"]
    if not after:
        return parts[0] + _table(spread(before))
    if same:
        # The same prompts on both sides say more than a choice of each.
        before = [s for s in before if s.prompt in same]
        after = sorted((s for s in after if s.prompt in same), key=lambda s: _place(before, s))
    parts.append(f"<h3>At step {before[0].step}</h3>{_table(spread(before))}")
    parts.append(f"<h3>At step {after[0].step}</h3>{_table(spread(after))}")
    wrong = [s for s in after if not s.right]
    shown = f"{len(wrong)} of the {len(after)} kept completions"
    if wrong:
        parts.append(f'<p class="soft">Still without full reward at the end: {shown}.</p>')
    return "".join(parts)


def _place(order: Sequence[Sample], sample: Sample) -> int:
    return next(i for i, other in enumerate(order) if other.prompt == sample.prompt)


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """A few of them, right and wrong ones alike where there are both, one per prompt first."""
    distinct = list({(s.prompt, s.right): s for s in reversed(samples)}.values())[::-1]
    wrong = [s for s in distinct if not s.right]
    right = [s for s in distinct if s.right]
    half = ROWS // 2
    take = min(len(wrong), max(half, ROWS - len(right)))
    chosen = wrong[:take] + right[: ROWS - take]
    return sorted(chosen, key=samples.index)


def _table(samples: Sequence[Sample]) -> str:
    answers = any(s.answer for s in samples)
    head = ["prompt", "completion", *(["answer"] if answers else []), "reward"]
    rows = []
    for sample in samples:
        cells = [_text(sample.prompt), _text(sample.completion)]
        if answers:
            cells.append(_text(sample.answer or ""))
        tone, word = ("good", "right") if sample.right else ("bad", "wrong")
        if not math.isfinite(sample.reward):
            tone, word = "warn", "none"
        exact = sample.reward in (0.0, 1.0)
        label = word if exact or not math.isfinite(sample.reward) else show(sample.reward)
        cells.append(f'<span class="mark {tone}">{escape(label)}</span>')
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    return (
        f'<div class="wide"><table class="samples"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _text(text: str) -> str:
    if len(text) > LONGEST:
        text = text[:LONGEST] + f"… ({len(text):,} characters)"
    if not text:
        return '<span class="soft">(empty)</span>'
    shown = escape(text)
    return f'<span class="longer">{shown}</span>' if len(text) > 400 else shown
