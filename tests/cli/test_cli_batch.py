"""`--batch FILE` of `probe --model` and `lint --model`: a saved batch as the arguments of forward."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

MODULE = """
import torch
from torch import nn


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 32), nn.Linear(6, 32), nn.Linear(64, 5)

    def forward(self, a, b):
        return self.head(torch.relu(torch.cat([self.a(a), self.b(b)], 1)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.layer, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50)

    def forward(self, input_ids, attention_mask=None):
        x = self.wte(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return {"logits": self.head(torch.relu(self.layer(x)))}


def plain():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 5))


def double():
    return plain().double()


def half():
    return Pair().half()


def brain():
    return Pair().bfloat16()


def meta():
    return plain().to("meta")
"""

A, B = torch.randn(8, 4), torch.randn(8, 6)
Y = torch.arange(8) % 5
IDS = torch.arange(96).reshape(8, 12) % 50
MASK = torch.ones(8, 12, dtype=torch.int64)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "batchnets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("batchnets", None)


def save_torch(value: Any, suffix: str = ".pt") -> str:
    torch.save(value, f"batch{suffix}")
    return f"batch{suffix}"


def save_safetensors(value: dict[str, torch.Tensor]) -> str:
    save_file(value, "batch.safetensors")
    return "batch.safetensors"


def save_npz(*arrays: torch.Tensor, **named: torch.Tensor) -> str:
    np.savez("batch.npz", *(x.numpy() for x in arrays), **{key: x.numpy() for key, x in named.items()})
    return "batch.npz"


@pytest.mark.parametrize(
    ("save", "net", "words", "loss"),
    [
        (lambda: save_torch(A), "plain", "4", "cross-entropy, 5 random classes"),
        (lambda: save_torch([A, Y], ".pth"), "plain", "4, with labels", "cross-entropy"),
        (lambda: save_torch((A, B)), "Pair", "a 4, b 6", "cross-entropy, 5 random classes"),
        (lambda: save_torch((A, B)), "half", "a 4, b 6", "cross-entropy, 5 random classes"),
        (lambda: save_torch((A.double(), B)), "brain", "a 4, b 6", "cross-entropy, 5 random classes"),
        (lambda: save_torch((A, B, Y)), "Pair", "a 4, b 6, with labels", "cross-entropy"),
        (lambda: save_torch({"b": B, "a": A, "labels": Y}), "Pair", "a 4, b 6, with labels", "cross-entropy"),
        (
            lambda: save_safetensors({"input_ids": IDS, "attention_mask": MASK, "labels": IDS.clone()}),
            "Tokens",
            "input_ids 12, attention_mask 12, with labels",
            "cross-entropy",
        ),
        (lambda: save_safetensors({"0": A, "1": B, "labels": Y}), "Pair", "a 4, b 6, with labels", None),
        (lambda: save_npz(A, B), "Pair", "a 4, b 6", None),
        (lambda: save_npz(x=A.double(), labels=Y), "plain", "4, with labels", "cross-entropy"),
        (lambda: save_npz(x=A), "double", "4", None),
        (lambda: save_npz(input_ids=IDS.int()), "Tokens", "12", "cross-entropy, 50 random classes"),
    ],
)
def test_a_saved_batch_is_passed_to_forward(
    initbench: Any, save: Callable[[], str], net: str, words: str, loss: str | None
) -> None:
    file = save()
    said = initbench("probe", "--model", f"batchnets:{net}", "--batch", file, "seeds=1", "--json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert document["batch"] == f"{file}: {words}"
    assert loss is None or document["loss"]["name"] == loss
    assert document["coverage"]["complete"]
    assert all(layer["measured"]["q"]["mean"] > 0.0 for layer in document["layers"])


def test_lint_takes_a_saved_batch(initbench: Any) -> None:
    file = save_torch({"a": A, "b": B, "labels": Y})
    said = initbench("lint", "--model", "batchnets:Pair", "--batch", file, "--fail-on", "torch_default")
    assert (said.code, "8 samples" in said.out) == (1, True), said.err


class Runs:
    """Writes a file as soon as it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("run"),)


