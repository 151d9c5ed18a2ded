"""`lineal label RUN_OR_STORE`: a page on which a person says which of two is better."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import DataError, RunError, UsageError

if TYPE_CHECKING:
    from lineal.train.preferences.labels import LabelStore

USAGE = "lineal label RUN_OR_STORE [--option value ...]"
PORT = 8765


@dataclass(frozen=True)
class LabelOptions:
    """What `lineal label` can be told."""

    port: int = PORT
    """Port of the page; the next free one when it is taken."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback lets others on the network label, if they have the address printed."""
    instruction: str | None = None
    """What the page asks (default: what the run or store says)."""
    fps: float | None = None
    """Steps of a clip shown per second (default: what the run says, else 30)."""
    control: float = 0.05
    """Share of questions that repeat an answered pair, to see whether a labeller agrees with himself."""
    lease: float = 120.0
    """Seconds after which a question that was shown and not answered goes to somebody else."""
    texts: str | None = None
    """JSONL file of text pairs to ask about: prompt, and first and second (or chosen and rejected)."""
    export: str | None = None
    """Write the decided text pairs as prompt, chosen, rejected to this JSONL file, and stop."""
    merge: str | None = None
    """Take in the questions and answers of another store, and stop."""


def label(words: list[str]) -> int:
    """Serve the page until Ctrl-C; or export, or merge."""
    paths, rest = positionals(words)
    if "--help" in rest or "-h" in rest or "--help-all" in rest:
        lines = [
            f"{USAGE}: a page on which a person says which of two is better",
            *help_lines(LabelOptions()),
        ]
        print("\n".join(lines))
        return 0
    options = parse(LabelOptions(), rest)
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} folders were given, not one: {USAGE}")
    folder = store_folder(Path(paths[0]), new=options.texts is not None)
    if options.export is not None:
        return _export(folder, Path(options.export))
    from lineal.train.preferences.labels import LabelStore

    with LabelStore(folder) as store:
        if options.merge is not None:
            print(f"{store.merge(store_folder(Path(options.merge)))} new labels, {len(store.labels)} in all")
            return 0
        if options.texts is not None:
            _ask_texts(folder, Path(options.texts))
        return serve(store, options)


def store_folder(path: Path, new: bool = False) -> Path:
    """The preference store of a run, or the folder itself where it is one; RunError for neither."""
    for folder in (path / "preferences", path):
        if (folder / "pairs.jsonl").exists() or (folder / "about.json").exists():
            return folder
    if new:
        return path
    raise RunError(
        f"{path} holds no questions (no pairs.jsonl): start `lineal run preferences --labeller web`, or give text pairs "
        "with --texts FILE."
    )


def _ask_texts(folder: Path, file: Path) -> None:
    from lineal.environments.preferences.records import TEXTS, Pair
    from lineal.train.preferences.labels import PairWriter
    from lineal.train.preferences.lines import LineReader

    if not file.is_file():
        raise DataError(f"{file} is not there: --texts takes a JSONL file of text pairs.")

    def read(record: dict[str, Any]) -> Pair:
        names = ("first", "second") if "first" in record else ("chosen", "rejected")
        values = [record.get("prompt", ""), *(record.get(name) for name in names)]
        if not all(isinstance(value, str) for value in values):
            raise DataError("a row holds texts: prompt, and first and second (or chosen and rejected).")
        return Pair(values[1], values[2], TEXTS, values[0])

    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        raise DataError(f"{file}: the last line has no end: is the file cut short? End it with a line break.")
    with PairWriter(folder) as writer:
        print(f"{writer.add(LineReader(file, read).more())} new questions", file=sys.stderr)


def _export(folder: Path, out: Path) -> int:
    from lineal.train import files
    from lineal.train.preferences.labels import Answers, export_texts

    rows = export_texts(Answers(folder))
    files.replace_file(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    print(f"{len(rows)} decided pairs in {out}")
    return 0


def about(folder: Path) -> dict[str, Any]:
    """What the run says about its questions: env, instruction, fps, labels; {} for a store without a run."""
    path = folder / "about.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is not what a run writes ({error}).") from error
    return record if isinstance(record, dict) else {}


def serve(store: LabelStore, options: LabelOptions) -> int:
    """Answer the page's calls until a signal; prints the address to open."""
    from lineal.web.label_page import starlette_or_explain

    starlette_or_explain()
    import uvicorn

    from lineal.environments.preferences.scenes import Scenes
    from lineal.train.preferences.segments import SegmentStore
    from lineal.web.clips import Clips
    from lineal.web.desk import Desk
    from lineal.web.label_page import Page, Shown, allowed_hosts, application, lasting_token

    said = about(store.folder)
    desk = Desk(store, control=options.control, lease=options.lease, wanted=int(said.get("labels", 0)))
    instruction = options.instruction or said.get("instruction") or Shown.instruction
    shown = Shown(str(instruction), float(options.fps or said.get("fps") or Shown.fps))
    token = lasting_token(store.folder)
    page = Page(desk, SegmentStore(store.folder), Clips(Scenes(str(said.get("env", "")))), shown, token)
    listening = _listen(options.host, options.port)
    port = listening.getsockname()[1]
    app = application(page, allowed_hosts(options.host, port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    name = f"[{options.host}]" if ":" in options.host else options.host
    print(f"open    http://{name}:{port}/#token={token}", flush=True)
    print(
        "add     &name=YOU to it when several people label; stop with Ctrl-C: every answer is kept",
        flush=True,
    )
    server.run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port, 0):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, candidate))
            # Whoever opens the address before the server runs waits in the queue.
            listening.listen(64)
        except OSError as error:
            listening.close()
            if candidate == 0:
                raise UsageError(f"--host {host}: {error.strerror}. Use 127.0.0.1.") from error
            continue
        return listening
    raise AssertionError("port 0 is always free")
