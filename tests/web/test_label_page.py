"""The page's HTTP contract, without a browser."""

from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.preferences.records import TEXTS, Pair, Segment
from lineal.train.preferences.labels import LabelStore, PairWriter
from lineal.train.preferences.segments import SegmentStore
from lineal.web.clips import Clips
from lineal.web.desk import Desk
from lineal.web.label_page import Page, Shown, allowed_hosts, application, lasting_token, page_file

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("PIL")
testclient = pytest.importorskip("starlette.testclient")

TOKEN = "t" * 32
WHO = {"labeller": "anna", "session": "tab-1"}


def segment(value: float) -> Segment:
    return Segment(np.full((3, 1), value, np.float32), np.zeros(3), np.zeros(3))


@pytest.fixture
def world(tmp_path):
    clips = [segment(i) for i in range(4)]
    segments = SegmentStore(tmp_path)
    segments.add(clips)
    with PairWriter(tmp_path) as writer:
        writer.add(
            [
                Pair("<b>one</b>", "two", TEXTS, "Prompt"),
                Pair(clips[0].id, clips[1].id),
                Pair(clips[2].id, clips[3].id),
            ]
        )
    draw = lambda made: [np.full((4, 4, 3), int(made.observation_TF[0, 0]), np.uint8)] * 3  # noqa: E731
    with LabelStore(tmp_path) as store:
        page = Page(Desk(store, control=0.0), segments, Clips(draw), Shown("Which swings up?", 20.0), TOKEN)
        client = testclient.TestClient(
            application(page, allowed_hosts("127.0.0.1", 8765)), base_url="http://127.0.0.1:8765"
        )
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client, store


def test_a_question_an_answer_and_undo(world):
    client, store = world
    first = client.post("/api/next", json=WHO).json()
    assert (
        first["instruction"] == "Which swings up?" and first["fps"] == 20 and first["progress"]["open"] == 3
    )
    question = first["question"]
    assert question["kind"] == "clips" and len(question["sides"]) == 2
    body = {
        **WHO,
        "pair": question["pair"],
        "swapped": question["swapped"],
        "choice": "left",
        "seconds": 1.5,
        "control": False,
    }
    second = client.post("/api/answer", json=body).json()
    assert second["progress"]["labels"] == 1 and second["question"]["pair"] != question["pair"]
    better = (
        store.pairs[question["pair"]].first
        if store.labels[0].preference == 1.0
        else store.pairs[question["pair"]].second
    )
    assert better == question["sides"][0]
    assert store.labels[0].labeller == "anna" and store.labels[0].seconds == 1.5
    undone = client.post("/api/undo", json=WHO).json()
    assert undone["question"]["pair"] == question["pair"] and store.labels == []


def test_a_clip_is_a_picture_and_its_layout(world):
    client, _ = world
    question = client.post("/api/next", json=WHO).json()["question"]
    answer = client.get(f"/api/clip/{question['sides'][0]}")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/")
    assert '"count": 3' in answer.headers["x-layout"]
    lost = client.get("/api/clip/nothing")
    assert lost.status_code == 400 and "no clip" in lost.json()["error"]


def test_no_question_left(world):
    client, _ = world
    for _ in range(3):
        question = client.post("/api/next", json=WHO).json()["question"]
        body = {
            **WHO,
            "choice": "skip",
            "seconds": 0,
            **{k: question[k] for k in ("pair", "swapped", "control")},
        }
        last = client.post("/api/answer", json=body).json()
    assert last["question"] is None and last["progress"]["labels"] == 3


@pytest.mark.parametrize("path", ["/api/next", "/api/answer", "/api/undo"])
def test_without_the_token_nothing_is_said_or_done(world, path):
    client, store = world
    for given in ("", "Bearer ", "Bearer " + "u" * 32, TOKEN[:-1], "Bearer ü"):
        answer = client.post(path, json=WHO, headers={"Authorization": given.encode()})
        assert answer.status_code == 403 and set(answer.json()) == {"error"}
    assert store.history == []


def test_clips_need_the_token_too(world):
    client, store = world
    name = store.open_pairs[-1].first
    assert client.get(f"/api/clip/{name}", headers={"Authorization": ""}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1:9999", ""])
def test_another_site_s_name_is_refused(world, host):
    client, _ = world
    for path in ("/", "/api/next"):
        answer = client.request("GET" if path == "/" else "POST", path, headers={"Host": host})
        assert answer.status_code == 421


def test_the_page_may_run_its_own_script_and_load_nothing_else(world):
    client, _ = world
    answer = client.get("/", headers={"Authorization": ""})
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store"
    text = answer.text
    assert "http://" not in text and "https://" not in text, "self-contained"
    assert "innerHTML" not in text, "what is compared is text and stays text"
    assert text.encode() == page_file()[0] and text.isprintable() is False


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "one JSON object"),
        (b"[]", "one JSON object"),
        (b"{" * 100, "one JSON object"),
        (b"x" * 70_000, "at most"),
        (b'{"labeller": "a"}', "labeller and session"),
        (b'{"labeller": "<script>", "session": "x"}', "labeller and session"),
    ],
)
def test_a_request_that_cannot_work_is_a_400(world, content, why):
    client, _ = world
    answer = client.post("/api/next", content=content)
    assert answer.status_code == 400 and why in answer.json()["error"]


def test_an_answer_that_cannot_count_changes_nothing(world):
    client, store = world
    good = {
        **WHO,
        "pair": next(iter(store.pairs)),
        "swapped": False,
        "choice": "left",
        "seconds": 1,
        "control": False,
    }
    for change in (
        {"pair": "nobody-asked"},
        {"choice": "up"},
        {"swapped": 1.5},
        {"seconds": "long"},
        {"pair": None},
    ):
        assert client.post("/api/answer", json={**good, **change}).status_code == 400, change
    assert store.history == []
    assert client.post("/api/answer", json=good).status_code == 200


def test_the_token_outlives_the_server_and_is_private(tmp_path):
    token = lasting_token(tmp_path)
    assert lasting_token(tmp_path) == token and len(token) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    (tmp_path / "token").write_text("short")
    assert lasting_token(tmp_path) not in ("short", token)
