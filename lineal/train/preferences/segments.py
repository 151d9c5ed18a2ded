"""Segments on disk, by what they hold: one safetensors file each, named by its hash; written once, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lineal.environments.preferences.records import Segment
from lineal.errors import DataError
from lineal.train import files

SEGMENTS = "segments"


class SegmentStore(Mapping[str, Segment]):
    """The segments of a preference store, read when asked for and kept in memory; a mapping from id to segment.

    KeyError for an id that is not there; DataError for a file that is not what its name says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder) / SEGMENTS
        self._read: dict[str, Segment] = {}

    def add(self, segments: Iterable[Segment]) -> None:
        """Keep segments; one that is there already is left as it is."""
        files.make_folder(self.folder)
        for segment in segments:
            path = self._path(segment.id)
            if not path.exists():
                arrays = {name: np.ascontiguousarray(x) for name, x in segment.arrays().items()}
                files.replace_file(path, save(arrays))
            self._read[segment.id] = segment

    def __getitem__(self, name: str) -> Segment:
        if name not in self._read:
            path = self._path(name)
            if not name.isalnum() or not path.is_file():
                raise KeyError(name)
            self._read[name] = _load(path, name)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (
            name in self._read or (name.isalnum() and self._path(name).is_file())
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self.folder.glob("*.safetensors")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _load(path: Path, name: str) -> Segment:
    try:
        segment = Segment.from_arrays(load_file(path))
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f"{path} is no segment ({type(error).__name__}: {error}): restore it from a copy."
        ) from error
    if segment.id != name:
        raise DataError(
            f"{path} holds segment {segment.id}: the file was altered or renamed. Restore it from a copy."
        )
    return segment
