"""What loading costs, and decoding one id at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lineal.tokenizers import Tokenizer


def test_importing_loads_neither_torch_nor_numpy_nor_tokenizers():
    code = "import sys, lineal.tokenizers; print(sorted({'torch','numpy','tokenizers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Metaspace(Tokenizer):
    """Words with a leading space that is dropped at the start of a text, as SentencePiece does."""

    vocab_size = 3

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return "".join(f" {index}" for index in ids)[1:]

    def save(self, folder: str | Path) -> None:
        raise NotImplementedError


def test_a_stream_keeps_the_space_that_decoding_alone_would_drop():
    stream = Metaspace().stream()
    assert [stream.push(index) for index in (0, 1, 2)] == ["0", " 1", " 2"]
    assert stream.finish() == ""
