"""Data sets from the Hugging Face hub, and Parquet files; both need the [hf] extra."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lineal.errors import DataError, UsageError

HUB = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.\[\]%:+-]+))?")
INSTALL = "pip install 'lineal[hf]'"


def read_hub(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of `hf:OWNER/NAME[/CONFIG][:SPLIT]` (split: train); no code from the hub is ever run."""
    match = HUB.fullmatch(source)
    if not match:
        raise UsageError(f"{source} cannot be read: write hf:OWNER/NAME[/CONFIG][:SPLIT].")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UsageError(f"{source} needs the [hf] extra: {INSTALL}.") from error
    try:
        found = load_dataset(match["name"], match["config"], split=match["split"] or "train")
    except Exception as error:
        # The library raises whatever its storage layers raise.
        reason = str(error).strip().splitlines() or [""]
        raise DataError(
            f"{source} could not be fetched ({type(error).__name__}: {reason[0]}). Check the name, the "
            "network, and HF_TOKEN for private data; HF_HOME is where fetched data is kept."
        ) from error
    for index, row in enumerate(found):
        yield f"{source}[{index}]", dict(row)


def read_parquet(path: Path, _: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a Parquet file, with the types that its schema states."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(f"{path}: Parquet needs the [hf] extra: {INSTALL}.") from error
    index = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", row
                    index += 1
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({error}). Fetch or write it again.") from error
