"""Tokenizers beside the libraries in use: training, encoding, decoding, worst cases, starting up; one thread each.

    python benchmarks/tokenizers.py --json [--only encode/bpe] [--copies 4]

Each side of each figure is a process of its own that reads the same files and answers with its CPU seconds (user and
system, `time.process_time`), so that neither threads nor caches of one help the other. Encoding and decoding are measured
warm: the best of several passes over the same documents, after one that is not counted. Peers: tokenizers,
rustbpe, gigatoken, tiktoken, sentencepiece (the [bench] extra). A figure whose results differ is not ok.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import harness

VOCABULARY, DOCUMENT = 32_000, 1_500
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ALONE = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
Answer = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------ the corpora


def corpora(folder: Path, copies: int) -> None:
    """The files that every side reads: novels to train on, once and several times over, and documents to encode."""
    data = Path(os.environ["LINEAL_TEST_DATA"])
    novels = b"".join(gzip.decompress((data / f"novels_en/train-0{i}.txt.gz").read_bytes()) for i in (0, 1))
    (folder / "novels.txt").write_bytes(novels)
    (folder / "novels-many.txt").write_bytes(novels * copies)
    (folder / "novels-20.txt").write_bytes(novels[:20_000_000].rpartition(b"\n")[0] + b"\n")
    held_out = gzip.decompress((data / "novels_en/valid.txt.gz").read_bytes()).decode()
    cut = [held_out[i : i + DOCUMENT] for i in range(0, len(held_out), DOCUMENT)]
    (folder / "documents.json").write_text(json.dumps(cut))
    for language in ("zho-CN", "jpn"):
        stem = data / f"ntrex/newstest2019-ref.{language}.txt"
        text = stem.read_bytes() if stem.is_file() else gzip.decompress(Path(f"{stem}.gz").read_bytes())
        (folder / f"{language}.txt").write_bytes(text)


def documents(folder: Path) -> list[str]:
    """Held-out text in pieces of 1,500 characters."""
    return json.loads((folder / "documents.json").read_text())


# ------------------------------------------------------------------------------------------------------- measuring one side


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returned."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def warm(work: Callable[[], Any], rounds: int = 5) -> tuple[float, Any]:
    """The least CPU seconds of several calls after one."""
    result = work()
    return min(cpu(work)[0] for _ in range(rounds)), result


def digest(value: Any) -> str:
    """What two sides must have in common."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def peak() -> float:
    """This process's largest memory so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage counts what the process was before it ran this program.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ------------------------------------------------------------------------------------------------------------- training BPE


def train_ours(path: Path, size: int) -> tuple[float, Any]:
    """Our byte-level BPE on a file."""
    from lineal.tokenizers.bpe import train_bpe
    from lineal.tokenizers.corpus.counting import count_files
    from lineal.tokenizers.text.split import Gpt2

    return cpu(lambda: train_bpe(count_files([path], None, Gpt2()), size))


def train_tokenizers(path: Path, size: int) -> tuple[float, Any]:
    """The `tokenizers` library's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    level = pre_tokenizers.ByteLevel
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = level(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=level.alphabet(), show_progress=False, special_tokens=[]
    )
    seconds, _ = cpu(lambda: tokenizer.train([str(path)], trainer))
    return seconds, tokenizer


def train_rustbpe(path: Path, size: int) -> tuple[float, Any]:
    """rustbpe's."""
    import rustbpe

    tokenizer = rustbpe.Tokenizer()  # type: ignore[attr-defined]

    def work() -> None:
        with open(path, encoding="utf-8", newline="") as lines:
            tokenizer.train_from_iterator(lines, size, pattern=GPT2)

    seconds, _ = cpu(work)
    return seconds, tokenizer


def train_gigatoken(path: Path, size: int) -> tuple[float, Any]:
    """gigatoken's; its documents are the whole file, so its merges may differ."""
    import gigatoken

    return cpu(lambda: gigatoken.train_bpe(str(path), size, []))


def our_merges(model: Any) -> list[list[str]]:
    """Merges in the printable form of tokenizer.json."""
    from lineal.tokenizers.files.printable import to_text

    return [[to_text(model.tokens[a]), to_text(model.tokens[b])] for a, b in model.merges]


def merges_of(tokenizer: Any) -> list[list[str]]:
    """The same of the `tokenizers` library."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [list(m) if isinstance(m, list) else m.split(" ") for m in merges]


def train(side: str, folder: Path, name: str = "novels-many.txt", size: int = VOCABULARY) -> Answer:
    """One side's training on one file."""
    seconds, made = globals()[f"train_{side}"](folder / name, size)
    answer: Answer = {"seconds": seconds, "memory": peak()}
    if side == "ours":
        merges = our_merges(made)
        answer |= {"merges": digest(merges), "count": len(merges)}
    elif side == "tokenizers":
        merges = merges_of(made)
        answer |= {"merges": digest(merges), "count": len(merges)}
        if name == "novels-20.txt":
            made.save(str(folder / "bpe.json"))
    return answer