def write_bytes(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def make_pipe() -> str:
    os.mkfifo("pipe.pt")
    return "pipe.pt"


def make_folder() -> str:
    Path("folder.npz").mkdir()
    return "folder.npz"


def write_zip_of_text() -> str:
    with zipfile.ZipFile("batch.npz", "w") as archive:
        archive.writestr("x.npy", "no array")
    return "batch.npz"


@pytest.mark.parametrize(
    ("save", "net", "sentences"),
    [
        (lambda: write_bytes("batch.pkl", b"x"), "plain", ["'.pkl'", ".safetensors, .npz, .pt"]),
        (lambda: "nothing.pt", "plain", ["is not there"]),
        (lambda: write_bytes("empty.npz", b""), "plain", ["is empty"]),
        (make_folder, "plain", ["is a folder"]),
        (make_pipe, "plain", ["is not a regular file"]),
        (lambda: "x" * 300 + ".pt", "plain", ["cannot be read: File name too long"]),
        (lambda: write_bytes("batch.npz", b"PK none"), "plain", ["no .npz archive"]),
        (lambda: write_bytes("batch.pt", b"PK none"), "plain", ["no file that torch.save writes"]),
        (lambda: write_bytes("b.safetensors", b"x" * 40), "plain", ["no safetensors file"]),
        (write_zip_of_text, "plain", ["x is not an array"]),
        (lambda: save_torch({"x": Runs()}), "plain", ["objects and code are never loaded"]),
        (lambda: save_torch(torch.nn.Linear(4, 4)), "plain", ["objects and code are never loaded"]),
        (lambda: save_torch({"c": A, "a": A}), "Pair", ["takes no argument 'c'", "a, b", "'labels'"]),
        (lambda: save_torch({"input_id": IDS}), "Tokens", ["'input_id'", "did you mean 'input_ids'?"]),
        (lambda: save_torch({"a": A}), "Pair", ["needs 'b'"]),
        (lambda: save_torch({1: A}), "plain", ["names of forward's arguments; found 1"]),
        (lambda: save_torch(A), "Pair", ["1 entry", "takes a, b"]),
        (lambda: save_torch((A, B, Y, Y)), "Pair", ["4 entries", "takes a, b"]),
        (lambda: save_torch({"a": A, "b": B[:7]}), "Pair", ["a (8, 4), b (7, 6)", "RuntimeError"]),
        (lambda: save_torch({"x": A, "labels": Y[:7]}), "plain", ["labels has the shape (7,)", "8 samples"]),
        (lambda: save_torch({"x": A, "labels": Y + 1}), "plain", ["integers from 0 to 4"]),
        (lambda: save_torch({"x": A, "labels": 3}), "plain", ["labels must be a tensor", "int"]),
        (lambda: save_torch({"labels": Y}), "plain", ["needs 'input'"]),
        (
            lambda: save_torch({"input_ids": IDS + 9}),
            "Tokens",
            ["input_ids (8, 12)", "wte has the rows 0 to 49"],
        ),
        (lambda: save_torch({"input_ids": IDS - 1}), "Tokens", ["from -1 to 48", "wte has the rows 0 to 49"]),
        (lambda: save_torch(A[:1]), "plain", ["at least two samples"]),
        (lambda: save_torch(torch.tensor(1.0)), "plain", ["at least two samples"]),
        (lambda: save_torch({}), "plain", ["needs 'input'"]),
        (lambda: save_torch("text"), "plain", ["found str"]),
        (lambda: save_torch(A.to_sparse()), "plain", ["of a kind that cannot be used", "sparse"]),
        (lambda: save_torch(A.to("meta")), "plain", ["meta"]),
        (lambda: save_torch(A.to(torch.float8_e4m3fn)), "plain", ["float8_e4m3fn"]),
        (lambda: save_torch((A > 0).byte()), "plain", ["of uint8 from 0 to 1"]),
        (lambda: save_torch(A), "meta", ["the device meta"]),
    ],
)
def test_a_batch_that_cannot_be_used_is_answered_in_a_sentence(
    initbench: Any, save: Callable[[], str], net: str, sentences: list[str]
) -> None:
    file = save()
    said = initbench("probe", "--model", f"batchnets:{net}", "--batch", file, "seeds=1")
    assert (said.code, said.out) == (2, ""), said
    assert "Traceback" not in said.err
    if net != "meta":
        sentences = [f"--batch {file[:50]}", *sentences]
    for sentence in sentences:
        assert sentence in said.err, said.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "batch.pt"], "require --model"),
        (["--model", "batchnets:plain", "--batch", "batch.pt", "--input", "4"], "combined with --input"),
        (["--model", "batchnets:plain", "--batch", "batch.pt", "--data", "digits"], "combined with --data"),
        (["--model", "batchnets:plain", "--batch", "batch.pt", "probe.batch=4"], "combined with probe.batch"),
    ],
)
def test_a_saved_batch_is_all_that_a_net_is_shown(
    initbench: Any, arguments: list[str], sentence: str
) -> None:
    save_torch(A)
    for command in ("probe", "lint"):
        said = initbench(command, *arguments)
        assert (said.code, sentence in said.err) == (2, True), said.err
