"""A checkpoint is whole or absent, comes back bit for bit, and any damage to it is noticed."""

from __future__ import annotations

import errno
import json
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lineal.errors import CheckpointError
from lineal.train.checkpoint import (
    DTYPES,
    load_checkpoint,
    load_newest,
    save_checkpoint,
    steps,
    tensor_chunks,
)

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def tensors_of(step: int) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(step)
    return {"weight": torch.randn(64, 33, generator=made), "count": torch.tensor(step)}


def save(folder: Path, step: int, **options) -> Path:
    return save_checkpoint(folder, step, tensors_of(step), {"step": step, "beta": 0.1 + step}, **options)


def assert_newest(folder: Path, step: int) -> list[str]:
    said: list[str] = []
    found = load_newest(folder, report=said.append)
    assert found is not None and found.step == step
    assert torch.equal(found.tensors["weight"], tensors_of(step)["weight"])
    assert found.state == {"step": step, "beta": 0.1 + step}
    return said


# --- what goes in comes out -------------------------------------------------------------------------------------


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(tmp_path, dtype):
    raw = torch.randint(
        0, 256, (24 * dtype.itemsize,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    full = raw.view(dtype) if dtype != torch.bool else raw > 99
    saved = {
        "full": full.reshape(2, 3, 4),
        "scalar": full[0],
        "empty": full[:0].reshape(0, 5),
        "turned": full.reshape(6, 4).T,
        "slice": full[3::2],
    }
    save_checkpoint(tmp_path, 1, saved, {})
    found = load_newest(tmp_path)
    assert found is not None and set(found.tensors) == set(saved)
    for name, tensor in saved.items():
        assert found.tensors[name].dtype == dtype and found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor), "nan payloads included"


def test_special_floats_and_parameters_come_back(tmp_path):
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 5e-324], dtype=torch.float64)
    weight = torch.nn.Parameter(torch.randn(3))
    save_checkpoint(tmp_path, 1, {"odd": odd, "weight": weight, "tied": weight}, {})
    found = load_newest(tmp_path)
    assert found is not None and bits(found.tensors["odd"]) == bits(odd)
    assert torch.equal(found.tensors["tied"], weight) and not found.tensors["weight"].requires_grad


def test_the_file_is_what_others_call_safetensors(tmp_path):
    path = save(tmp_path, 3)
    others = load_file(path / "tensors.safetensors")
    assert torch.equal(others["weight"], tensors_of(3)["weight"])
    assert int.from_bytes((path / "tensors.safetensors").read_bytes()[:8], "little") % 8 == 0, "aligned"
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(state=st.dictionaries(st.text(), JSON))
def test_state_comes_back_exactly(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    save_checkpoint(folder, 0, {}, state)
    found = load_newest(folder)
    assert found is not None and found.state == state and found.step == 0


def test_a_state_that_is_not_finite_comes_back_as_standard_json(tmp_path):
    path = save_checkpoint(tmp_path, 1, {}, {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}})
    found = load_newest(tmp_path)
    assert found is not None and math.isnan(found.state["a"][0])
    assert found.state["a"][1] == [math.inf, 1.5] and found.state["b"] == {"c": -math.inf}
    json.loads((path / "state.json").read_bytes(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {1: 2}}, r"state\['a'\] has the key 1, which would not come back"),
        ({"a": [{"b": {None: 2}}]}, r"state\['a'\]\[0\]\['b'\] has the key None"),
        ({"a": {"$float": "nan"}}, r"has the key '\$float'"),
        ({"a": torch.ones(1)}, "not JSON serializable"),
    ],
)
def test_state_that_would_change_is_refused(tmp_path, state, said):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(tmp_path, 2, {}, state)
    assert_newest(tmp_path, 1)


def test_a_tensor_that_cannot_be_held_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"'spin' is torch.complex64"):
        save_checkpoint(tmp_path, 1, {"spin": torch.ones(1, dtype=torch.complex64)}, {})


