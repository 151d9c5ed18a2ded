"""The verb `generate`: completions at once or as they are drawn, beam search, and what each filter does."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli_models import Loaded, Loading, load, read_words, visible
from lineal.errors import UsageError
from lineal.generate.sampling import FILTERS, Sampling

if TYPE_CHECKING:
    from lineal.generate.explain import Explanation


@dataclass(frozen=True)
class Asking:
    """What to complete."""

    prompt: tuple[str, ...] = ()
    """Prompts, each in quotes; without them, one is read from standard input."""
    samples: int = 1
    """Completions per prompt."""
    seed: tuple[int, ...] = (0,)
    """Seed of the sampling, one for all or one per prompt: the same seed gives the same completions in any batch."""
    beams: int = 0
    """Beam search of this width instead of sampling; --samples of the best are shown. 0 samples."""
    length_penalty: float = 1.0
    """Beam search: alpha in sum log p / length^alpha, the end token counted."""
    stream: bool = False
    """Print text as it is drawn."""
    json: bool = False
    """Print one JSON object per completion (with --stream: per token)."""


@dataclass(frozen=True)
class Explaining:
    """What the filters do to the next token's distribution."""

    explain: bool = False
    """Generate nothing; show the distribution of the next token before and after every filter, in their order."""
    generated: str = ""
    """Text taken to have been generated after the prompt already, for the penalties to count."""
    tokens: int = 12
    """Tokens shown."""
    out: str | None = None
    """Draw the picture into this file, .html or .svg."""


@dataclass(frozen=True)
class GenerateConfig:
    """Everything `lineal generate` can be told."""

    asking: Asking = field(default_factory=Asking)
    sampling: Sampling = field(default_factory=Sampling)
    explaining: Explaining = field(default_factory=Explaining)
    loading: Loading = field(default_factory=Loading)


def generate(words: list[str]) -> int:
    """`lineal generate MODEL --prompt TEXT ...`: sample completions and print them, control codes removed."""
    read = read_words(words, GenerateConfig(), "generate MODEL --prompt TEXT [--option value ...]")
    if read is None:
        return 0
    name, config = read
    asking = config.asking
    prompts = list(asking.prompt) or [_standard_input()]
    _check(config, len(prompts))
    model = load(name, config.loading)
    if config.explaining.explain:
        return explain(model, prompts[0], config)
    if asking.stream:
        return stream(model, prompts, config)
    for prompt, group in zip(prompts, complete(model, prompts, config.sampling, asking)):
        for found in group:
            if asking.json:
                print(json.dumps({"prompt": prompt, **found}))
            else:
                text = str(found["completion"])
                print(visible(prompt + text if model.template is None else text), flush=True)
    return 0


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise UsageError("nothing to complete: give --prompt TEXT, or a prompt on standard input.")
    return sys.stdin.read().removesuffix("\n")


def _check(config: GenerateConfig, prompts: int) -> None:
    """Refuse combinations that mean nothing, before a model is loaded."""
    asking, sampling = config.asking, config.sampling
    if asking.samples < 1:
        raise UsageError(f"--samples {asking.samples}: must be at least 1.")
    if len(asking.seed) not in (1, prompts):
        raise UsageError(
            f"--seed has {len(asking.seed)} numbers for {prompts} prompts: give one, or one each."
        )
    if asking.beams < 0:
        raise UsageError(f"--beams {asking.beams}: must be 0 (off) or a width.")
    if config.explaining.explain and prompts != 1:
        raise UsageError(f"--explain shows one distribution, and {prompts} prompts were given: give one.")
    if config.explaining.tokens < 1:
        raise UsageError(f"--tokens {config.explaining.tokens}: must be at least 1.")
    if config.explaining.out and not config.explaining.explain:
        raise UsageError("--out names the picture that --explain draws: give both.")
    if asking.stream and not asking.json and (prompts > 1 or asking.samples > 1):
        raise UsageError(
            f"--stream shows one completion as it grows, and {prompts} x {asking.samples} were asked for: ask for one, "
            "or add --json."
        )
    if asking.beams:
        on = [name for name in FILTERS if sampling.uses(name) and name != "no_repeat_ngram"]
        on += ["stop"] if sampling.stop else []
        if on or asking.stream or config.explaining.explain:
            what = on[0] if on else "stream" if asking.stream else "explain"
            raise UsageError(
                f"--beams searches the most probable completions, and --{what.replace('_', '-')} belongs to sampling: "
                "leave one of them out (--no-repeat-ngram goes with both)."
            )
        if asking.samples > asking.beams:
            raise UsageError(f"--beams {asking.beams} finds no {asking.samples} completions: widen it.")


def _encoded(model: Loaded, prompts: Sequence[str]) -> list[list[int]]:
    from lineal.environments.text import Example, encode_prompts

    examples = [Example(prompt) for prompt in prompts]
    if model.template is not None:
        texts = model.template.render([[{"role": "user", "content": prompt}] for prompt in prompts])
        examples = [Example(text, rendered=True) for text in texts]
        model.template.close()
    return encode_prompts(examples, model.tokenizer, model.decoder.config.context)


def _options(model: Loaded, asking: Asking) -> dict[str, Any]:
    seed = asking.seed[0] if len(asking.seed) == 1 else list(asking.seed)
    tokenizer = model.tokenizer
    return {"samples": asking.samples, "seed": seed, "eos_id": tokenizer.eos_id, "decode": tokenizer.decode}


