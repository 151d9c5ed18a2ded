"""ELMo in small: what the layers of a bidirectional language model give a tagger, on paired seeds, as resumable cells.

    LINEAL_TEST_DATA=... python benchmarks/elmo.py --json        (--quick: minutes, a small model, two seeds, no bar)

One model is trained for at most 30 minutes on two cores (preset cpu-30min) on 26 novels and a part of Wikipedia. Then taggers
of parts of speech (UD English EWT) and of names (wikigold, F1 of spans), for each seed three that differ in one thing: a word
is given nothing beside a vector of its own; a fixed vector, what the same model makes of its characters without the sentence
(--vectors FILE: vectors of one's own instead); or the mixture of all layers. A probe compares words like "bank" in sentences
of two senses, layer by layer, and the learned mixtures of both tasks are printed; --save also draws them as docs/elmo_mix.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import harness
from harness import final, gain, text, write_once

FEATURES = ("none", "static", "elmo")
LAYERS = ("characters", "first LSTM", "second LSTM")
SENSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bank": (
        (
            "He put his money in the bank and asked for a receipt .",
            "The bank would not lend her the money .",
            "A clerk of the bank counted the notes and the gold .",
            "My father owed the bank a thousand pounds .",
            "She had an account at the bank in the city .",
            "The bank had lent him money upon his house .",
        ),
        (
            "They sat on the bank of the river under a willow .",
            "The boat came to the other bank of the stream .",
            "Flowers grew along the green bank by the water .",
            "She climbed the steep bank and looked down at the river .",
            "He lay on the grassy bank and listened to the brook .",
            "We walked along the bank of the lake until it was dark .",
        ),
    ),
    "spring": (
        (
            "In the spring the birds come back to the garden .",
            "It was a warm day in early spring .",
            "All that winter and the next spring she was ill .",
            "The fields are green in spring and brown in autumn .",
            "He will come home in the spring of next year .",
            "The spring was late , and the trees were bare in April .",
        ),
        (
            "They drank the cold water of the spring among the rocks .",
            "A clear spring ran out of the hill .",
            "The horses were led to the spring to drink .",
            "There was a spring of water near the house .",
            "She filled her jug at the spring under the oak .",
            "He washed his face in the spring and drank of it .",
        ),
    ),
    "match": (
        (
            "He struck a match and lit the candle .",
            "The match went out and they were in the dark .",
            "She held a burning match to the paper .",
            "He lit his pipe with a match .",
            "There was one match left in the box .",
            "The flame of the match burnt his fingers .",
        ),
        (
            "The match was won by the better team .",
            "They played a match of cricket against the village .",
            "He lost the match in the last game .",
            "The crowd watched the match until the end .",
            "It was the first match of the season .",
            "He scored twice in the match against the champions .",
        ),
    ),
    "light": (
        (
            "The light of the lamp fell upon the table .",
            "There was no light in the window .",
            "She saw a light at the end of the road .",
            "The morning light came into the room .",
            "He put out the light and went to bed .",
            "They walked by the light of the moon .",
        ),
        (
            "The box was light and easy to carry .",
            "She wore a light dress of summer cloth .",
            "He came in with a light step and a smile .",
            "The child was so light that he lifted her with one hand .",
            "A light rain fell upon the garden .",
            "We had a light supper and went to bed .",
        ),
    ),
    "kind": (
        (
            "It was a kind of bird that he had never seen .",
            "She did not like that kind of talk .",
            "What kind of man is your master ?",
            "There was a kind of sadness in his voice .",
            "He had no books of that kind in the house .",
            "They sold every kind of cloth and ribbon .",
        ),
        (
            "She was very kind to the poor children .",
            "You are too kind , said the old lady .",
            "He had a kind heart and an open hand .",
            "It was kind of you to come so soon .",
            "Her aunt was always kind and gentle with her .",
            "He gave her a kind look and shook her hand .",
        ),
    ),
    "left": (
        (
            "He held the reins in his left hand .",
            "She wore the ring on her left hand .",
            "The door on the left side was open .",
            "His left arm was broken in the fall .",
            "The road on the left goes to the village .",
            "He was blind of the left eye .",
        ),
        (
            "He left the house early in the morning .",
            "She left her gloves upon the table .",
            "They left the town and went to the sea .",
            "My uncle left me all his money .",
            "When he had left the room she began to cry .",
            "The ship left the harbour at noon .",
        ),
    ),
}
"""A word, and sentences of each of two senses."""


def plain(wiki: str) -> str:
    """The Wikipedia text as others are written: no <unk>, and its @-@ between the parts of a word taken out."""
    return re.sub(r" @(.)@ ", r"\1", wiki).replace(" <unk>", "")


def pretrained(folder: Path, quick: bool) -> tuple[Path, float]:
    """The run of the language model, and the minutes that it trained."""
    parts = [text(f"novels_en/train-0{i}.txt.gz") for i in range(2)]
    # The shorter text between the novels: what is cut off where time runs out is the end of an epoch.
    whole = "\n\n".join([parts[0], plain(text("wikitext2/valid.txt.gz")), parts[1]])
    held = plain(text("wikitext2/test.txt.gz"))
    options = {
        "--data": str(write_once(folder / "data" / "corpus.txt", whole[:80_000] if quick else whole)),
        "--eval-data": str(
            write_once(folder / "data" / "held.txt", held[:20_000] if quick else held[:300_000])
        ),
        "--preset": "seconds" if quick else "cpu-30min",
        "--threads": "1" if quick else "2",
    }
    run = harness.Cell(folder / "bilm", "elmo", options).run()
    lines = (json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines())
    return run, math.fsum(line["step_time"] for line in lines) / 60


def tasks(folder: Path, quick: bool) -> dict[str, tuple[dict[str, str], tuple[str, ...], str]]:
    """Name -> options of its taggers, switches, and the figure that is judged."""

    def cut(name: str, source: str, sentences: int) -> str:
        kept = text(source).split("\n\n")[: sentences if quick else None]
        return str(write_once(folder / "data" / name, "\n\n".join(kept) + "\n\n"))

    train = cut("train.conllu", "ud_english_ewt/en_ewt-ud-train-slice.conllu.gz", 150)
    test = cut("test.conllu", "ud_english_ewt/en_ewt-ud-test.conllu.gz", 40)
    names = cut("wikigold.txt", "wikigold/wikigold.conll.txt.gz", 200)
    pos = {"--data": train, "--eval-data": test, "--word-column": "1", "--tag-column": "3"}
    return {
        "parts of speech (EWT)": (pos, (), "eval/accuracy"),
        "names (wikigold)": ({"--data": names}, ("--spans",), "eval/span_f1"),
    }


@dataclass(frozen=True)
class Sense:
    """What a layer makes of a word in sentences of two senses: mean cosine between sentences of one and of both, and how many
    sentences are nearer, in the mean, to the others of their own sense (without their sentence: half)."""

    within: float
    across: float
    told: float

    def __str__(self) -> str:
        return f"{self.within:.3f} / {self.across:.3f}, {self.told:.0%}"


def senses(run: Path) -> dict[str, list[Sense]]:
    """What each layer makes of each word."""
    import torch
    import torch.nn.functional as F

    from lineal.models.hf.elmo import load_elmo
    from lineal.train.tagging.features import layers_of_sentences

    model, found = load_elmo(run / "final"), {}
    for word, groups in SENSES.items():
        rows = [tuple(sentence.split()) for group in groups for sentence in group]
        place_N = torch.tensor([row.index(word) for row in rows])
        sense_N = torch.tensor([s for s, group in enumerate(groups) for _ in group])
        same_NN = (sense_N[:, None] == sense_N) & ~torch.eye(len(rows), dtype=torch.bool)
        other_NN = sense_N[:, None] != sense_N
        with torch.no_grad():
            layers, _ = layers_of_sentences(model, rows)
        found[word] = []
        for layer_BTW in layers:
            vector_NW = F.normalize(layer_BTW[torch.arange(len(rows)), place_N], dim=-1)
            cosine_NN = vector_NW @ vector_NW.T
            own_N = (cosine_NN * same_NN).sum(1) / same_NN.sum(1)
            apart_N = own_N - (cosine_NN * other_NN).sum(1) / other_NN.sum(1)
            told = ((apart_N > 1e-6).double() + (apart_N.abs() <= 1e-6) / 2).mean()
            within, across = cosine_NN[same_NN].mean(), cosine_NN[other_NN].mean()
            found[word].append(Sense(float(within), float(across), float(told)))
    return found


def draw(shares: dict[str, list[float]]) -> str:
    """The share of each layer in each task's mixture, as bars."""
    rows, y = [], 0
    for task, each in shares.items():
        y += 30
        rows.append(f'<text x="10" y="{y}" font-weight="bold">{task}</text>')
        for layer, share in enumerate(each):
            y += 24
            rows.append(
                f'<text x="150" y="{y}" text-anchor="end">{LAYERS[layer]}</text><text x="{168 + 700 * share:.0f}" y="{y}">'
                f'{share:.2f}</text><rect x="160" y="{y - 13}" width="{700 * share:.1f}" height="16" fill="#36c"/>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 {y + 20}" font-family="sans-serif" font-size="13" '
        f'fill="#222"><rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>\n'
    )