def test_no_checkpoint_is_none(tmp_path):
    assert load_newest(tmp_path / "absent") is None
    assert load_newest(tmp_path) is None
    (tmp_path / "step-5.tmp").mkdir()
    (tmp_path / "notes").mkdir()
    assert load_newest(tmp_path) is None, "an orphan is no checkpoint"


def test_loaded_tensors_do_not_hang_on_the_file(tmp_path):
    path = save(tmp_path, 1)
    found = load_checkpoint(path)
    (path / "tensors.safetensors").write_bytes(b"")
    assert torch.equal(found.tensors["weight"], tensors_of(1)["weight"])
    found.tensors["weight"].zero_()


# --- which are kept ---------------------------------------------------------------------------------------------


def test_the_last_and_every_mth_are_kept(tmp_path):
    for step in range(0, 101, 10):
        save(tmp_path, step, keep_last=2, keep_every=40)
    assert steps(tmp_path) == [0, 40, 80, 90, 100]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"step-{s}" for s in (0, 40, 80, 90, 100))


def test_at_least_the_newest_is_kept(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, keep_last=0)
    assert steps(tmp_path) == [2]


def test_damaged_later_ones_do_not_push_out_good_ones(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, keep_last=3)
    for step in (20, 30):
        (tmp_path / f"step-{step}" / "state.json").unlink()
    save(tmp_path, 15, keep_last=2)
    assert_newest(tmp_path, 15)
    assert 10 in steps(tmp_path)
    save(tmp_path, 20, keep_last=2)
    assert assert_newest(tmp_path, 20) != [], "30 is still there, still damaged, still named"


