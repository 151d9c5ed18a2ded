"""Outside vectors for a SentencePiece BPE model with byte fallback: llama.cpp's, on Llama 2's vocabulary."""

from __future__ import annotations

from pathlib import Path

from lineal.tokenizers.opening import open_tokenizer


def test_every_vector_of_llama_cpp(data: Path) -> None:
    tokenizer = open_tokenizer(data / "tok_llama2" / "tokenizer.model")
    stem = data / "tok_llamacpp" / "ggml-vocab-llama-spm.gguf"
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(word) for word in line.split()] for line in Path(f"{stem}.out").read_text().split("\n")]
    assert len(texts) == len(expected) == 47
    found = [tokenizer.encode(text) for text in texts]
    wrong = [(text, a, b) for text, a, b in zip(texts, found, expected, strict=True) if a != b]
    assert not wrong, wrong[:3]