def complete(
    model: Loaded, prompts: Sequence[str], sampling: Sampling, asking: Asking
) -> list[list[dict[str, Any]]]:
    """For each prompt its completions: text, tokens, how it ended, and the score where beams were searched."""
    from lineal.generate.beam import BeamSearch
    from lineal.generate.engine import generate as sample

    ids, settings, decode = _encoded(model, prompts), model.sampling(sampling), model.tokenizer.decode
    scores: Sequence[Sequence[float | None]]
    if asking.beams:
        search = BeamSearch(
            asking.beams, settings.max_new_tokens, asking.length_penalty,
            no_repeat_ngram=settings.no_repeat_ngram, stop_ids=settings.stop_ids,
        )  # fmt: skip
        found = [g[: asking.samples] for g in search(model.decoder, ids, model.tokenizer.eos_id)]
        groups, scores = [[h.completion for h in g] for g in found], [[h.score for h in g] for g in found]
    else:
        groups = sample(model.decoder, ids, settings, **_options(model, asking))
        scores = [[None] * len(group) for group in groups]
    return [
        [
            {"completion": decode(list(c.ids)), "tokens": len(c.ids), "finish": c.finish}
            | ({} if score is None else {"score": round(score, 6)})
            for c, score in zip(group, own)
        ]
        for group, own in zip(groups, scores)
    ]


def stream(model: Loaded, prompts: Sequence[str], config: GenerateConfig) -> int:
    """Print text as it is drawn; as JSON, a line per token that says which prompt's which sample it belongs to."""
    from lineal.generate.stream import stream as draw
    from lineal.tokenizers.base import TextStream

    asking = config.asking
    texts: dict[tuple[int, int], TextStream] = {}
    if not asking.json and model.template is None:
        print(visible(prompts[0]), end="", flush=True)
    settings = model.sampling(config.sampling)
    for drawn in draw(model.decoder, _encoded(model, prompts), settings, **_options(model, asking)):
        own = texts.setdefault((drawn.prompt, drawn.sample), model.tokenizer.stream())
        text = own.push(drawn.token) + (own.finish() if drawn.finish else "")
        if asking.json:
            line = {"prompt": drawn.prompt, "sample": drawn.sample, "text": text, "finish": drawn.finish}
            print(json.dumps(line), flush=True)
        else:
            print(visible(text), end="", flush=True)
    if not asking.json:
        print()
    return 0


def explain(model: Loaded, prompt: str, config: GenerateConfig) -> int:
    """Print the next token's distribution before and after every filter, and draw it where --out says."""
    from lineal.generate.explain import explain as follow

    (ids,), options = _encoded(model, [prompt]), config.explaining
    generated = model.tokenizer.encode(options.generated) if options.generated else []
    settings = replace(model.sampling(config.sampling), stop=())
    found = follow(model.decoder, ids, settings, generated=generated, seed=config.asking.seed[0])
    tokens = found.notable(options.tokens)
    names = [_name(model, token) for token in tokens]
    if options.out is not None:
        _draw(found, tokens, names, prompt + options.generated, Path(options.out))
    _print_table(found, tokens, names, f"seed {config.asking.seed[0]}" if settings.temperature else "greedy")
    return 0


def _name(model: Loaded, token: int) -> str:
    """A token as it is shown: its text, spaces visible."""
    text = model.tokenizer.decode([token], skip_special=False)
    return visible(text).replace(" ", "␣").replace("\n", "⏎") or f"#{token}"


def _print_table(found: Explanation, tokens: Sequence[int], names: Sequence[str], who: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("token", no_wrap=True)
    for stage in found.stages:
        shown.add_column(stage.name, justify="right", no_wrap=True)
    for token, name in zip(tokens, names):
        style = "bold" if token == found.token else ""
        cells = [
            _cell(stage.logit_V[token].item(), stage.probability_V[token].item()) for stage in found.stages
        ]
        shown.add_row(*(Text(text, style) for text in (name, *cells)))
    shown.add_row(Text("kept", "dim"), *(Text(f"{stage.kept:,}", "dim") for stage in found.stages))
    shown.add_row(Text("nats", "dim"), *(Text(f"{stage.entropy:.3f}", "dim") for stage in found.stages))
    console = Console(width=None if sys.stdout.isatty() else 20 + 16 * (1 + len(found.stages)))
    console.print(shown)
    for stage in found.stages:
        console.print(Text(f"{stage.name:<16} {stage.what}", "dim"))
    drawn = names[list(tokens).index(found.token)]
    console.print(Text(f"{who} draws {drawn}"))


def _cell(logit: float, probability: float) -> str:
    return "×" if logit == float("-inf") else f"{probability:.4f}"


def _draw(found: Explanation, tokens: Sequence[int], names: Sequence[str], prompt: str, path: Path) -> None:
    from lineal.train.files import replace_file
    from lineal.web.distribution import Column, Distribution, distribution_page, svg

    columns = []
    for stage in found.stages:
        values = [
            None if stage.logit_V[token].item() == float("-inf") else stage.probability_V[token].item()
            for token in tokens
        ]
        columns.append(Column(stage.name, stage.what, values, stage.kept, stage.entropy))
    drawn = Distribution(names, columns, list(tokens).index(found.token))
    if path.suffix not in (".html", ".svg"):
        raise UsageError(f"--out {path}: a picture ends in .html or .svg.")
    text = svg(drawn, alone=True) if path.suffix == ".svg" else distribution_page("Filters", prompt, drawn)
    try:
        replace_file(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(
            f"--out {path} cannot be written ({error.strerror}): choose another file."
        ) from error
    print(f"picture  {path}", file=sys.stderr)