def test_a_checkpoint_replaces_one_of_its_step(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step-5" / "tensors.safetensors").write_bytes(b"damaged")
    save(tmp_path, 5)
    assert assert_newest(tmp_path, 5) == []
    assert [p.name for p in tmp_path.iterdir()] == ["step-5"]


def test_orphans_are_swept_and_a_failed_sweep_is_no_failure(tmp_path, monkeypatch, capsys):
    (tmp_path / "step-3.tmp").mkdir()
    (tmp_path / "step-3.tmp" / "tensors.safetensors").write_bytes(b"half")
    save(tmp_path, 4, keep_last=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-4"]

    def refuse(*_args, **_options):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    save(tmp_path, 5, keep_last=1)
    assert "could not be deleted (Permission denied); training goes on" in capsys.readouterr().err
    assert_newest(tmp_path, 5)


# --- faults while saving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT], ids=errno.errorcode.get
)
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_a_fault_at_any_call_leaves_a_checkpoint(tmp_path, faulty, error, forever, again):
    """Fail the 1st, 2nd, ... call of saving until a save gets through; each time the newest must load."""
    first, second = 10, 10 if again else 20
    for fail_at in range(1, 200):
        folder = tmp_path / str(fail_at)
        save(folder, first)
        with faulty(fail_at=fail_at, error=error, forever=forever) as fake:
            try:
                save(folder, second)
                failed = False
            except CheckpointError as caught:
                failed = True
                assert "earlier checkpoints are untouched" in str(caught) and "\n" not in str(caught)
        said: list[str] = []
        found = load_newest(folder, report=said.append)
        assert found is not None and said == [], "what is there under its name is whole"
        # A fault after the rename (the last sync) is reported, and the whole checkpoint is there all the same.
        renamed = ("rename", f"step-{second}.tmp") in fake.log[: fail_at - 1]
        assert found.step == (second if renamed else first)
        assert renamed or failed
        save(folder, 30, keep_last=1)
        assert_newest(folder, 30)
        assert [p.name for p in folder.iterdir()] == ["step-30"], "and nothing is left behind"
        if fake.count < fail_at:
            break
    else:
        pytest.fail("saving never got through")
    assert fail_at > 12, "the faults reached every write, fsync and rename"


def test_short_writes_lose_nothing(tmp_path, faulty):
    with faulty(short_writes=True):
        save(tmp_path, 1)
    assert_newest(tmp_path, 1)


def test_everything_is_synced_before_it_is_named(tmp_path, faulty):
    """File contents, then the manifest, then the folder's names, then the rename, then the parent's names."""
    save(tmp_path, 1)
    with faulty() as fake:
        save(tmp_path, 2)
    order = [call for call in fake.log if call[0] in ("mkdir", "fsync", "rename")]
    assert order[:7] == [
        ("mkdir", "step-2.tmp"),
        ("fsync", tmp_path.name),
        ("fsync", "tensors.safetensors"),
        ("fsync", "state.json"),
        ("fsync", "manifest.json"),
        ("fsync", "step-2.tmp"),
        ("rename", "step-2.tmp"),
    ]
    assert order[7] == ("fsync", tmp_path.name)
    last = {name: max(i for i, call in enumerate(fake.log) if call == ("write", name)) for name in FILES}
    for name in FILES:
        assert fake.log.index(("fsync", name)) > last[name]
    assert fake.log.index(("open", "manifest.json")) > fake.log.index(("fsync", "state.json"))


def test_a_file_size_limit_of_the_system_is_survived(tmp_path):
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[0][1]))
        with pytest.raises(CheckpointError, match=r"could not be written \(File too large\)"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert_newest(tmp_path, 1)
    assert not list(tmp_path.glob("*.tmp")), "its space is free again"


FULL_DISK = """
    import sys, torch
    from pathlib import Path
    from lineal.errors import CheckpointError
    from lineal.train.checkpoint import load_newest, save_checkpoint
    folder = Path(sys.argv[1]) / "checkpoints"
    save_checkpoint(folder, 1, {"w": torch.ones(100_000)}, {})
    try:
        save_checkpoint(folder, 2, {"w": torch.ones(200_000)}, {})
    except CheckpointError as error:
        print(error)
    print("newest", load_newest(folder).step)
    save_checkpoint(folder, 3, {"w": torch.ones(100_000)}, {}, keep_last=1)
    print("newest", load_newest(folder).step)
"""


@pytest.mark.serial
def test_a_really_full_disk_is_survived(tmp_path):
    """A tmpfs of 1 MiB in a mount namespace of its own."""
    mount, inside = f"mount -t tmpfs -o size=1m none {tmp_path}", ["unshare", "-Urm", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("no user namespaces here: a small disk cannot be made")
    script = ["sh", sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    command = [*inside, f'{mount} && exec "$@"', *script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "could not be written (No space left on device)" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["newest 1", "newest 3"]


def test_an_interrupt_while_saving_cleans_up(tmp_path, faulty):
    save(tmp_path, 1)

    def interrupted(*_args):
        raise KeyboardInterrupt

    with faulty() as fake, pytest.raises(KeyboardInterrupt):
        fake.fsync = interrupted
        save(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


# --- damage afterwards ------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """A good checkpoint at 10 and one at 20 to be damaged."""
    save(tmp_path, 10)
    save(tmp_path, 20)
    return tmp_path


def damaged(folder: Path, file: str) -> None:
    """The damage is named with its file, and the one before is used."""
    said = assert_newest(folder, 10)
    assert (
        len(said) == 1 and "step-20" in said[0] and file in said[0] and "continuing from step 10" in said[0]
    )


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("part", [0, 1, 63, 64 * 8 + 5])
def test_truncation_is_noticed(pair, file, part):
    path = pair / "step-20" / file
    whole = path.read_bytes()
    path.write_bytes(whole[: min(len(whole) - 1, part * len(whole) // 1024)])
    damaged(pair, file)


@pytest.mark.parametrize("file", FILES)
def test_every_bit_flip_is_noticed(pair, file):
    path, chance = pair / "step-20" / file, random.Random(file)
    whole = path.read_bytes()
    for place in (
        range(len(whole)) if len(whole) < 800 else [chance.randrange(len(whole)) for _ in range(200)]
    ):
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=file):
            load_checkpoint(path.parent)
    path.write_bytes(whole)
    assert load_checkpoint(path.parent).step == 20


@pytest.mark.parametrize("file", FILES)
def test_a_zeroed_page_longer_file_and_a_missing_one_are_noticed(pair, file):
    path = pair / "step-20" / file
    whole = path.read_bytes()
    start = len(whole) // 2 // 4096 * 4096
    end = min(len(whole), start + 4096)
    path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    damaged(pair, file)
    path.write_bytes(whole + b" ")
    damaged(pair, file)
    path.unlink()
    damaged(pair, file)
    path.mkdir()
    damaged(pair, file)


@pytest.mark.parametrize("file", FILES)
def test_files_swapped_between_steps_are_noticed(pair, file):
    one, two = pair / "step-10" / file, pair / "step-20" / file
    content = one.read_bytes(), two.read_bytes()
    one.write_bytes(content[1])
    two.write_bytes(content[0])
    with pytest.raises(CheckpointError, match=r"no checkpoint of 2 in .* is whole"):
        load_newest(pair)


def test_a_folder_under_another_step_is_noticed(pair):
    shutil.rmtree(pair / "step-20")
    (pair / "step-10").rename(pair / "step-20")
    with pytest.raises(CheckpointError, match="it holds step 10, so the folder was renamed"):
        load_newest(pair)


def test_an_unreadable_file_is_passed_over(pair, monkeypatch):
    real = open

    def refuse(path, *args, **options):
        if "step-20" in str(path) and str(path).endswith("tensors.safetensors"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr("lineal.train.files.open", refuse, raising=False)
    damaged(pair, "tensors.safetensors cannot be read (Input/output error)")


def test_all_damaged_is_an_error_and_never_a_fresh_start(pair):
    for step in (10, 20):
        (pair / f"step-{step}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="Restore one from a copy, or delete"):
        load_newest(pair)


def test_the_default_report_is_one_line_on_standard_error(pair, capsys):
    (pair / "step-20" / "state.json").write_bytes(b"{}")
    load_newest(pair)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and said.count("\n") == 1 and "state.json" in said


def rewritten(folder: Path, **changes) -> None:
    """A manifest that is whole but says something else, as only a program could make it."""
    from lineal.train import manifest

    body = json.loads((folder / "manifest.json").read_bytes())
    del body["sha256"]
    body |= changes
    (folder / "manifest.json").write_bytes(manifest._text({**body, "sha256": manifest._digest(body)}))


def test_a_manifest_cannot_name_files_elsewhere(pair):
    (pair / "outside").write_bytes(b"x")
    rewritten(pair / "step-20", files={"../outside": {"bytes": 1, "sha256": "00"}})
    damaged(pair, "no plain file name")


def test_a_newer_format_is_told_apart_from_damage(pair):
    rewritten(pair / "step-20", format=2)
    damaged(pair, "format 2 comes from a newer lineal")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"sha256": 1}', b"[" * 9999, b"\xff"])
def test_nonsense_for_a_manifest_is_damage(pair, content):
    (pair / "step-20" / "manifest.json").write_bytes(content)
    damaged(pair, "manifest.json is not as it was written")


def test_a_killed_replacement_still_has_the_old_one(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step-5").rename(tmp_path / "step-5.replaced")
    assert_newest(tmp_path, 5)
    save(tmp_path, 6, keep_last=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-6"]


def test_chunks_hold_one_tensor_at_a_time():
    sizes = [
        len(chunk) for chunk in tensor_chunks({"a": torch.ones(10), "b": torch.ones(3, dtype=torch.int8)})
    ]
    assert sizes[1:] == [40, 3]
