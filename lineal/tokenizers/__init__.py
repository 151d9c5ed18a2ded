"""Text to ids and back; nothing here needs torch or numpy."""

from lineal.tokenizers.base import TextStream, Tokenizer, load_tokenizer
from lineal.tokenizers.bytes import ByteTokenizer
from lineal.tokenizers.characters import CharTokenizer
from lineal.tokenizers.hf import HFTokenizer

__all__ = ["ByteTokenizer", "CharTokenizer", "HFTokenizer", "TextStream", "Tokenizer", "load_tokenizer"]
