"""`initbench data ls | fetch | verify`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from initbench.cli.data import app
from initbench.data.dataset import DATASETS, UnavailableError
from initbench.data.download import checksums
from initbench.errors import DataError, UnknownNameError, UsageError


@pytest.fixture
def call(source, published_mnist):
    def run(*arguments: str):
        result = CliRunner().invoke(app, [*arguments, "--data-dir", str(source.root)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            result.exception.stdout = result.stdout
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def states(document: str) -> dict[str, str]:
    parsed = json.loads(document)
    assert parsed["schema"] == "initbench.data/1"
    return {row["name"]: row["status"] for row in parsed["sets"]}


def test_ls_names_every_set_and_asks_no_mirror(call, mirror):
    found = states(call("ls", "--json").stdout)
    assert list(found) == DATASETS.names()
    assert found["mnist"] == "missing"
    assert found["digits"] == "ok"
    assert found["npz"] == "yours"
    assert not mirror.probes


def test_ls_says_where_and_how_large(call, source, idx_files, put_on_disk):
    folder = put_on_disk(source.root, idx_files)
    rows = json.loads(call("ls", "--json").stdout)["sets"]
    row = next(row for row in rows if row["name"] == "mnist")
    assert (row["status"], row["where"]) == ("ok", str(folder))
    assert row["bytes"] == sum(map(len, idx_files.values()))
    line = next(line for line in call("ls").stdout.splitlines() if line.startswith("mnist"))
    assert str(folder) in line
    assert DATASETS["mnist"].summary in line


def test_fetch_puts_the_files_in_the_root(call, source, mirror):
    result = call("fetch", "mnist", "digits")
    assert f"mnist  {source.root}/MNIST/raw" in result.stdout
    assert "downloading" not in result.stdout
    assert f"downloading mnist from {mirror.url}" in result.stderr
    call("fetch", "mnist", "--offline")


def test_fetch_faults(call):
    with pytest.raises(UnavailableError):
        call("fetch", "mnist", "--offline")
    with pytest.raises(UnknownNameError, match="did you mean 'mnist'"):
        call("fetch", "mnits")
    with pytest.raises(UsageError, match=r"data\.path"):
        call("fetch", "npz")


def test_verify_reads_the_files_again(call, source, idx_files, put_on_disk, monkeypatch):
    monkeypatch.setattr(checksums, "SMALL_BYTES", 0)
    # Bit rot changes no time stamp.
    monkeypatch.setattr(checksums, "_stamp", lambda path: [path.stat().st_size])
    folder = put_on_disk(source.root, idx_files)
    call("ls")  # remembers the checksums
    assert states(call("verify", "mnist", "--json").stdout) == {"mnist": "ok"}
    path = folder / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert states(call("ls", "--json").stdout)["mnist"] == "ok"
    with pytest.raises(DataError, match="is not the published file") as caught:
        call("verify", "--json")
    assert states(caught.value.stdout)["mnist"] == "damaged"


def test_verify_misses_only_what_was_named(call):
    assert states(call("verify", "--json").stdout)["mnist"] == "missing"
    with pytest.raises(DataError, match="mnist is not in"):
        call("verify", "mnist")


def test_help_loads_no_torch():
    modules = "'torch' not in sys.modules and 'pydantic' not in sys.modules"
    script = f"import sys, initbench.cli.data; assert {modules}"
    subprocess.run([sys.executable, "-c", script], check=True)
