"""Folders that prove they are whole: every file's size and SHA-256 in a manifest that is written last.

A folder is written as `NAME.tmp/`, synced file by file, sealed with `manifest.json`, renamed to `NAME/`, and
its parent is synced. So a folder under its final name is complete, and `verify_folder` says whether it still
is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lineal.errors import CheckpointError
from lineal.train import files

MANIFEST = "manifest.json"
FORMAT = 1
REPLACED = ".replaced"
"""Suffix of a folder that is being replaced by another of its name; it counts until the other is in place."""


def write_folder(
    path: Path,
    contents: Mapping[str, Iterable[bytes | memoryview]],
    facts: Mapping[str, Any],
    durable: bool = True,
) -> None:
    """Write a verified folder at `path`, replacing one that is there.

    contents: for each plain file name, its bytes in chunks. facts: JSON values kept in the manifest. durable: False
    saves the time of syncing where a power cut may take the folder, which its manifest will then show.
    Raises OSError; whatever was at `path` before is then still there, or under `path` + ".replaced".
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        if temporary.exists():
            files.remove_folder(temporary)
        files.make_folder(temporary, durable)
        written = {name: files.write_file(temporary / name, c, durable) for name, c in contents.items()}
        files.write_file(temporary / MANIFEST, [_render(written, facts)], durable)
        if durable:
            files.sync_folder(temporary)
        _put_in_place(temporary, path, durable)
    except BaseException:
        # Free the space at once: on a full disk the next write may need it.
        with suppress(OSError):
            files.remove_folder(temporary)
        raise


def _put_in_place(temporary: Path, path: Path, durable: bool) -> None:
    aside = path.with_name(path.name + REPLACED)
    if path.exists():
        if aside.exists():
            files.remove_folder(aside)
        files.rename_folder(path, aside, durable)
    files.rename_folder(temporary, path, durable)
    if aside.exists():
        # The new folder is in place; what remains is only tidying.
        with suppress(OSError):
            files.remove_folder(aside)


def _render(records: Mapping[str, files.Written], facts: Mapping[str, Any]) -> bytes:
    body = {
        "format": FORMAT,
        "facts": dict(facts),
        "files": {name: {"bytes": r.size, "sha256": r.sha256} for name, r in sorted(records.items())},
    }
    return _text({**body, "sha256": _digest(body)})


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(body)).hexdigest()


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def verify_folder(path: Path) -> dict[str, Any]:
    """The facts of a folder whose every byte is as it was written.

    Raises CheckpointError naming the file and what is wrong with it: cut short, altered, missing, unreadable.
    """
    try:
        body = _read_manifest(path)
        for name, record in body["files"].items():
            if name != Path(name).name:
                raise CheckpointError(f"{path}: {MANIFEST} names {name!r}, which is no plain file name.")
            _verify_file(path / name, record["bytes"], record["sha256"])
    except OSError as error:
        where = Path(error.filename).name if error.filename else MANIFEST
        raise CheckpointError(f"{path}: {where} cannot be read ({error.strerror}).") from error
    return body["facts"]


def _read_manifest(path: Path) -> dict[str, Any]:
    raw = (path / MANIFEST).read_bytes()
    try:
        body = json.loads(raw)
        # One spelling per manifest: any changed byte changes the values or fails to come back as these bytes.
        intact = raw == _text(body) and body.pop("sha256") == _digest(body)
        written_by = body["format"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        intact, body, written_by = False, {}, FORMAT
    if not intact:
        raise CheckpointError(f"{path}: {MANIFEST} is not as it was written.")
    if written_by != FORMAT:
        raise CheckpointError(
            f"{path}: format {written_by} comes from a newer lineal; this one reads {FORMAT}."
        )
    return body


def _verify_file(path: Path, size: int, sha256: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise CheckpointError(f"{path.parent}: {path.name} has {found} bytes where {size} were written.")
    if files.hash_file(path).sha256 != sha256:
        raise CheckpointError(f"{path.parent}: {path.name} is not as it was written (its SHA-256 differs).")
