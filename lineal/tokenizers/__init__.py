"""Text to ids and back; nothing here needs torch or numpy.

The parts of a tokenizer have modules of their own: `normalise`, `split`, `bpe`, `wordpiece`, `unigram`, `words`, `decode`,
`template`, `added`; `pipeline` puts them together, `files` reads and writes those of other libraries, `counting` counts.
"""

from typing import TYPE_CHECKING, Any

from lineal.tokenizers.base import TextStream, Tokenizer, load_tokenizer
from lineal.tokenizers.bytes import ByteTokenizer
from lineal.tokenizers.characters import CharTokenizer
from lineal.tokenizers.hf import HFTokenizer

if TYPE_CHECKING:
    from lineal.tokenizers.pipeline import Encoding, Pipeline

__all__ = [
    "ByteTokenizer",
    "CharTokenizer",
    "Encoding",
    "HFTokenizer",
    "Pipeline",
    "TextStream",
    "Tokenizer",
    "load_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name in ("Encoding", "Pipeline"):
        from lineal.tokenizers import pipeline

        return getattr(pipeline, name)
    raise AttributeError(
        f"module 'lineal.tokenizers' has no attribute {name!r}: it has {', '.join(__all__)}."
    )
