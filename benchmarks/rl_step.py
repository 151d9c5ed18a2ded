"""One GRPO step, beside TRL's GRPOTrainer on the same random Llama: completion tokens per second.

    python benchmarks/rl_step.py --json

Two worker processes hold one trainer each; the parent lets them step in turn (never both at once) and times each
step from outside, with its sampling, reward, update and log. Tokens are those of completions, without padding.
Same model, prompts, reward, AdamW, one epoch, no KL, gradient clip and logging; medians over interleaved steps. Void
when the mean completion lengths differ by more than 5 %.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import harness

PROMPTS, SAMPLES, LONGEST, RATE = 8, 8, 64, 1e-5
ALPHABET = "0123456789+-=*/"


def questions() -> list[str]:
    """Enough prompts of six characters that no epoch ends during the measurement."""
    return [f"{a:02d}{sign}{b:02d}=" for sign in "+-" for a in range(10, 60) for b in range(10, 30)]


def even_digits(completions: list[str], **_: Any) -> list[float | None]:
    """The reward of both: the share of even digits, so that nearly every group has a spread."""
    return [sum(c in "02468" for c in text) / max(1, len(text)) for text in completions]


def make_model(folder: Path) -> None:
    """A random Llama of 4 layers and width 256 with an 18-token character vocabulary."""
    from lineal.models.decoder import Decoder, llama_config
    from lineal.models.hf import save_model
    from lineal.tokenizers import CharTokenizer

    tokenizer = CharTokenizer.train(ALPHABET)
    config = llama_config(18, width=256, layers=4, heads=4, inner=1024, context=128)
    assert tokenizer.vocab_size <= 18, tokenizer.vocab_size
    save_model(
        Decoder(config).initialise(0),
        folder,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
    )
    tokenizer.save(folder)


def ours(folder: Path, dtype: str) -> None:
    """Worker: lineal's own loop, one step per line read."""
    from dataclasses import replace

    from lineal.environments.rewards import Reward
    from lineal.environments.scoring import Scorer
    from lineal.recipes.config import PolicyGradientConfig, to_json, with_options
    from lineal.recipes.policy_gradient import open_loop, train_step, write_step
    from lineal.train.run import Run

    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": q, "answer": ""}) + "\n" for q in questions()))
    config = with_options(
        PolicyGradientConfig(), model=str(folder), data=str(data), algorithm="grpo", prompts=PROMPTS, group_size=SAMPLES,
        max_new_tokens=LONGEST, learning_rate=RATE, dtype=dtype, held_out=0.01,
        threads=2, seed=1,
    )  # fmt: skip
    with Run.create(folder / f"ours-{dtype}", {"recipe": "grpo", "options": to_json(config)}) as run:
        loop = open_loop(config, run)
        scorer = Scorer([Reward("even_digits", "even_digits", function=even_digits)])
        loop.parts.source = replace(loop.parts.source, scorer=scorer)
        for step, _ in enumerate(sys.stdin, 1):
            metrics, experience = train_step(loop, step)
            write_step(run, step, metrics, experience)
            tell({"tokens": metrics["tokens"], "length": metrics["completions/mean_length"]})


