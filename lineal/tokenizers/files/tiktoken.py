"""tiktoken's files: a line for each token, its bytes in base64 and its rank; what is not in them stands in a file beside.

`NAME.tiktoken` holds the ranks. The split pattern and the special tokens, which in tiktoken are part of the program, are
in `NAME.json` here: {"pattern": "...", "special_tokens": {"<|endoftext|>": 50256}}.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from lineal.errors import ModelError, UsageError
from lineal.tokenizers import decode
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.base import write_whole
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.files.known import pattern_of, splitter_of
from lineal.tokenizers.files.reading import MissingPart, read_bytes, read_json
from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.text.split import Cl100k, Gpt2, O200k, Regex, compile_pattern

_FILL = {
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}
KNOWN: dict[str, tuple[Splitter, dict[str, int]]] = {
    "r50k_base": (Gpt2(), {"<|endoftext|>": 50256}),
    "p50k_base": (Gpt2(), {"<|endoftext|>": 50256}),
    "cl100k_base": (Cl100k(whole_end=True), {"<|endoftext|>": 100257, **_FILL}),
    "o200k_base": (O200k(), {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}
"""How the published files split, and their special tokens, by name."""


def read_tiktoken(
    path: str | Path, *, pattern: str | None = None, special: Mapping[str, int] | None = None
) -> Pipeline:
    """The tokenizer of a file of ranks.

    pattern, special: else from the JSON file beside it, else by the name of a published file. Raises ModelError naming
    the line that is damaged, or when nothing says the pattern; MissingPart for a pattern that cannot be used here.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    if pattern is None and beside.is_file():
        field = read_json(beside)
        pattern = field["pattern"].text()
        if special is None and field["special_tokens"].given:
            special = {
                name: field["special_tokens"][name].number(0, 1 << 31)
                for name in field["special_tokens"].object()
            }
    if pattern is None and path.stem not in KNOWN:
        raise ModelError(
            f"{path} has no {beside.name} beside it, which says the split pattern: write one, or give it."
        )
    known, published = KNOWN.get(path.stem, (None, {}))
    splitter = _splitter(str(path), pattern) if pattern is not None else known
    special = published if special is None else special
    model = BPE(_ranks(path), (), initial="bytes", by_rank=True, ignore_merges=True)
    added = [AddedToken(name, i) for name, i in special.items()]
    for token in added:
        if token.id < len(model.tokens) and model.tokens[token.id] not in (b"", token.content.encode()):
            raise ModelError(
                f"{path}: the special token {token.content!r} has the id {token.id}, which is a rank too."
            )
    named = {"eos_token": "<|endoftext|>"} if "<|endoftext|>" in special else {}
    return Pipeline(
        model, splitter=splitter, decoder=decode.ByteLevel(), added=added, settings=Settings(named)
    )


def _splitter(path: str, pattern: str) -> Splitter:
    known = splitter_of(pattern)
    if known is not None:
        return known
    try:
        compile_pattern(pattern)
    except UsageError as error:
        raise MissingPart(f"{path}: {error}") from error
    return Regex(pattern, "removed", invert=True)


def _ranks(path: Path) -> list[bytes]:
    found: dict[int, bytes] = {}
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            index = int(rank) if len(rank) < 12 else -1
            data = base64.b64decode(token, validate=True)
        except (ValueError, binascii.Error):
            raise ModelError(
                f"{path}:{number}: {line[:40]!r} is not base64 and a rank: download it again."
            ) from None
        if not 0 <= index <= 2 * len(lines) + 65536 or not data:
            raise ModelError(
                f"{path}:{number}: the rank {rank[:20]!r} of {data[:20]!r} is damaged: download it again."
            )
        if found.setdefault(index, data) is not data:
            raise ModelError(f"{path}:{number}: the rank {index} stands there twice: download it again.")
    if len(set(found.values())) != len(found):
        raise ModelError(f"{path} has a token twice, with two ranks: download it again.")
    missing = {bytes([byte]) for byte in range(256)} - set(found.values())
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} of the 256 single bytes, {min(missing)!r} for one: download it again."
        )
    tokens = [b""] * (max(found) + 1)
    for index, data in found.items():
        tokens[index] = data
    return tokens


def write_tiktoken(pipeline: Pipeline, path: str | Path) -> None:
    """Write NAME.tiktoken and NAME.json.

    tiktoken merges any two neighbours that make a token together, the lowest rank first. So the ids must be in the order
    of the merges, and all tokens made by them: else ModelError says which is not. Departure: a BPE with merges could in
    theory have another order for one token than the ranks give; on texts tried there was no difference.
    """
    path, model = Path(path), pipeline.model
    if (
        not isinstance(model, BPE)
        or model.initial != "bytes"
        or model.prefix
        or model.suffix
        or pipeline.normaliser
    ):
        raise ModelError(
            "tiktoken's files hold byte-level BPE without a normaliser: save() writes other kinds."
        )
    pattern = pattern_of(pipeline.splitter)
    if pattern is None:
        raise ModelError(f"{pipeline.splitter} cannot be written as tiktoken's pattern: save() writes it.")
    outside = {token.id for token in pipeline.added}
    ranked = {i: token for i, token in enumerate(model.tokens) if token and i not in outside}
    if not model.by_rank:
        _check_order(model, ranked)
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in sorted(ranked.items())]
    special = {token.content: token.id for token in pipeline.added}
    write_whole(
        path.with_suffix(".json"),
        json.dumps({"pattern": pattern, "special_tokens": special}, indent=2) + "\n",
    )
    write_whole(path, "".join(lines))


def _check_order(model: BPE, ranked: Mapping[int, bytes]) -> None:
    ids = {token: i for i, token in ranked.items()}
    made = [ids.get(model.tokens[left] + model.tokens[right], -1) for left, right in model.merges]
    for before, after in pairwise(made):
        if after <= before:
            raise ModelError(
                f"the merge that makes {model.tokens[after]!r} comes late for its id {after}: no rank says so."
            )
    left = {i for i, token in ranked.items() if len(token) > 1} - set(made)
    if left:
        raise ModelError(
            f"no merge makes {ranked[min(left)]!r}, but tiktoken would: it cannot be written there."
        )