def taggers(folder: Path, run: Path, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Each task with each of the features, seed by seed."""
    quick, found_ok, figures = arguments.quick, [], []
    shares: dict[str, list[float]] = {}
    seeds = range(2 if quick else 5)
    for name, (options, switches, judged) in tasks(folder, quick).items():
        by: dict[str, list[float]] = {}
        mixes: list[list[float]] = []
        for features in FEATURES:
            given = {} if features == "none" else {"--model": str(run)}
            if features == "static" and arguments.vectors:
                given = {"--vectors": arguments.vectors}
            cells = []
            for seed in seeds:
                words = {**options, **given, "--features": features, "--seed": str(seed), "--threads": "1"}
                words |= {"--epochs": "3"} if quick else {}
                place = folder / f"{name.split()[0]}-{features}-{seed}"
                cells.append(harness.Cell(place, "tagger", words, switches))
            found = [final(path) for path in harness.run_cells(cells, arguments.jobs)]
            by[features] = [100 * each[judged] for each in found]
            if features == "elmo":
                mixes = [[each[f"mix/layer_{i}"] for i in range(3)] for each in found]
        shares[name] = [round(statistics.mean(layer), 3) for layer in zip(*mixes, strict=True)]
        over_static, over_none = gain(by["elmo"], by["static"]), gain(by["elmo"], by["none"])
        found_ok.append(all(better >= 2 * error and better > 0 for better, error in (over_static, over_none)))
        figures.append(harness.Figure(
            f"{name}: {'F1 of spans' if 'span' in judged else 'accuracy'}, ELMo's layers beside fixed vectors",
            statistics.mean(by["elmo"]), statistics.mean(by["static"]), "%",
            "gains >= 2 standard errors over fixed vectors and over none, for one of the tasks", True,
            seeds=tuple(seeds),
            details={
                "over fixed vectors": f"{over_static[0]:+.2f} ± {over_static[1]:.2f}",
                "over none": f"{over_none[0]:+.2f} ± {over_none[1]:.2f}",
                "share of layers 0, 1, 2": shares[name],
                **{features: [round(value, 2) for value in each] for features, each in by.items()},
            },
        ))  # fmt: skip
    if arguments.save and not quick:
        (Path(__file__).parents[1] / "docs" / "elmo_mix.svg").write_text(draw(shares))
    yield from (replace(figure, ok=quick or any(found_ok)) for figure in figures)


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Train the model once, then every tagger; and look at words of two senses."""
    folder = Path(arguments.cells) / ("quick" if arguments.quick else "full")
    run, spent = pretrained(folder, arguments.quick)
    figures = final(run)
    yield harness.Figure(
        "pre-training: minutes", spent, None, "min", "<= 30 on two cores", arguments.quick or spent <= 30,
        details={name.removeprefix("eval/"): round(v, 4) for name, v in figures.items() if name.startswith("eval/")},
    )  # fmt: skip
    yield harness.Figure(
        "perplexity on held-out text, forward beside backward", figures["eval/forward_perplexity"],
        figures["eval/backward_perplexity"], "", "printed",
    )  # fmt: skip
    found = senses(run)
    sentences = sum(len(sense) for groups in SENSES.values() for sense in groups)
    told = [
        100 * statistics.mean(sense.told for sense in layer) for layer in zip(*found.values(), strict=True)
    ]
    chance = 50 + 2 * 50 / math.sqrt(sentences)
    yield harness.Figure(
        "words of two senses: sentences nearer to those of their own sense, top layer", told[-1], None, "%",
        f">= {chance:.1f} (half, and two standard errors of {sentences} sentences)",
        arguments.quick or told[-1] >= chance,
        details={"layers 0, 1, 2": [round(share, 1) for share in told]}
        | {word: f"layers 0, 1, 2 (cosine within / across, told): {'; '.join(map(str, each))}" for word, each in found.items()},
    )  # fmt: skip
    yield from taggers(folder, run, arguments)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="a small model, two seeds, few rows; no bar")
    parser.add_argument(
        "--cells", default="runs/elmo-benchmark", help="folder of the cells; finished ones are kept"
    )
    parser.add_argument("--jobs", type=int, default=2, help="taggers at a time, one thread each")
    parser.add_argument(
        "--vectors", help="fixed vectors in word2vec's text form, in place of the model's own"
    )


if __name__ == "__main__":
    sys.exit(harness.main("elmo", measure, options))
