"""From options to a model with its tokenizer: a folder, a run, a hub name, or a fresh start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lineal.errors import ModelError, UsageError
from lineal.models.decoder import Decoder, DecoderConfig
from lineal.models.hf import load_model
from lineal.tokenizers import ByteTokenizer, CharTokenizer, load_tokenizer

if TYPE_CHECKING:
    from lineal.tokenizers import Tokenizer
    from lineal.train.options import ModelOptions


def model_folder(name: str) -> Path:
    """The folder that `name` means: a model folder, a run's `final/`, or a hub model fetched on request.

    Only `hf:OWNER/NAME` touches the network, through the [hf] extra, and only safetensors and JSON are fetched.
    """
    if name.startswith("hf:"):
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise ModelError(f"{name} needs the hub client: pip install 'lineal[hf]'.") from error
        wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
        try:
            return Path(snapshot_download(name[3:], allow_patterns=wanted))
        except Exception as error:
            raise ModelError(f"{name} could not be fetched ({type(error).__name__}: {error}).") from error
    folder = Path(name)
    # A run folder has a config.json of its own, so its finished model is looked for first.
    for candidate in (folder / "final", folder):
        if (candidate / "config.json").is_file():
            return candidate
    if not folder.exists():
        raise ModelError(f"{name} does not exist: give a model folder, a finished run, or hf:OWNER/NAME.")
    raise ModelError(
        f"{name} holds neither a model's config.json nor a run's final/: a run writes final/ when it ends "
        "(lineal resume finishes one that was interrupted)."
    )


def build_model(options: ModelOptions, alphabet: str, context: int, seed: int) -> tuple[Decoder, Tokenizer]:
    """The decoder and tokenizer that the options ask for.

    alphabet: text whose characters a fresh character tokenizer must know. context: tokens a fresh model must fit.
    """
    if options.model is not None:
        folder = model_folder(options.model)
        decoder, _ = load_model(folder)
        return decoder, _tokenizer(options.tokenizer or str(folder), alphabet)
    tokenizer = fresh_tokenizer(options, alphabet)
    config = fresh_config(options, tokenizer.vocab_size, options.context or context)
    decoder = Decoder(config)
    decoder.initialise(seed)
    return decoder, tokenizer


def fresh_tokenizer(options: ModelOptions, alphabet: str) -> Tokenizer:
    """The tokenizer of a fresh model: the one asked for, else one of the alphabet's characters."""
    return _tokenizer(options.tokenizer or "char", alphabet)


def _tokenizer(name: str, alphabet: str) -> Tokenizer:
    if name == "char":
        return CharTokenizer.train(alphabet)
    if name == "byte":
        return ByteTokenizer()
    return load_tokenizer(Path(name))


def fresh_config(options: ModelOptions, vocab_size: int, context: int) -> DecoderConfig:
    """The shape of a fresh model in the wanted layout."""
    from lineal.models.decoder import PRESETS

    if options.layout not in PRESETS:
        raise UsageError(f"--layout {options.layout} is not one of {', '.join(PRESETS)}.")
    if options.width % options.heads:
        raise UsageError(f"--width {options.width} is not a multiple of --heads {options.heads}.")
    return PRESETS[options.layout](
        vocab_size=vocab_size,
        width=options.width,
        layers=options.layers,
        heads=options.heads,
        kv_heads=options.kv_heads or options.heads,
        inner=options.inner or 4 * options.width,
        context=context,
        dropout=options.dropout,
    )
