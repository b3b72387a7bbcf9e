"""User code that tries to end the process: a fault with a sentence, never an exit code of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from initbench.errors import Terminated, UsageError, reporting_user_code
from initbench.probing.module_probe import probe_module

_NET = "from torch import nn\n\n\ndef make():\n    return nn.Linear(8, 4)\n\n\n"
_FORWARD = """
import sys
from torch import nn


class Ends(nn.Linear):
    def forward(self, x):
        {}
        return super().forward(x)


def make():
    return Ends(8, 4)
"""
_PARSES = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, {})
print(parser.parse_args().lr)
"""


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            f"{_NET}import sys\nsys.exit(0)\n",
            "cannot be imported: it exits the process (SystemExit: 0); move",
        ),
        (
            f"{_NET}import sys\nsys.exit()\n",
            "it exits the process (SystemExit); move its code",
        ),
        (f"{_NET}raise SystemExit('no data')\n", "it exits the process (SystemExit: no data)"),
        (f"{_NET}quit()\n", "it exits the process (SystemExit"),
        (f"{_NET}class Stop(BaseException): pass\n\n\nraise Stop('now')\n", "(Stop: now)"),
        (f"{_NET}raise GeneratorExit\n", "it exits the process (GeneratorExit)"),
        (_PARSES.format("required=True") + _NET, "cannot be imported: it exits the process (SystemExit: 2)"),
        ("import sys\n\n\ndef make():\n    sys.exit('no checkpoint')\n", "(SystemExit: no checkpoint)"),
        ("import sys\n\n\ndef make():\n    sys.exit(0)\n", "could not build a network: it exits the process"),
        ("def __getattr__(name):\n    raise SystemExit(0)\n", "cannot be read: it exits the process"),
        (_FORWARD.format("sys.exit(0)"), "cannot take a batch of shape (128, 8): it exits the process"),
        (_FORWARD.format("raise GeneratorExit"), "it exits the process (GeneratorExit)"),
    ],
)
@pytest.mark.parametrize("command", ["lint", "probe"])
def test_exit_at_import_is_reported(
    initbench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, source: str, sentence: str
) -> None:
    (tmp_path / "ending.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "ending", raising=False)
    arguments = ("--model", "ending:make", "--input", "8", "seeds=1", "probe.batch=128")
    said = initbench(command, *arguments)
    sys.modules.pop("ending", None)
    assert (said.code, said.out) == (2, ""), said
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_a_script_that_parses_its_arguments_sees_none_of_initbenchs(
    initbench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parsing.py").write_text(_PARSES.format("default=0.1") + _NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = list(sys.argv)
    said = initbench("probe", "--model", "parsing:make", "--input", "8", "--json")
    sys.modules.pop("parsing", None)
    assert said.code == 0, said.err
    assert json.loads(said.out)["model"] == "parsing:make"  # what the script prints is not among the data
    assert sys.argv == before


def test_signals_pass() -> None:
    for signal in (KeyboardInterrupt, Terminated):
        with pytest.raises(signal), reporting_user_code("it"):
            raise signal


def test_a_message_that_cannot_be_made_is_left_out() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(UsageError, match=r"^it fails: MuteError$"), reporting_user_code("it fails:"):
        raise MuteError


def test_a_loss_that_ends_the_program_is_reported() -> None:
    def loss(_output: torch.Tensor) -> torch.Tensor:
        raise SystemExit(0)

    with pytest.raises(UsageError, match="the loss or its backward pass fails: it exits the process"):
        probe_module(nn.Linear(8, 4), torch.randn(4, 8), None, loss)
