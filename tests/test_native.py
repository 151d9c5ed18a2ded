"""Compiled cores: which is taken, when none is, and that a change of the source is never passed over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineal import native

ROOT = Path(__file__).parent.parent
CORE = "lineal.generate.rows"
built = pytest.mark.skipif(bool(native.why_not(CORE)), reason=f"not compiled: {native.why_not(CORE)}")


@built
def test_of_several_forms_the_best_that_the_processor_has_is_taken(monkeypatch) -> None:
    names = {path.name.split(".")[0] for path in native.BUILT.glob("rows*")}
    best = next(
        level for level in (*native.instruction_sets(), "") if f"rows__{level}" in names or level == ""
    )
    module = native.compiled(CORE)
    assert module is not None and module.__name__.endswith(f"rows__{best}" if best else "rows")
    monkeypatch.setattr(native, "instruction_sets", lambda: ("v3",))
    if "rows__v3" in names:
        assert getattr(native.compiled(CORE), "__name__", "").endswith("rows__v3")


def test_instruction_sets_are_those_of_a_level_or_none() -> None:
    assert native.instruction_sets() in ((), ("v3",), ("v4", "v3"))


@built
def test_the_environment_can_switch_compiled_cores_off(monkeypatch) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.compiled(CORE) is None
    assert native.SWITCH in native.why_not(CORE)


def test_without_anything_built_the_reason_names_the_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(native, "BUILT", tmp_path)
    assert native.compiled(CORE) is None
    assert "compiler" in native.why_not(CORE)


def test_a_source_newer_than_its_compiled_form_is_not_passed_over(monkeypatch, tmp_path) -> None:
    (tmp_path / "sources.json").write_text(json.dumps({CORE: {"source": "an older hash", "how": ""}}))
    monkeypatch.setattr(native, "BUILT", tmp_path)
    assert "changed since it was compiled" in native.why_not(CORE)


@pytest.mark.serial
@pytest.mark.parametrize("compiler", ["/bin/false", pytest.param(None, marks=pytest.mark.slow)])
def test_the_package_builds_with_and_without_a_compiler(tmp_path, compiler: str | None) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("hatchling")
    # A copy: building in place would replace the compiled cores that other tests use.
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=False) if (
        ROOT / ".git"
    ).exists() else pytest.skip("no git checkout")
    for name in ("hatch_build.py", "pyproject.toml"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    environment = {**os.environ, **({"CC": compiler} if compiler else {})}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-v",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            ".",
        ],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    pure = wheel.name.endswith("py3-none-any.whl")
    assert pure == ("no core was compiled" in done.stdout + done.stderr)
    if compiler:
        assert pure
