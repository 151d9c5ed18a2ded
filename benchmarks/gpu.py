"""Four figures of one CUDA device: a trained loss, a GRPO step, and how much of the device decoding and training use.

    LINEAL_TEST_DATA=... python benchmarks/gpu.py --json

1. nanoGPT's shakespeare-char setting, by the recipe `pretrain`. As in nanoGPT's own figure (1.4697), the loss is the
   best of the evaluations made every 250 steps, so the held-out text also chose the step; the last loss is in the
   details, and so are the seconds of the whole run, from reading the text to the final model.
2. One GRPO step on random weights in the layout of Qwen2-0.5B, in turn with a peer on the same weights: Hugging Face
   `generate`, one forward and backward pass of the log-probabilities in micro-batches, and AdamW, all in bfloat16.
   Ours asks the recipe for bfloat16. All prompts are equally long, so neither pads. The byte tokenizer leaves most
   ids without a text, so the reward reads ids.
3. Decoding the same model in bfloat16: bytes that a step has to read (all weights once, and the keys and values of all
   rows at their mean length) per second, as a share of what a large copy on the device reads and writes. Reading the
   prompts is in the time.
4. Pre-training a GPT-2 of 124M parameters on random tokens: model FLOPs utilisation after PaLM's appendix B,
   (6 N + 12 L D T) x tokens/s, as a share of what a large bfloat16 matrix product reaches. N leaves out the positions.

Without a CUDA device nothing is measured and the exit code is 2. --tiny runs everything in seconds on whatever device
there is, to show that it runs; its figures mean nothing and have no bars.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import harness
import torch
import torch.nn.functional as F

from lineal.environments.rewards import Reward
from lineal.environments.scoring import Scorer
from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder, DecoderConfig, gpt2_config, parameter_count, qwen2_config
from lineal.models.hf import load_model, save_model
from lineal.recipes import next_token, pretrain
from lineal.recipes.config import LanguageConfig, PolicyGradientConfig, to_json, with_options
from lineal.recipes.policy_gradient import open_loop, train_step, write_step
from lineal.tokenizers import ByteTokenizer
from lineal.train.guard import Guard
from lineal.train.metrics import read_lines
from lineal.train.run import Run

RATE = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Everything that is large on a GPU and small in a test.

    shakespeare: its options. qwen, gpt: the models drawn at random. prompts, samples, prompt_tokens, new_tokens: of a
    GRPO step. peer_rows: sequences that the peer trains on at once. batch: sequences of a step of pre-training. rounds:
    timed turns. steps: steps of pre-training in each. copied: bytes of the copy. side: of the matrices.
    """

    shakespeare: LanguageConfig
    qwen: DecoderConfig
    prompts: int
    samples: int
    prompt_tokens: int
    new_tokens: int
    peer_rows: int
    gpt: DecoderConfig
    batch: int
    rounds: int
    steps: int
    copied: int
    side: int


FULL = Sizes(
    shakespeare=with_options(
        pretrain.default(), layout="gpt2", layers=6, heads=6, width=384, block=256, batch_size=64, dropout=0.2,
        steps=5000, learning_rate=1e-3, warmup=100, schedule="cosine", eval_every=250,
    ),
    qwen=qwen2_config(151_936, 896, 24, 14, 4864, 2048, kv_heads=2, rope_theta=1e6),
    prompts=16, samples=8, prompt_tokens=64, new_tokens=256, peer_rows=32,
    gpt=gpt2_config(50_304, 768, 12, 12, 3072, 1024), batch=16, rounds=5, steps=10, copied=1 << 30, side=8192,
)  # fmt: skip
TINY = Sizes(
    shakespeare=with_options(
        FULL.shakespeare, layers=1, heads=2, width=16, block=16, batch_size=4, steps=10, warmup=2, eval_every=4
    ),
    qwen=qwen2_config(300, 32, 2, 2, 64, 64, kv_heads=1, rope_theta=1e6),
    prompts=2, samples=4, prompt_tokens=6, new_tokens=8, peer_rows=3,
    gpt=gpt2_config(300, 16, 1, 2, 64, 16), batch=2, rounds=2, steps=2, copied=1 << 20, side=64,
)  # fmt: skip


