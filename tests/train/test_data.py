"""Every kind of file is read as it is; every fault names its place and its remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import types
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.train.data import Rows, is_data_file, map_fields, read_documents, read_rows

PAIR = '{"prompt": "1+1=", "completion": "2"}\n'


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    return str(caught.value)


# --- what is read
# -----------------------------------------------------------------------------------------------


def test_jsonl_keeps_values_as_they_are(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "2024-01-02", "n": 12345678901234567890, "x": null}\n' + PAIR)
    rows = read_rows(path)
    assert rows.rows[0] == {"text": "2024-01-02", "n": 12345678901234567890, "x": None}
    assert rows.places == [f"{path}:1", f"{path}:2"]
    assert len(rows) == 2 and rows.skipped == 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "unended"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        (".jsonl", ['{"text": "né"}', '{"text": "b"}']),
        (".ndjson", ['{"text": "né"}', '{"text": "b"}']),
        (".json", ['{"text": "né"}', '{"text": "b"}']),
        (".json", ['[{"text": "né"},', '{"text": "b"}]']),
        (".csv", ["text", "né", "b"]),
        (".tsv", ["text", "né", "b"]),
        (".txt", ["né", "b"]),
    ],
)
def test_line_ends_marks_and_gzip_change_nothing(tmp_path, suffix, lines, end, bom, last, zipped):
    content = bom + (end.join(lines) + (end if last else "")).encode()
    content, suffix = (gzip.compress(content, mtime=0), suffix + ".gz") if zipped else (content, suffix)
    path = write(tmp_path, "a" + suffix, content)
    assert read_rows(path).rows == [{"text": "né"}, {"text": "b"}]


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path):
    path = write(tmp_path, "a.jsonl", "\n" + PAIR + "  \n" + PAIR)
    assert read_rows(path).places == [f"{path}:2", f"{path}:4"]


def test_a_line_ends_only_at_a_line_end(tmp_path):
    text = "one\u2028two\x0bthree\x85four"
    path = write(tmp_path, "a.txt", text + "\n")
    assert read_rows(path, text_field="prompt").rows == [{"prompt": text}]


def test_csv_text_stays_text(tmp_path):
    path = write(tmp_path, "a.csv", 'day,n,note\n2024-01-02,007,"a, ""b""\nc"\n1e5,,NA\n')
    rows = read_rows(path)
    assert rows.rows == [
        {"day": "2024-01-02", "n": "007", "note": 'a, "b"\nc'},
        {"day": "1e5", "n": "", "note": "NA"},
    ]
    assert rows.places == [f"{path}:2", f"{path}:4"]


def test_tsv_quotation_marks_are_characters(tmp_path):
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"he said\t1\n5" pipe\t0\n')
    assert read_rows(path).rows == [{"text": '"he said', "label": "1"}, {"text": '5" pipe', "label": "0"}]


def test_escaped_nul_and_pairs_of_surrogates_are_text(tmp_path):
    path = write(tmp_path, "a.jsonl", r'{"text": "a\u0000b", "face": "\ud83d\ude00", "plain": "\\ud83d"}')
    assert read_rows(path).rows == [{"text": "a\0b", "face": "😀", "plain": "\\ud83d"}]


def test_a_line_of_fifty_megabytes_is_read(tmp_path):
    long = "x" * 50_000_000
    assert read_rows(write(tmp_path, "a.jsonl", json.dumps({"text": long}))).rows[0]["text"] == long
    assert len(read_rows(write(tmp_path, "a.csv", f"text\n{long}\n")).rows[0]["text"]) == 50_000_000
    assert csv.field_size_limit() == 131072, "the limit of other users of csv is not ours to change"


def test_a_line_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lineal.train.formats.LINE_LIMIT", 1 << 20)
    path = write(tmp_path, "a.txt", "short\n" + "x" * (1 << 21))
    assert f"{path}:2: the line is longer than 1 MiB" in fault(path)


def test_parquet_keeps_its_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the [hf] extra")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["1", "b"], "n": [1, None]}), tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert rows.rows == [{"text": "1", "n": 1}, {"text": "b", "n": None}]
    assert rows.places[1].endswith("a.parquet[1]")


def test_a_cut_parquet_file_is_refused(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the [hf] extra")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["1"] * 100}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    path = write(tmp_path, "b.parquet", whole[: len(whole) // 2])
    assert "not a whole Parquet file" in fault(path)


def test_limit_reads_no_further(tmp_path):
    path = write(tmp_path, "a.jsonl", PAIR * 3 + "broken\n")
    assert len(read_rows(path, limit=3)) == 3
    assert "a.jsonl:4" in fault(path, limit=4)


CHARACTERS = st.characters(codec="utf-8")
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(CHARACTERS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(CHARACTERS), inner),
    max_leaves=8,
)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1))
def test_csv_that_python_writes_comes_back(tmp_path_factory, rows):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["a", "b"], *rows])
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", buffer.getvalue())
    assert read_rows(path).rows == [{"a": a, "b": b} for a, b in rows]


@given(value=st.dictionaries(st.text(CHARACTERS), VALUE), ascii=st.booleans())
def test_jsonl_that_python_writes_comes_back(tmp_path_factory, value, ascii):
    path = write(tmp_path_factory.mktemp("jsonl"), "a.jsonl", json.dumps(value, ensure_ascii=ascii))
    assert read_rows(path).rows == [value]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".parquet"])
@given(content=st.binary(max_size=200))
@example(content=b"[" * 100_000)
@example(content=b'{"a":' * 100_000)
@example(content=b'{"a": ' + b"9" * 5000 + b"}")
@example(content=b"\x1f\x8b\x08\x00")
def test_any_bytes_give_rows_or_a_data_error(tmp_path_factory, suffix, content):
    path = write(tmp_path_factory.mktemp("fuzz"), "a" + suffix, content)
    try:
        rows = read_rows(path, on_bad_row="skip", report=lambda _: None)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(row, dict) for row in rows.rows)


# --- what is refused, and how
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "the file is empty (0 bytes)"),
        ("a.jsonl", "\n \n", "there are no rows"),
        ("a.csv", "text,label\n", "there are no rows"),
        ("a.txt", "\n\n", "there are no rows"),
        ("a.jsonl", PAIR + '{"prompt": "1+', "a.jsonl:2:12: the row stops in the middle"),
        ("a.jsonl", PAIR + '{"prompt": "1",', "a.jsonl:2:16: the row stops in the middle"),
        ("a.jsonl", PAIR + "{'prompt': 1}", "a.jsonl:2:2: not JSON"),
        ("a.jsonl", '{"a": "x" "b": 1}', "a.jsonl:1:11: not JSON: Expecting ',' delimiter"),
        ("a.jsonl", PAIR.strip() + " " + PAIR, "a.jsonl:1:39: not JSON: Extra data"),
        ("a.jsonl", '{"a": "x\ty"}', "a.jsonl:1:9: not JSON: Invalid control character"),
        ("a.jsonl", '{"é": "a"}\n{"é": "a\\x"}', "a.jsonl:2:9: not JSON: Invalid \\escape"),
        ("a.jsonl", "[1, 2]\n", "a.jsonl:1: a row must be an object"),
        ("a.jsonl", '"text"\n', "a.jsonl:1: a row must be an object"),
        ("a.jsonl", '{"a": "NaN", "b": NaN}', "a.jsonl:1:19: NaN is no JSON number"),
        ("a.jsonl", '{"b": -Infinity}', "a.jsonl:1:7: -Infinity is no JSON number"),
        ("a.jsonl", '{"b": 1e999}', "a.jsonl:1:7: 1e999 is no JSON number"),
        ("a.jsonl", '{"b": ' + "9" * 5000 + "}", "a.jsonl:1: not JSON that can be read"),
        ("a.jsonl", '{"a": {"b": 1}, "b": 2, "a": 3}', "a.jsonl:1:25: the name 'a' stands twice"),
        ("a.jsonl", '{"a": [{"b": 1}, {"b": 1, "b": 2}]}', "a.jsonl:1:27: the name 'b' stands twice"),
        ("a.jsonl", '{"a":' * 5000 + "1" + "}" * 5000, "a.jsonl:1: the row is nested too deeply"),
        ("a.jsonl", '{"a": "x", "b": "\\ud800!"}', "a.jsonl:1:18: \\ud800 is half of a character"),
        ("a.jsonl", '{"\\uDFFF": 1}', "\\udfff is half of a character"),
        ("a.jsonl", b'{"a": "caf\xe9"}\n', "a.jsonl:1:11: byte 0xe9 is not UTF-8"),
        ("a.txt", b"ok\n\xc3\xa9\xe9\n", "a.txt:2:2: byte 0xe9 is not UTF-8"),
        ("a.jsonl", PAIR.encode("utf-16"), "a.jsonl:1:1: it starts as UTF-16"),
        ("a.txt", "a\0b\n", "a.txt:1:2: there is a NUL byte"),
        ("a.txt", "hi\n".encode("utf-16-be"), "a.txt:1:1: there is a NUL byte"),
        ("a.csv", "a,b\n1,2\n1\n", "a.csv:3: the row has 1 fields and the header 2"),
        ("a.csv", "a,b\n1,2,3\n", "a.csv:2: the row has 3 fields and the header 2"),
        ("a.csv", 'a,b\n1,2\n3,"open\n5,6\n', "a.csv:3: a quoted field opens here"),
        ("a.csv", 'a,b\n"x"y,2\n', "a.csv:2: the quotes do not fit"),
        ("a.csv", 'a,b\nx,"y\xe9\n'.encode("latin1"), "a.csv:2"),
        ("a.csv", b"a,b\n1,2\nx,\xe9\n", "a.csv:3:3: byte 0xe9 is not UTF-8"),
        ("a.csv", b"a,\xe9\n1,2\n", "a.csv:1:3: byte 0xe9 is not UTF-8"),
        ("a.csv", "a,b,a\n1,2,3\n", "a.csv:1: the header has 'a' twice"),
        ("a.tsv", "a\tb\n1 2\n", "a.tsv:2: the row has 1 fields and the header 2"),
        ("a.json", '[{"a": 1},\n {"a": 2,}]', "a.json:2:10: not JSON"),
        ("a.json", '[{"a": 1},\n {"a"', "a.json:2:6: the row stops in the middle"),
        ("a.json", "[1]", "a.json[0]: a row must be an object"),
        ("a.json", '"a"', "a.json:1:1: a .json file must hold a list"),
        (
            "a.jsonl.gz",
            gzip.compress(PAIR.encode() * 5000, mtime=0)[:60],
            "the gzip stream is damaged after line",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(PAIR.encode() * 9, mtime=0)[:-8] + b"12345678",
            "the gzip stream is damaged",
        ),
        ("a.jsonl.gz", PAIR, "named .gz but is not gzipped"),
    ],
)
def test_a_fault_names_its_place(tmp_path, name, content, said):
    path = write(tmp_path, name, content)
    message = fault(path)
    assert said in message
    assert message.startswith(str(path)) and "\n" not in message


@pytest.mark.parametrize(("name", "said"), [("missing.jsonl", "does not exist"), ("", "is a folder")])
def test_a_path_without_a_file(tmp_path, name, said):
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    assert said in fault(tmp_path / name if name else folder)


def test_an_unknown_kind_of_file_names_the_known(tmp_path):
    with pytest.raises(UsageError, match=r"a data file ends in \.jsonl"):
        read_rows(write(tmp_path, "a.xlsx", "x"))


def test_an_unreadable_file(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jsonl", PAIR)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lineal.train.formats.open", refuse, raising=False)
    assert "cannot be read (Permission denied)" in fault(path)


# --- rows that are left out
# -------------------------------------------------------------------------------------

MIXED = PAIR + "broken\n" + '{"prompt": 1}\n'.replace("1", '"\\ud800"') + PAIR + "[]\n"


def test_skip_counts_and_says_how_many(tmp_path):
    said: list[str] = []
    path = write(tmp_path, "a.jsonl", MIXED)
    rows = read_rows(path, on_bad_row="skip", report=said.append)
    assert (len(rows), rows.skipped) == (2, 3)
    assert rows.places == [f"{path}:1", f"{path}:4"]
    assert said == [f"{path}: 3 of 5 rows left out."]


def test_warn_names_each_up_to_a_few(tmp_path):
    said: list[str] = []
    path = write(tmp_path, "a.jsonl", PAIR + "broken\n" * 9)
    rows = read_rows(path, on_bad_row="warn", report=said.append)
    assert rows.skipped == 9
    assert [line.split(": ")[0] for line in said[:5]] == [f"{path}:{n}:1" for n in range(2, 7)]
    assert said[5:] == [f"{path}: 9 of 10 rows left out."]


def test_skipping_every_row_is_an_error(tmp_path):
    path = write(tmp_path, "a.jsonl", "broken\n" * 3)
    message = fault(path, on_bad_row="skip")
    assert "none of its 3 rows can be used" in message and f"{path}:1:1" in message


def test_error_mentions_the_way_out_and_a_wrong_policy_is_refused(tmp_path):
    path = write(tmp_path, "a.jsonl", "broken\n")
    assert "--on-bad-row skip" in fault(path)
    with pytest.raises(UsageError, match="not one of error, skip, warn"):
        read_rows(path, on_bad_row="ignore")


def test_warnings_go_to_standard_error_without_control_codes(tmp_path, capsys):
    read_rows(write(tmp_path, "a.csv", "a\n1\n\x1b[31mred,2\n"), on_bad_row="warn")
    said = capsys.readouterr().err
    assert "a.csv:3" in said and "\x1b" not in said


def test_bad_rows_of_csv_do_not_shift_the_next(tmp_path):
    path = write(tmp_path, "a.csv", b'a,b\n1,2\n\xe9,2\n"x"y,2\n"p\nq",4\n7\n8,9\n')
    rows = read_rows(path, on_bad_row="skip", report=lambda _: None)
    assert rows.rows == [{"a": "1", "b": "2"}, {"a": "p\nq", "b": "4"}, {"a": "8", "b": "9"}]
    assert rows.places == [f"{path}:{n}" for n in (2, 5, 8)] and rows.skipped == 3


# --- columns
# ----------------------------------------------------------------------------------------------------


def rows_of(*rows: dict) -> Rows:
    return Rows(list(rows), [f"a.jsonl:{n}" for n in range(1, len(rows) + 1)], "a.jsonl")


def test_columns_are_renamed_and_the_rest_kept():
    rows = rows_of({"question": "q", "answer": "a", "level": 3})
    mapped = map_fields(rows, {"prompt": "question", "completion": "answer"})
    assert mapped.rows == [{"level": 3, "prompt": "q", "completion": "a"}]
    assert rows.rows[0]["question"] == "q", "the rows given are left as they were"


def test_columns_may_swap_names():
    mapped = map_fields(rows_of({"a": "1", "b": "2"}), {"a": "b", "b": "a"})
    assert mapped.rows == [{"a": "2", "b": "1"}]


def test_chat_messages_are_a_prompt():
    chat = [{"role": "user", "content": "hi"}]
    assert map_fields(rows_of({"messages": chat}), {"prompt": "messages"}).rows == [{"prompt": chat}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompts": "x", "id": 1},
            "a.jsonl:1: there is no field 'prompt'; the row has 'prompts', 'id'; did",
        ),
        ({"prompts": "x"}, "did you mean --prompt-field prompts?"),
        ({"question": "x"}, "the row has 'question'; name it with --prompt-field."),
        ({}, "the row has none"),
        ({"prompt": 3}, "field 'prompt' is a int, not text"),
        ({"prompt": None}, "field 'prompt' is empty, not text"),
        ({"prompt": ["a"]}, "field 'prompt' is a list, not text"),
        ({"prompt": []}, "field 'prompt' is a list, not text"),
    ],
)
def test_a_missing_or_wrong_field_is_named(row, said):
    with pytest.raises(DataError) as caught:
        map_fields(rows_of(row), {"prompt": "prompt"})
    assert said in str(caught.value)


def test_field_names_of_the_file_cannot_control_the_terminal():
    with pytest.raises(DataError) as caught:
        map_fields(rows_of({"\x1b[2Jpromptx": "x"}), {"prompt": "prompt"})
    assert "\x1b" not in str(caught.value)


def test_rows_without_the_field_can_be_left_out():
    rows = rows_of({"prompt": "a"}, {"text": "b"}, {"prompt": 1}, {"prompt": "c"})
    kept = map_fields(rows, {"prompt": "prompt"}, on_bad_row="skip", report=lambda _: None)
    assert [r["prompt"] for r in kept.rows] == ["a", "c"]
    assert kept.skipped == 2 and kept.places == ["a.jsonl:1", "a.jsonl:4"]


# --- documents
# --------------------------------------------------------------------------------------------------


def test_a_text_file_is_one_document_as_it_stands(tmp_path):
    text = "To be,\r\n\r\nor not\tto be \u2028 né"
    assert read_documents(write(tmp_path, "a.txt", text)) == [text.replace("\r\n", "\n")]
    assert read_documents(write(tmp_path, "b.txt.gz", gzip.compress(b"a\nb\n", mtime=0))) == ["a\nb\n"]


def test_other_files_give_one_document_per_row(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"body": "x\\ny"}\n{"body": "z"}\n')
    assert read_documents(path, text_field="body") == ["x\ny", "z"]


@pytest.mark.parametrize("content", [b" \n", b"ok\n\xff\n"])
def test_a_text_file_without_text_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"a\.txt"):
        read_documents(write(tmp_path, "a.txt", content))


def test_names_of_data():
    assert all(map(is_data_file, ["a.jsonl", "b.CSV.gz", "hf:openai/gsm8k", "c.parquet"]))
    assert not any(map(is_data_file, ["a", "model.safetensors", "gsm8k"]))


# --- the hub
# ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        if name == "no/where":
            raise ConnectionError("Couldn't reach no/where\nand more")
        return [{"question": "1+1"}, {"question": "2+2"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:openai/gsm8k", ("openai/gsm8k", None, "train")),
        ("hf:openai/gsm8k/main", ("openai/gsm8k", "main", "train")),
        ("hf:openai/gsm8k/main:test", ("openai/gsm8k", "main", "test")),
        ("hf:imdb:train[:10%]", ("imdb", None, "train[:10%]")),
    ],
)
def test_hub_names(hub, source, call):
    rows = read_rows(source)
    assert hub == [call]
    assert rows.rows[1] == {"question": "2+2"} and rows.places[1] == f"{source}[1]"


def test_hub_faults(hub, monkeypatch):
    with pytest.raises(DataError, match=r"could not be fetched \(ConnectionError: Couldn't reach no/where\)"):
        read_rows("hf:no/where")
    with pytest.raises(UsageError, match="write hf:OWNER/NAME"):
        read_rows("hf:a/b/c/d e")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"needs the \[hf\] extra"):
        read_rows("hf:openai/gsm8k")


# --- real files
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "fields"),
    [
        ("arithmetic/simple_arithmetic_nospaces.jsonl", 1000, {"context", "continuation"}),
        ("gsm8k/train.jsonl.gz", 7473, {"question", "answer"}),
        ("countdown/countdown_3to4_4000.jsonl.gz", 4000, {"nums", "target", "solution"}),
        (
            "instruction_prefs/instruction-data-with-preference.json",
            1100,
            {"instruction", "input", "output", "rejected", "chosen"},
        ),
        ("mrpc/msr-para-val.tsv", 500, {"Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"}),
    ],
)
def test_public_data_is_read_whole(data, name, count, fields):
    path = next((p for p in (data / name, data / (name + ".gz")) if p.exists()), None)
    if path is None:
        pytest.skip(f"{name} is not in LINEAL_TEST_DATA")
    rows = read_rows(path)
    assert (len(rows), rows.skipped) == (count, 0)
    assert all(set(row) == fields for row in rows.rows)


def test_public_text_is_one_document(data):
    path = data / "tinyshakespeare" / "input.txt"
    (document,) = read_documents(path)
    assert document == path.read_text() and len(document) == 1_115_394
