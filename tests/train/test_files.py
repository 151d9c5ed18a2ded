"""The file layer: complete writes, replacement in one step, lines that are never half there."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress

import pytest

from lineal.train import files


def test_writing_reports_what_was_written(tmp_path):
    written = files.write_file(tmp_path / "a", [b"one", memoryview(b"two"), b""])
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert (
        written == files.Written(6, hashlib.sha256(b"onetwo").hexdigest()) == files.hash_file(tmp_path / "a")
    )


def test_a_file_is_replaced_in_one_step(tmp_path, faulty):
    path = tmp_path / "config.json"
    files.replace_file(path, b"old")
    for fail_at in range(1, 50):
        with faulty(fail_at=fail_at, error=errno.ENOSPC) as fake, suppress(OSError):
            files.replace_file(path, b"new")
        assert path.read_bytes() in (b"old", b"new")
        if fake.count < fail_at:
            break
        assert not (tmp_path / "config.json.tmp").exists()
        files.replace_file(path, b"old")
    assert fail_at > 4 and path.read_bytes() == b"new"


def test_folders_are_made_with_their_parents_and_synced(tmp_path, faulty):
    with faulty() as fake:
        files.make_folder(tmp_path / "a" / "b" / "c")
        files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert [call for call in fake.log if call[0] != "open"] == [
        ("mkdir", "a"),
        ("fsync", tmp_path.name),
        ("mkdir", "b"),
        ("fsync", "a"),
        ("mkdir", "c"),
        ("fsync", "b"),
    ]


def test_a_half_removed_folder_has_another_name(tmp_path, monkeypatch):
    folder = tmp_path / "step-3"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")

    def killed(_path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["step-3.removed.tmp"]
    folder.mkdir()
    files.remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_a_tree_is_synced(tmp_path, faulty):
    (tmp_path / "a").mkdir()
    for name in ("x", "a/y"):
        (tmp_path / name).write_bytes(b"1")
    with faulty() as fake:
        files.sync_tree(tmp_path)
    assert {name for call, name in fake.log if call == "fsync"} == {"x", "y", "a", tmp_path.name}


def test_lines_are_added_at_the_end_and_cut(tmp_path):
    log = files.AppendFile(tmp_path / "log")
    log.append(b"one\n")
    log.append(b"two\n")
    assert log.length == 8
    log.sync()
    log.cut(100)
    assert log.length == 8, "cutting never makes a file longer"
    log.cut(4)
    log.append(b"three\n")
    log.close()
    log.close()
    again = files.AppendFile(tmp_path / "log")
    again.append(b"four\n")
    again.close()
    assert (tmp_path / "log").read_bytes() == b"one\nthree\nfour\n"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failed_line_leaves_no_half_line(tmp_path, faulty, error):
    log = files.AppendFile(tmp_path / "log")
    log.append(b"one\n")
    with faulty(fail_at=1, error=error), pytest.raises(OSError, match=os.strerror(error)):
        log.append(b"two is long enough to be cut\n")
    log.append(b"three\n")
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"
    log.close()


def test_short_writes_of_a_line_are_completed(tmp_path, faulty):
    log = files.AppendFile(tmp_path / "log")
    with faulty(short_writes=True):
        log.append(b"a line of some length\n")
    assert (tmp_path / "log").read_bytes() == b"a line of some length\n"
    log.close()