def waiting(function: Callable[[], Any], device: str, calls: int = 1) -> Callable[[], None]:
    """The function called several times, and then waited for until the device is done."""

    def whole() -> None:
        for _ in range(calls):
            function()
        if device == "cuda":
            torch.cuda.synchronize()

    return whole


def fastest(function: Callable[[], Any], device: str, calls: int = 20) -> float:
    """Least seconds of one call."""
    return min(harness.interleaved({"call": waiting(function, device, calls)}, 5)["call"]) / calls


def copy_bandwidth(sizes: Sizes, device: str) -> float:
    """Bytes per second that a copy on the device reads and writes."""
    source = torch.zeros(sizes.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * sizes.copied / fastest(lambda: target.copy_(source), device)


def matmul_flops(sizes: Sizes, device: str) -> float:
    """Operations per second of a square bfloat16 matrix product."""
    # Random, because a product of zeros draws less power and runs at a higher clock.
    a, b = torch.randn(2, sizes.side, sizes.side, device=device).bfloat16()
    out = torch.empty_like(a)
    return 2 * sizes.side**3 / fastest(lambda: torch.mm(a, b, out=out), device)


def saved(config: DecoderConfig, folder: Path) -> str:
    """A folder with random weights in bfloat16 and the byte tokenizer, whose ids are the vocabulary's first."""
    if not folder.exists():
        tokenizer = ByteTokenizer()
        decoder = Decoder(config).initialise(0).to(torch.bfloat16)
        save_model(decoder, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
        tokenizer.save(folder)
    return str(folder)


def texts(count: int, tokens: int) -> list[str]:
    """Different prompts of the same number of bytes."""
    draw = random.Random(0)
    return ["".join(draw.choices(string.ascii_lowercase, k=tokens)) for _ in range(count)]


def shakespeare(sizes: Sizes, device: str, folder: Path) -> harness.Figure:
    """The best held-out loss of nanoGPT's shakespeare-char setting."""
    data = harness.shakespeare()
    if sizes is TINY:
        data = folder / "input.txt"
        data.write_text("To be, or not to be, that is the question:\n" * 50)
    options = with_options(
        sizes.shakespeare, data=str(data), dtype="bfloat16", device=device, quiet=True, save_every=1000, seed=1,
    )  # fmt: skip
    begun = time.perf_counter()
    with Run.create(folder / "shakespeare", {"recipe": "pretrain", "options": to_json(options)}) as run:
        next_token.run(options, run)
    seconds = time.perf_counter() - begun
    lines = read_lines(folder / "shakespeare" / "metrics.jsonl")
    losses = {line["step"]: line["eval/loss"] for line in lines if "eval/loss" in line}
    best = min(losses, key=lambda step: losses[step])
    return harness.Figure(
        "gpu/shakespeare loss", losses[best], None, "nats a character", "<= 1.47 in < 180 s",
        losses[best] <= 1.47 and seconds < 180, seeds=(1,),
        details={"seconds": round(seconds, 1), "best_step": best, "last_loss": round(losses[max(losses)], 4)},
    )  # fmt: skip


def even_ids(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """The share of even ids, so that nearly every completion differs from its group's mean."""
    return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]


class Peer:
    """The same step with transformers: every completion of full length, its end token forbidden until then."""

    def __init__(self, sizes: Sizes, device: str, folder: str) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.sizes = sizes
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = loaded.to(device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), RATE, weight_decay=0.0, fused=True)
        prompts = [ByteTokenizer().encode(text) for text in texts(sizes.prompts, sizes.prompt_tokens)]
        self.prompt_BT = torch.tensor(prompts, device=device).repeat_interleave(sizes.samples, 0)
        self.tokens = len(self.prompt_BT) * sizes.new_tokens

    def step(self) -> None:
        """Sample, weigh, and learn once."""
        sizes, count = self.sizes, self.sizes.new_tokens
        whole_BT = self.model.generate(
            self.prompt_BT, attention_mask=torch.ones_like(self.prompt_BT), do_sample=True, top_k=0,
            min_new_tokens=count, max_new_tokens=count, pad_token_id=ByteTokenizer.pad_id,
        )  # fmt: skip
        action_BT = whole_BT[:, -count:]
        reward_PG = (action_BT % 2 == 0).float().mean(1).view(sizes.prompts, sizes.samples)
        centred_PG = reward_PG - reward_PG.mean(1, keepdim=True)
        advantage_B1 = (centred_PG / (reward_PG.std(1, keepdim=True) + 1e-4)).view(-1, 1)
        for row_N in torch.arange(len(whole_BT), device=whole_BT.device).split(sizes.peer_rows):
            # One more than the completion: its first token is predicted by the prompt's last.
            logits_NTV = self.model(whole_BT[row_N], use_cache=False, logits_to_keep=count + 1).logits[:, :-1]
            action_N = action_BT[row_N].flatten()
            logp_N = -F.cross_entropy(logits_NTV.float().flatten(0, 1), action_N, reduction="none")
            (-(advantage_B1[row_N] * logp_N.view(-1, count)).sum() / self.tokens).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def grpo_step(sizes: Sizes, device: str, folder: Path) -> harness.Figure:
    """Completion tokens per second of whole steps, ours and the peer's in turn."""
    model, data = saved(sizes.qwen, folder / "qwen"), folder / "prompts.jsonl"
    prompts = texts(8 * sizes.prompts, sizes.prompt_tokens)
    data.write_text("".join(json.dumps({"prompt": text, "answer": ""}) + "\n" for text in prompts))
    options = with_options(
        PolicyGradientConfig(), model=model, data=str(data), algorithm="grpo", prompts=sizes.prompts,
        group_size=sizes.samples, max_new_tokens=sizes.new_tokens, learning_rate=RATE, dtype="bfloat16", device=device,
        held_out=0.05, seed=1,
    )  # fmt: skip
    with Run.create(folder / "grpo", {"recipe": "grpo", "options": to_json(options)}) as run:
        loop, peer, tokens = open_loop(options, run), Peer(sizes, device, model), []
        scorer = Scorer([Reward("even_ids", "even_ids", function=even_ids)])
        loop.parts.source = replace(loop.parts.source, scorer=scorer)

        def ours() -> None:
            step = len(tokens) + 1
            metrics, experience = train_step(loop, step)
            write_step(run, step, metrics, experience)
            tokens.append(metrics["tokens"])

        turns = {"ours": waiting(ours, device), "peer": waiting(peer.step, device)}
        seconds = harness.interleaved(turns, sizes.rounds)
    rate = harness.median(count / spent for count, spent in zip(tokens[1:], seconds["ours"], strict=True))
    peer_rate = peer.tokens / harness.median(seconds["peer"])
    return harness.Figure(
        "gpu/grpo step", rate, peer_rate, "completion tokens/s", ">= 5x transformers generate and one update",
        rate >= 5 * peer_rate, seeds=(1,),
        details={
            "seconds": {name: round(harness.median(spent), 3) for name, spent in seconds.items()},
            "mean_length": round(harness.median(tokens) / len(peer.prompt_BT), 2),
        },
    )  # fmt: skip


def decoding(sizes: Sizes, device: str, folder: Path) -> harness.Figure:
    """The share of the device's bandwidth that the unavoidable reads of decoding use."""
    decoder, config = load_model(saved(sizes.qwen, folder / "qwen"), torch.bfloat16, device)
    tokenizer, settings = ByteTokenizer(), Sampling(max_new_tokens=sizes.new_tokens)
    prompts = [tokenizer.encode(text) for text in texts(sizes.prompts, sizes.prompt_tokens)]
    rows, tokens = sizes.prompts * sizes.samples, []

    def ours() -> None:
        groups = generate(decoder, prompts, settings, samples=sizes.samples, eos_id=tokenizer.eos_id)
        tokens.append(sum(len(completion.ids) for group in groups for completion in group))

    seconds = harness.interleaved({"ours": waiting(ours, device)}, sizes.rounds)["ours"]
    rate = harness.median(count / spent for count, spent in zip(tokens[1:], seconds, strict=True))
    weights = sum(p.numel() * p.element_size() for p in decoder.parameters())
    held = rows * (sizes.prompt_tokens + sizes.new_tokens / 2)
    cache = held * 2 * config.layers * config.kv_heads * config.head_width * torch.bfloat16.itemsize
    reached, peak = rate / rows * (weights + cache), copy_bandwidth(sizes, device)
    return harness.Figure(
        "gpu/decode bandwidth", reached / peak, None, "of a copy's bandwidth", ">= 0.40", reached >= 0.4 * peak,
        details={
            "batch": rows, "tokens_per_second": round(rate), "bytes_per_step": round(weights + cache),
            "peak": f"{peak / 1e9:.4g} GB/s, a copy on the device of {sizes.copied / 1e9:.3g} GB, read and written",
        },
    )  # fmt: skip


def pretraining(sizes: Sizes, device: str, folder: Path) -> harness.Figure:
    """Model FLOPs utilisation of the pretrain recipe's own steps."""
    config, text = sizes.gpt, folder / "unused.txt"
    text.write_text("The recipe reads a text, and random tokens take its place.\n")
    options = with_options(
        pretrain.default(), model=saved(config, folder / "gpt"), data=str(text), block=config.context,
        batch_size=sizes.batch, token_budget=sizes.batch * config.context, dtype="bfloat16", device=device, quiet=True,
    )  # fmt: skip
    with Run.create(folder / "pretraining", {"recipe": "pretrain", "options": to_json(options)}) as run:
        parts, guard, done = next_token.build(options, run), Guard(run.refused), 0
        train_N, held_N = torch.randint(config.vocab_size, (2, 64 * config.context)).unbind()
        parts.data = next_token.Text(train_N, held_N)

        def ours() -> None:
            nonlocal done
            done += 1
            run.log(done, next_token.train_step(options, parts, done, guard))

        turn = waiting(ours, device, sizes.steps)
        seconds = harness.median(harness.interleaved({"ours": turn}, sizes.rounds)["ours"]) / sizes.steps
    rate = sizes.batch * config.context / seconds
    counted = parameter_count(config) - config.context * config.width
    flops = 6 * counted + 12 * config.layers * config.width * config.context
    peak = matmul_flops(sizes, device)
    return harness.Figure(
        "gpu/pretraining mfu", flops * rate / peak, None, "of a matrix product's FLOP/s", ">= 0.40",
        flops * rate >= 0.4 * peak,
        details={
            "tokens_per_second": round(rate), "flops_per_token": flops,
            "peak": f"{peak / 1e12:.4g} TFLOP/s, a bfloat16 product of two {sizes.side} x {sizes.side} matrices",
        },
    )  # fmt: skip


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Each figure in turn."""
    there = torch.cuda.is_available()
    if not (there or arguments.tiny):
        print("no CUDA device here: nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    sizes, device = TINY if arguments.tiny else FULL, "cuda" if there else "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        for figure in (shakespeare, grpo_step, decoding, pretraining):
            found = figure(sizes, device, Path(temporary))
            yield replace(found, bar="", ok=True) if arguments.tiny else found


if __name__ == "__main__":
    options = lambda parser: parser.add_argument("--tiny", action="store_true", help="toy sizes, no bars")  # noqa: E731
    raise SystemExit(harness.main("gpu", measure, options))
