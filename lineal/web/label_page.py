"""The labelling page's server: a few JSON calls on loopback, each with a token and a checked Host; no cloud, no files.

Needs the extra `web` (starlette and uvicorn).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lineal.environments.preferences.records import CLIPS, Segment
from lineal.errors import LinealError, UsageError
from lineal.train.console import clean
from lineal.web.clips import Clips
from lineal.web.desk import Answer, Desk, Question, Visitor

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LONGEST = 64 * 1024
"""Most bytes of a request."""
NAME = re.compile(r"[\w .@+-]{1,60}")


@dataclass(frozen=True)
class Shown:
    """What the page says and how it plays: the instruction, frames per second of the clips."""

    instruction: str = "Which of the two is better?"
    fps: float = 30.0


def page_file() -> tuple[bytes, str]:
    """The page, one file with its style and script, and the policy that allows exactly these and nothing else."""
    content = (Path(__file__).parent / "label.html").read_bytes()
    hashes = {}
    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), content, re.S)
        assert inner is not None, f"label.html has no <{tag}>"
        hashes[tag] = base64.b64encode(hashlib.sha256(inner[1]).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy


def lasting_token(folder: Path) -> str:
    """The store's token, made at the first call and readable by its owner only: an open page survives a restart."""
    path = folder / "token"
    try:
        token = path.read_text(encoding="ascii").strip()
        if len(token) >= 32:
            return token
    except (OSError, UnicodeDecodeError):
        pass
    token = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return token


def allowed_hosts(host: str, port: int) -> set[str]:
    """The Host headers that are answered; anything else may be another site's name that leads here."""
    names = {*LOOPBACK, f"[{host}]" if ":" in host else host}
    return {f"{name}:{port}" for name in names} | ({*names} if port in (80, 443) else set())


class Page:
    """The answers of the server, as functions of requests' contents; `application` puts them behind HTTP."""

    def __init__(
        self, desk: Desk, segments: Mapping[str, Segment], clips: Clips, shown: Shown, token: str
    ) -> None:
        self.desk, self.segments, self.clips, self.shown, self.token = desk, segments, clips, shown, token

    def question(self, question: Question | None, labeller: str | None = None) -> dict[str, Any]:
        """A question as the page reads it: `swapped` comes back with the answer."""
        record: dict[str, Any] = {
            "progress": self.desk.progress(labeller),
            **asdict(self.shown),
            "question": None,
        }
        if question is not None:
            kind = question.pair.kind
            record["question"] = {
                "pair": question.pair.id,
                "kind": kind,
                "prompt": question.pair.prompt,
                "sides": list(question.sides),
                "swapped": question.swapped,
                "control": question.control,
            }
        return record

    def next(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The visitor's question."""
        who = visitor(body)
        return self.question(self.desk.next(who), who.labeller)

    def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep an answer, and go on."""
        values = {name: body.get(name) for name in ("pair", "swapped", "choice", "seconds", "control")}
        kinds = {"pair": str, "swapped": bool, "choice": str, "seconds": int | float, "control": bool}
        wrong = [name for name, kind in kinds.items() if not isinstance(values[name], kind)]
        if wrong:
            raise UsageError(
                f"an answer needs pair, swapped, choice, seconds and control; {wrong[0]} is missing."
            )
        who = visitor(body)
        self.desk.answer(who, Answer(**values))  # type: ignore[arg-type]
        return self.question(self.desk.next(who), who.labeller)

    def undo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take the last answer back, and ask it again; without one, go on."""
        who = visitor(body)
        return self.question(self.desk.undo(who) or self.desk.next(who), who.labeller)

    def clip(self, name: str) -> tuple[bytes, str, dict[str, Any]]:
        """The film strip of a segment: bytes, media type, layout."""
        try:
            segment = self.segments[name]
        except KeyError as error:
            raise UsageError(f"there is no clip {name[:40]}.") from error
        made = self.clips.get(segment)
        return made.picture, made.kind, made.layout()

    def ahead(self) -> None:
        """Draw the clips of the next questions, so that nobody waits for them."""
        sides = [
            side for pair in self.desk.upcoming() if pair.kind == CLIPS for side in (pair.first, pair.second)
        ]
        # What cannot be drawn is said when it is asked for.
        with contextlib.suppress(LinealError):
            for side in sides:
                if side in self.segments:
                    self.clips.get(self.segments[side])


def visitor(body: Mapping[str, Any]) -> Visitor:
    """Who asks; UsageError for a name that is no plain text of at most 60 characters."""
    labeller, session = body.get("labeller"), body.get("session")
    for name in (labeller, session):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                "labeller and session are names of at most 60 letters, digits, spaces and . @ + - _"
            )
    return Visitor(str(labeller), str(session))


def application(page: Page, hosts: set[str]) -> Any:
    """The ASGI application; UsageError without the extra `web`.

    Every call needs `Authorization: Bearer TOKEN` and a known Host, and every answer forbids caching, framing and sniffing.
    Errors are JSON with one `error`: 400 for a request that cannot work, 403 without the token, 421 for a foreign Host.
    """
    starlette_or_explain()
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    content, policy = page_file()
    safe = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }

    def refuse(request: Request) -> Response | None:
        if request.headers.get("host", "") not in hosts:
            return JSONResponse({"error": "this server answers only under its own name"}, 421, safe)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), page.token.encode()):
            return JSONResponse({"error": "open the whole address that the command printed"}, 403, safe)
        return None

    def guarded(work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            refused = refuse(request)
            if refused is not None:
                return refused
            try:
                return await work(request)
            except LinealError as error:
                return JSONResponse({"error": clean(str(error), 500)}, 400, safe)

        return endpoint

    def call(work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            body = await _body(request)
            # Not in a thread: the desk serves one request at a time.
            return JSONResponse(
                work(body), headers=safe, background=BackgroundTask(run_in_threadpool, page.ahead)
            )

        return guarded(handle)

    async def clip(request: Request) -> Response:
        picture, kind, layout = await run_in_threadpool(page.clip, request.path_params["name"])
        return Response(picture, media_type=kind, headers={**safe, "X-Layout": json.dumps(layout)})

    async def home(request: Request) -> Response:
        if request.headers.get("host", "") not in hosts:
            return Response("this server answers only under its own name", 421, safe)
        return Response(content, media_type="text/html", headers={**safe, "Content-Security-Policy": policy})

    routes = [
        Route("/", home),
        Route("/api/next", call(page.next), methods=["POST"]),
        Route("/api/answer", call(page.answer), methods=["POST"]),
        Route("/api/undo", call(page.undo), methods=["POST"]),
        Route("/api/clip/{name}", guarded(clip)),
    ]
    return Starlette(routes=routes)


async def _body(request: Any) -> Mapping[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LONGEST:
            raise UsageError(f"a request holds at most {LONGEST} bytes.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError("a request is one JSON object.") from error
    if not isinstance(body, dict):
        raise UsageError("a request is one JSON object.")
    return body


def starlette_or_explain() -> None:
    """UsageError that says how to get the server's packages, where they are missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"the page needs {error.name}: pip install 'lineal[web]'.") from error