# ------------------------------------------------------------------------------------------------------ encoding, decoding


def passes(encode: Callable[[str], Any], decode: Callable[[Any], Any], folder: Path) -> Answer:
    """Both ways over all documents, one by one."""
    texts = documents(folder)
    encoding, ids = warm(lambda: [encode(text) for text in texts])
    ids = [list(row) for row in ids]
    decoding, _ = warm(lambda: [decode(row) for row in ids])
    size = sum(len(text.encode()) for text in texts) / 1e6
    return {"encode": size / encoding, "decode": size / decoding, "ids": digest(ids)}


def bpe_ours(folder: Path) -> Answer:
    """Our pipeline."""
    from lineal.tokenizers.files.huggingface import read_huggingface

    tokenizer = read_huggingface(folder / "bpe.json")
    return passes(tokenizer.encode, tokenizer.decode, folder)


def bpe_tokenizers(folder: Path) -> Answer:
    """The `tokenizers` library."""
    from tokenizers import Tokenizer, decoders

    tokenizer = Tokenizer.from_file(str(folder / "bpe.json"))
    tokenizer.decoder = decoders.ByteLevel()
    return passes(lambda text: tokenizer.encode(text).ids, tokenizer.decode, folder)


def bpe_tiktoken(folder: Path) -> Answer:
    """tiktoken with the same tokens as ranks."""
    import tiktoken

    from lineal.tokenizers.files.printable import to_bytes

    vocabulary = json.loads((folder / "bpe.json").read_text())["model"]["vocab"]
    ranks = {to_bytes(token): i for token, i in vocabulary.items()}
    encoding = tiktoken.Encoding("novels", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    return passes(encoding.encode_ordinary, encoding.decode, folder)


def bpe_gigatoken(folder: Path) -> Answer:
    """gigatoken, as lists."""
    import gigatoken

    tokenizer = gigatoken.Tokenizer.from_json((folder / "bpe.json").read_text())
    return passes(lambda text: tokenizer.encode(text).tolist(), tokenizer.decode, folder)


def wordpiece_ours(folder: Path) -> Answer:
    """Our WordPiece with BERT's normaliser."""
    from lineal.tokenizers.files.vocabularies import read_vocab_txt

    tokenizer = read_vocab_txt(Path(os.environ["LINEAL_TEST_DATA"]) / "tok_bert/vocab.txt")
    return passes(tokenizer.encode, tokenizer.decode, folder)


def wordpiece_tokenizers(folder: Path) -> Answer:
    """The `tokenizers` library's."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(Path(os.environ["LINEAL_TEST_DATA"]) / "tok_bert/vocab.txt"))
    return passes(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.decode, folder)


# -------------------------------------------------------------------------------------------------------------- Unigram


def unigram_train_ours(folder: Path) -> Answer:
    """Our Unigram in sentencepiece's way, written as a .model."""
    from lineal.tokenizers.training import Learning
    from lineal.tokenizers.training import train as train_kind

    text, learning = folder / "novels-20.txt", Learning(vocab_size=8000)
    seconds, made = cpu(lambda: train_kind("sentencepiece", [text], learning=learning))
    made.save(folder / "ours-unigram")
    return {"seconds": seconds, "memory": peak(), **likelihood(folder / "ours-unigram", folder)}


def unigram_train_sentencepiece(folder: Path) -> Answer:
    """sentencepiece's, with our settings: no rules of normalisation, every character in the alphabet, bytes for others."""
    seconds = sentencepiece_model(
        folder, "sp-alike", normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=1.0, byte_fallback=True,
    )  # fmt: skip
    return {"seconds": seconds, "memory": peak(), **likelihood(folder / "sp-alike.model", folder)}


def unigram_train_usual(folder: Path) -> Answer:
    """sentencepiece's as it comes, whose model both encode with."""
    return {"seconds": sentencepiece_model(folder, "sp")}


def sentencepiece_model(folder: Path, name: str, **settings: Any) -> float:
    """CPU seconds of training a model of 8,000 pieces."""
    import sentencepiece

    def work() -> None:
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "novels-20.txt"), model_prefix=str(folder / name), vocab_size=8000, num_threads=1,
            model_type="unigram", minloglevel=2, max_sentence_length=1 << 20, input_sentence_size=0, **settings,
        )  # fmt: skip

    return cpu(work)[0]


