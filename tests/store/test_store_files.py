"""Atomic files and strict JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initbench.store import files, strict_json
from initbench.store.store import Store

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def expected(value: object) -> object:
    """Return the value that a reader gets back."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items()}
    return [expected(item) for item in value] if isinstance(value, list | tuple) else value


@given(VALUES)
def test_any_value_comes_back(value: object) -> None:
    text = strict_json.dumps(value)
    assert "\n" not in text
    back = json.loads(text, parse_constant=lambda literal: pytest.fail(literal))
    assert back == strict_json.loads(text) == expected(value)
    assert strict_json.dumps(back) == text  # the order of keys and every digit


@given(st.floats())
def test_any_float_is_read_back_as_the_number_it_was(value: float) -> None:
    back = strict_json.parse_number(strict_json.loads(strict_json.dumps(value)))
    assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize("value", [None, True, "1.0", "nan", "inf", "", [], {}])
def test_what_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a number"):
        strict_json.parse_number(value)


def test_number_or_none() -> None:
    assert strict_json.parse_number_or_none(None) is None
    assert strict_json.parse_number_or_none("-Infinity") == -math.inf
    with pytest.raises(ValueError, match="not a number"):
        strict_json.parse_number_or_none("none")


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "{", ""])
def test_loads_is_strict(text: str) -> None:
    with pytest.raises(ValueError):
        strict_json.loads(text)


def test_a_key_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="key"):
        strict_json.dumps({math.nan: 1})


def test_a_snapshot_with_a_nan_is_written_in_milliseconds() -> None:
    layers = [{"mean": 0.1, "counts": [1.5] * 100} for _ in range(100)] + [math.nan]
    start = time.process_time()
    strict_json.dumps(layers)
    assert time.process_time() - start < 0.1


def test_write_atomic_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_atomic(path, "é")
    assert path.read_bytes() == "é".encode()
    files.write_atomic(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_synced_before_it_gets_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        log.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append("replace"), replace(a, b)))
    directory = tmp_path / "run.dir"
    directory.mkdir()
    files.write_atomic(directory / "a.json", "{}")
    assert log == ["sync .tmp", "replace", "sync .dir"]
    log.clear()
    files.append_line(directory / "a.jsonl", "1")
    files.append_line(directory / "a.jsonl", "2")
    assert log == []
    files.sync_file(directory / "a.jsonl")
    files.write_atomic(directory / "a.json", "{}", sync_name=False)
    assert log == ["sync .jsonl", "sync .tmp", "replace"]


def test_lines_are_read_back_without_an_incomplete_last_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    files.append_line(path, '"ä"')
    files.append_line(path, "2")
    with path.open("ab") as file:
        file.write("3ä".encode()[:-1])
    assert files.read_lines(path) == ['"ä"', "2"]


def test_a_line_cannot_hold_a_newline(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="newline"):
        files.append_line(tmp_path / "a.jsonl", "a\nb")
    assert not list(tmp_path.iterdir())


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_what_a_checkpoint_or_a_manifest_counts_on_is_synced_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        log.append(f"sync {path.name.lstrip('.').split('.json.')[0].split('.safetensors.')[0]}")
        fsync(descriptor)

    with Store(tmp_path).claim("r-s0-0123456789", {}, "") as run:
        monkeypatch.setattr(os, "fsync", logged_fsync)
        monkeypatch.setattr(os, "replace", lambda a, b: (log.append(f"name {Path(b).name}"), replace(a, b)))
        run.append_convergence({"step": 0})
        run.append_snapshot({"step": 0})
        assert log == []
        run.checkpoint(b"state")
        named = log.index("name checkpoint.safetensors")
        assert {"sync metrics.jsonl", "sync layers.jsonl", "sync checkpoint"} == set(log[:named])
        assert log[named + 1 :] == ["sync r-s0-0123456789"]
        log.clear()
        run.append_convergence({"step": 1})
        run.finish({}, b"weights")
        named = log.index("name manifest.json")
        before = log[: log.index("sync r-s0-0123456789")]
        assert {"sync metrics.jsonl", "sync weights", "sync run", "name run.json"} <= set(before)
        assert log.index("sync r-s0-0123456789") < named and log[-1] == "sync r-s0-0123456789"


JSON_TEXTS = (
    *(
        "[0.1, 1e-320, 123456789012345678, 5e22, 2.2250738585072011e-308]",
        '{"a": 1, "a": 2}',
        "-0",
        "[1e999]",
    ),
    *('"\\ud83d\\ude80"', "9" * 400, "[[]]", '{"": null, "ü": true}', " [1]\n"),
)


@pytest.mark.parametrize("text", JSON_TEXTS)
def test_json_is_read_as_by_the_standard_library(text: str) -> None:
    assert repr(strict_json.loads(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text", ["NaN", "[-Infinity]", "01", "[1,]", "", '"\x01"', "\ufeff1", '"\\ud800"', "9" * 5000]
)
def test_what_is_not_strict_json_is_rejected(text: str) -> None:
    with pytest.raises(ValueError):
        strict_json.loads(text)
