"""Fingerprints in the cache are those of the code as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from initbench.components.init_scheme import INITS
from initbench.runner import fingerprint_cache
from initbench.runner.code_fingerprint import code_fingerprint
from initbench.runner.fingerprint_cache import cached_code_fingerprint


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fingerprint_cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("initbench.registry._user_entries", set())  # other tests add entries
    return tmp_path / "cache" / "fingerprints.json"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets whose fingerprint was computed."""
    datasets: list[str] = []

    def compute(config: Any, dataset: str) -> str:
        datasets.append(dataset)
        return code_fingerprint(config, dataset)

    monkeypatch.setattr(fingerprint_cache, "code_fingerprint", compute)
    return datasets


def test_a_fingerprint_is_computed_once(make_config: Any, file: Path, computed: list[str]) -> None:
    config, other = make_config(), make_config(model={"activation": "tanh"})
    expected = [code_fingerprint(config, "digits"), code_fingerprint(other, "digits")]
    assert expected[0] != expected[1]
    for _ in range(2):
        assert [cached_code_fingerprint(c, "digits") for c in (config, other)] == expected
    assert computed == ["digits", "digits"]
    assert cached_code_fingerprint(config, "mnist") == code_fingerprint(config, "mnist") != expected[0]
    assert len(json.loads(file.read_text())["fingerprints"]) == 3


def test_values_that_change_no_code_share_a_fingerprint(
    make_config: Any, file: Path, computed: list[str]
) -> None:
    assert cached_code_fingerprint(make_config(train={"lr": 0.1}), "digits") == cached_code_fingerprint(
        make_config(train={"lr": 0.2}), "digits"
    )
    assert computed == ["digits"]


def test_changed_code_is_read_again(
    make_config: Any, file: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_code_fingerprint(make_config(), "digits")
    monkeypatch.setattr(fingerprint_cache, "package_digest", lambda: "other")
    cached_code_fingerprint(make_config(), "digits")
    assert computed == ["digits", "digits"]
    assert json.loads(file.read_text())["code"] == "other"


def test_the_digest_covers_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_cache, "PACKAGE", tmp_path)
    digests = []
    for name, text in [("a.py", "1"), ("a.py", "2"), ("below/b.py", "2"), ("below/c.py", "")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        digests.append(fingerprint_cache.package_digest.__wrapped__())
    assert len(set(digests)) == 4


@pytest.mark.parametrize("content", ["", "[]", "{", '{"code": 1}', '{"code": "CODE", "fingerprints": []}'])
def test_a_damaged_cache_is_ignored(make_config: Any, file: Path, computed: list[str], content: str) -> None:
    file.parent.mkdir()
    file.write_text(content.replace("CODE", fingerprint_cache.package_digest()))
    expected = code_fingerprint(make_config(), "digits")
    assert cached_code_fingerprint(make_config(), "digits") == expected
    assert cached_code_fingerprint(make_config(), "digits") == expected
    assert computed == ["digits"]


def test_a_cache_that_cannot_be_written_is_ignored(make_config: Any, file: Path, computed: list[str]) -> None:
    file.parent.write_text("in the way")
    assert cached_code_fingerprint(make_config(), "digits") == code_fingerprint(make_config(), "digits")


def test_code_of_the_user_is_always_read(
    make_config: Any, file: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = INITS["kaiming_normal"]
    monkeypatch.setattr("initbench.registry._user_entries", {("init scheme", entry.name)})
    for _ in range(2):
        cached_code_fingerprint(make_config(), "digits")
    assert computed == ["digits", "digits"]
    assert not file.exists()