def likelihood(path: Path, folder: Path) -> Answer:
    """Log-likelihood of the best segmentation per byte, and bytes per token, of the held-out documents."""
    from lineal.tokenizers.opening import open_tokenizer

    tokenizer: Any = open_tokenizer(path)
    score = [s if math.isfinite(s) else -30.0 for _, s in tokenizer.model.pieces]
    ids = [tokenizer.encode(text) for text in documents(folder)]
    size = sum(len(text.encode()) for text in documents(folder))
    total = sum(score[i] for row in ids for i in row)
    return {"per_byte": total / size, "bytes_per_token": size / sum(map(len, ids))}


def unigram_ours(folder: Path) -> Answer:
    """Encoding with sentencepiece's own model, opened by us."""
    from lineal.tokenizers.opening import open_tokenizer

    tokenizer = open_tokenizer(folder / "sp.model")
    return passes(tokenizer.encode, tokenizer.decode, folder)


def unigram_sentencepiece(folder: Path) -> Answer:
    """sentencepiece itself."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
    return passes(processor.encode, processor.decode, folder)


# ---------------------------------------------------------------------------------------------- worst cases, loss, start


def worst_inputs(size: int) -> dict[str, str]:
    """Texts that are quadratic to careless encoders."""
    letters = random.Random(0)
    return {
        "one letter": "a" * size,
        "spaces": " " * size,
        "random letters": "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=size)),
        "joined emoji": ("\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}\u200d" * (size // 6 + 1))[:size],
        "one word": ("antidisestablishmentarianism" * (size // 28 + 1))[:size],
    }


def worst_ours(folder: Path) -> Answer:
    """Wall-clock seconds at a hundred thousand and a million characters, the worst over our kinds of tokenizers."""
    from lineal.tokenizers.files.huggingface import read_huggingface
    from lineal.tokenizers.files.vocabularies import read_vocab_txt
    from lineal.tokenizers.opening import open_tokenizer

    kinds = {
        "bpe": read_huggingface(folder / "bpe.json"),
        "wordpiece": read_vocab_txt(Path(os.environ["LINEAL_TEST_DATA"]) / "tok_bert/vocab.txt"),
        "unigram": open_tokenizer(folder / "sp.model"),
    }
    found = {}
    for size in (100_000, 1_000_000):
        for case, text in worst_inputs(size).items():
            for kind, tokenizer in kinds.items():
                begun = time.perf_counter()
                tokenizer.encode(text)
                found[f"{kind}, {case}, {size}"] = round(time.perf_counter() - begun, 4)
    return {"seconds": max(found.values()), "all": found}


def lossless_ours(folder: Path) -> Answer:
    """How many of a million random byte strings (read as UTF-8 where they are, else escaped bytes) come back changed."""
    from lineal.tokenizers.files.huggingface import read_huggingface

    tokenizer, draw, wrong = read_huggingface(folder / "bpe.json"), random.Random(1), 0
    model, splitter = tokenizer.model, tokenizer.splitter
    for _ in range(1_000_000):
        data = draw.randbytes(draw.randrange(24))
        ids = model.encode(data, splitter.spans(data))
        wrong += b"".join(model.tokens[i] for i in ids) != data
    return {"wrong": wrong}


START = """
import time, sys; begun = time.perf_counter()
import lineal.tokenizers
imported = time.perf_counter() - begun
begun = time.perf_counter()
from lineal.tokenizers.files.huggingface import read_huggingface
ids = read_huggingface(sys.argv[1]).encode("The first text of a fresh process, to be encoded at once.")
import resource, json
print(json.dumps({"import": imported, "first": time.perf_counter() - begun,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def start_ours(folder: Path) -> Answer:
    """Seconds to import, then to open a tokenizer of 32,000 tokens and encode; the best of several fresh processes."""
    command = [sys.executable, "-c", START, str(folder / "bpe.json")]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(7)
    ]
    return {name: min(run[name] for run in runs) for name in runs[0]}


# ---------------------------------------------------------------------------------------------------------- putting it together


def ask(task: str, folder: Path, *words: str) -> Answer:
    """What one side answers, from a process of its own."""
    command = [sys.executable, __file__, "--worker", task, str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ALONE})
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def work(task: str, folder: Path, words: list[str]) -> Answer:
    """A worker's task: "train:SIDE", or the name of one of the functions above."""
    name, _, side = task.partition(":")
    if name == "train":
        return train(side, folder, words[0], int(words[1])) if words else train(side, folder)
    return globals()[f"{name}_{side}"](folder)


def training(folder: Path) -> Iterator[harness.Figure]:
    """BPE training beside three libraries, and the merges beside those of one."""
    found = {side: ask(f"train:{side}", folder) for side in ("ours", "tokenizers", "rustbpe", "gigatoken")}
    ours = found["ours"]["seconds"]
    same = found["ours"]["merges"] == found["tokenizers"]["merges"]
    for side, most in (("tokenizers", 0.1), ("rustbpe", 0.5), ("gigatoken", 1.2)):
        peer = found[side]["seconds"]
        yield harness.Figure(
            f"train/bpe 32k beside {side}", ours, peer, "CPU s", f"<= {most} of it, merges as tokenizers'",
            ours <= most * peer and same, details={"memory MB": {k: round(v["memory"]) for k, v in found.items()}},
        )  # fmt: skip
    for language in ("zho-CN", "jpn"):
        name = f"{language}.txt"
        pair = [ask(f"train:{side}", folder, name, "4000") for side in ("ours", "tokenizers")]
        same = pair[0]["merges"] == pair[1]["merges"]
        yield harness.Figure(
            f"train/merges {language}", float(same), 1.0, "identical", "all of them", same,
            details={"merges": pair[0]["count"]},
        )  # fmt: skip


def encoding(folder: Path, kind: str, bars: dict[str, float], decode: float) -> Iterator[harness.Figure]:
    """One kind both ways beside its peers; ids must be those of the first peer that is asked."""
    found = {side: ask(f"{kind}:{side}", folder) for side in ("ours", *bars)}
    for side, least in bars.items():
        ours, peer = found["ours"]["encode"], found[side]["encode"]
        same = found["ours"]["ids"] == found[side]["ids"]
        yield harness.Figure(
            f"encode/{kind} beside {side}", ours, peer, "MB/s of CPU", f">= {least}x, ids identical",
            ours >= least * peer and same, details={"ids identical": same},
        )  # fmt: skip
    first = next(iter(bars))
    ours, peer = found["ours"]["decode"], found[first]["decode"]
    yield harness.Figure(
        f"decode/{kind} beside {first}", ours, peer, "MB/s of CPU", f">= {decode}x", ours >= decode * peer
    )


def unigram(folder: Path) -> Iterator[harness.Figure]:
    """Unigram training and encoding beside sentencepiece."""
    peer, ours = (ask(f"unigram_train:{side}", folder) for side in ("sentencepiece", "ours"))
    better = ours["per_byte"] >= peer["per_byte"] and ours["bytes_per_token"] >= peer["bytes_per_token"]
    yield harness.Figure(
        "train/unigram 8k beside sentencepiece", ours["seconds"], peer["seconds"], "CPU s",
        "<= 0.5 of it, likelihood and bytes per token at least as good",
        ours["seconds"] <= 0.5 * peer["seconds"] and better, details={"ours": ours, "sentencepiece": peer},
    )  # fmt: skip
    yield from encoding(folder, "unigram", {"sentencepiece": 2.0}, 1.0)


def others(folder: Path) -> Iterator[harness.Figure]:
    """Worst cases, losses, starting up."""
    worst = ask("worst:ours", folder)
    yield harness.Figure(
        "worst case, 1e6 characters",
        worst["seconds"],
        None,
        "s",
        "< 1",
        worst["seconds"] < 1,
        details=worst["all"],
    )
    loss = ask("lossless:ours", folder)
    yield harness.Figure("1e6 byte strings changed", loss["wrong"], None, "", "0", loss["wrong"] == 0)
    start = ask("start:ours", folder)
    good = start["import"] <= 0.1 and start["first"] <= 0.2 and start["memory"] <= 60
    yield harness.Figure(
        "import", start["import"], None, "s", "<= 0.1; first encode <= 0.2; <= 60 MB", good, details=start
    )


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """All figures, or those whose part was asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpora(folder, arguments.copies)
        if arguments.only in ("", "train"):
            yield from training(folder)
        # What all encoders read, and the sentencepiece model that later parts need.
        ask("train:tokenizers", folder, "novels-20.txt", str(VOCABULARY))
        if arguments.only in ("", "bpe"):
            bars = {"tokenizers": 25.0, "tiktoken": 5.0, "gigatoken": 0.0}
            yield from encoding(folder, "bpe", bars, 5.0)
        if arguments.only in ("", "wordpiece"):
            yield from encoding(folder, "wordpiece", {"tokenizers": 20.0}, 5.0)
        if arguments.only in ("", "unigram", "others"):
            ask("unigram_train:usual", folder)
        if arguments.only in ("", "unigram"):
            yield from unigram(folder)
        if arguments.only in ("", "others"):
            yield from others(folder)


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--copies", type=int, default=4, help="how often the novels are repeated to train on")
    parser.add_argument("--only", default="", help="train, bpe, wordpiece, unigram or others")


if __name__ == "__main__":
    if "--worker" in sys.argv:
        at = sys.argv.index("--worker")
        print(json.dumps(work(sys.argv[at + 1], Path(sys.argv[at + 2]), sys.argv[at + 3 :])))
        raise SystemExit(0)
    if not os.environ.get("LINEAL_TEST_DATA"):
        raise SystemExit("LINEAL_TEST_DATA is not set: it names the folder of public data sets.")
    raise SystemExit(harness.main("tokenizers", measure, options))