def theirs(folder: Path, dtype: str) -> None:
    """Worker: TRL's trainer; a callback waits for a line before each step and answers after it."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

    torch.set_num_threads(2)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    settings = GRPOConfig(
        output_dir=str(folder / f"trl-{dtype}"), per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
        max_completion_length=LONGEST, learning_rate=RATE, lr_scheduler_type="constant", beta=0.0, loss_type="grpo",
        temperature=1.0, top_k=0, top_p=1.0, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, seed=1,
        gradient_checkpointing=False, bf16=dtype == "bfloat16", fp16=False, optim="adamw_torch_fused", max_steps=10_000,
        disable_tqdm=True, max_grad_norm=1.0, weight_decay=0.0,
    )  # fmt: skip

    class Turn(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                sys.stdin.readline()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "completions/mean_length" not in (logs or {}):
                return
            length = float(logs["completions/mean_length"])
            tell({"tokens": length * PROMPTS * SAMPLES, "length": length})
            if not sys.stdin.readline():
                control.should_training_stop = True

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    trainer = GRPOTrainer(
        model=model, reward_funcs=even_digits, args=settings, processing_class=tokenizer, callbacks=[Turn()],
        train_dataset=Dataset.from_list([{"prompt": q} for q in questions()]),
    )  # fmt: skip
    trainer.train()


def tell(message: dict[str, Any]) -> None:
    """One line to the parent; everything else a trainer prints goes to standard error."""
    os.write(int(os.environ["REPLY"]), (json.dumps(message) + "\n").encode())


class Worker:
    """A trainer in a process of its own, stepped by the parent."""

    def __init__(self, side: str, folder: Path, dtype: str) -> None:
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", side, str(folder), dtype], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(writing,),
            env={**os.environ, "REPLY": str(writing), "OMP_NUM_THREADS": "2", "TRL_EXPERIMENTAL_SILENCE": "1"},
        )  # fmt: skip
        os.close(writing)
        self.replies = os.fdopen(reading)

    def step(self) -> dict[str, float]:
        """Let it take one step; seconds, tokens and mean length."""
        begun = time.perf_counter()
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        line = self.replies.readline()
        if not line:
            raise RuntimeError(f"a worker ended with exit code {self.process.wait()}")
        return {**json.loads(line), "seconds": time.perf_counter() - begun}

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


Found = dict[str, list[dict[str, float]]]
"""(side and dtype) -> each step's seconds, tokens and mean length."""


def figures(steps: int) -> Iterator[harness.Figure]:
    """Both in float32; and each at its best, which is the faster of its two dtypes. All four step in turn."""
    sides = {
        f"{side} {kind}": (side, kind) for kind in ("float32", "bfloat16") for side in ("ours", "theirs")
    }
    found: Found = {key: [] for key in sides}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(folder)
        workers = {key: Worker(side, folder, kind) for key, (side, kind) in sides.items()}
        try:
            for turn in range(steps + 2):
                for key, worker in workers.items():
                    result = worker.step()
                    if turn >= 2:
                        found[key].append(result)
        finally:
            for worker in workers.values():
                worker.close()
    yield compare("float32", 2.5, {key: steps for key, steps in found.items() if key.endswith("float32")})
    yield compare("best", 4.0, found)


def compare(name: str, bar: float, found: Found) -> harness.Figure:
    """Median completion tokens per second of both sides, each at the fastest of what is given."""
    speed = {
        key: statistics.median(s["tokens"] / s["seconds"] for s in steps) for key, steps in found.items()
    }
    length = {key: statistics.fmean(s["length"] for s in steps) for key, steps in found.items()}
    own, peer = (
        max((key for key in speed if key.startswith(side)), key=lambda key: speed[key])
        for side in ("ours", "theirs")
    )
    apart = abs(length[own] / length[peer] - 1)
    details = {
        "mean_length": {key: round(value, 2) for key, value in length.items()},
        "seconds": {key: round(statistics.median(s["seconds"] for s in v), 4) for key, v in found.items()},
        "compared": [own, peer],
        "void": apart > 0.05,
    }
    return harness.Figure(
        f"rl_step/{name}", speed[own], speed[peer], "completion tokens/s", f">= {bar}x TRL",
        speed[own] >= bar * speed[peer] and apart <= 0.05, seeds=(1,), details=details,
    )  # fmt: skip


def main() -> int:
    """The command line, and the workers' entry."""
    if "--worker" in sys.argv:
        side, folder, dtype = sys.argv[2:5]
        (ours if side == "ours" else theirs)(Path(folder), dtype)
        return 0
    return harness.main(
        "rl_step",
        lambda arguments: figures(arguments.steps),
        lambda parser: parser.add_argument("--steps", type=int, default=15, help="interleaved steps of each"),
    )


if __name__ == "__main__":
    raise SystemExit(main())
