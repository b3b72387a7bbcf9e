"""Random input: every reader answers with data or with an error of ours, soon and in little memory.

The number of cases is CASES in all with the slow tests, and a hundredth of it without.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from initbench.analysis.gates.parser import parse_gate as parse_gate
from initbench.analysis.regression.reference_document import read_document
from initbench.config.loading import validate_document
from initbench.config.overrides import parse_override
from initbench.config.schema import ExperimentConfig
from initbench.config.yaml_reader import parse_yaml as parse_yaml
from initbench.data.idx_file import read_idx
from initbench.data.safe_unpickle import unpickle
from initbench.data.sets import npz
from initbench.data.user_arrays import ArrayForm
from initbench.errors import ConfigError, InitbenchError

SECONDS = 5.0
"""That one case may take."""
COUNTS = {
    "yaml": 100_000,
    "overrides": 190_000,
    "gates": 50_000,
    "json": 60_000,
    "idx": 30_000,
    "npz": 20_000,
    "pickle": 80_000,
}
CASES = sum(COUNTS.values())

YAML_WORDS = (
    "kind: experiment\n|name: a\n|data: {name: digits}\n|model:\n|  depth: |  width: |train:\n|  lr: |"
    "  steps: |seeds: |init:\n|  scheme: |: |, |[|]|{|}|- |? |&a |*a |<<: |!!int |!x |'|\"|\\|#|\n|  |\t|"
    "---\n|...\n|%YAML 1.2\n|1e308|-1|0|010|0x1F|.nan|.inf|~|null|true|no|1_000|12:30|99999999999999999999|"
    "1e|1e400|relu|mlp|cnn|\x00|\ufeff|\u2028|\ud800|é|| |>|\\xff|\\u12|a: a\n|" + "1" * 120
).split("|")
OVERRIDE_WORDS = (
    "train.lr|model.depth|seeds|data|init.scheme|name|x|=|==|.|,|[|]|{name: zeros}|{|}|'|\"|1e-3|5|-|:|a b|"
    "true|null|..|a.b.c|\\|\x00|\ud800|é|#|&a|*a|0.1,0.2|1..3|log(|)|\n|" + "9" * 200
).split("|")
GATE_WORDS = (
    "final_val_accuracy|max|mean|min|(|)|<|>|<=|>=|==|!=|=|and|or|not|before|.|test_accuracy|baseline|relu|"
    '"a b"|\'|5 %|5|%|1e3|-|+|*|/|,|[|]|sd|rate|diverged|all|any| |  |1e999|\\|\x00|é|0|1.2.3|' + "1" * 300
).split("|")


VALID_YAML = tuple(
    path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
)
VALID_OVERRIDES = (
    "train.lr=0.1,0.03,log(1e-3,1e-1,3)",
    "model.depth=3..9",
    "data={name: npz, path: d.npz}",
    "init.scheme={name: orthogonal}",
    "seeds=[1, 2, 3]",
    "train.optimizer.momentum=0.9",
)
VALID_GATES = (
    "final_val_accuracy < 90 %",
    "test_accuracy < before.test_accuracy - 1 %",
    "max(final_val_loss) > 2 × relu_kaiming.final_val_loss or divergence_rate > 0",
    "relu_misprint.layer[-1].act_std@init > 10 and not 0.8 < slope(q@init) <= 1.2",
    'relu_kaiming.test_accuracy < "relu xavier".test_accuracy + 1e-3',
)


def _text(draw: random.Random, words: list[str], most: int, valid: tuple[str, ...]) -> str:
    """Return random words, or a valid text with a few changed bytes."""
    if draw.random() < 0.5:
        return "".join(draw.choice(words) for _ in range(draw.randint(1, most)))
    return _mutated(draw, draw.choice(valid).encode()).decode("utf-8", "replace")


def _mutated(draw: random.Random, content: bytes) -> bytes:
    """The content with some bytes changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(5):
            case 0 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[at] = draw.choice((0, 1, 127, 128, 255))
            case 2:
                del data[at : at + draw.randint(1, 8)]
            case 3:
                data[at:at] = data[at : at + draw.randint(1, 16)]
            case 4 if draw.random() < 0.2:
                del data[at:]
    return bytes(data)


def _yaml(draw: random.Random, _place: Path) -> None:
    document = parse_yaml(_text(draw, YAML_WORDS, 24, VALID_YAML), "f")
    if document.readable:
        config, faults = validate_document(ExperimentConfig, document, [])
        assert (config is None) == bool(faults)
    else:
        assert document.faults
        raise ConfigError(document.faults)
    if faults:
        raise ConfigError(faults)


def _override(draw: random.Random, _place: Path) -> None:
    parse_override(_text(draw, OVERRIDE_WORDS, 8, VALID_OVERRIDES), axes=draw.random() < 0.5)


def _gate(draw: random.Random, _place: Path) -> None:
    parse_gate(_text(draw, GATE_WORDS, 14, VALID_GATES))


DOCUMENT = json.dumps(
    {
        "schema": "initbench.compare/1",
        "tables": [
            {
                "dataset": "digits",
                "fingerprint": "f",
                "precision": "fp32",
                "steps": 20,
                "batch_size": 32,
                "by": [],
                "rows": [
                    {
                        "key": {"experiment": "a", "variant": {"lr": 1}},
                        "n": 2,
                        "diverged": 0,
                        "metrics": {
                            "final_val_loss": {"n": 2, "mean": 0.5, "std": 0.1, "values": [0.4, 0.6]}
                        },
                    }
                ],
            }
        ],
    }
).encode()


def _json(draw: random.Random, place: Path) -> None:
    path = place / "d.json"
    content = _mutated(draw, DOCUMENT)
    if draw.random() < 0.05:
        content = draw.choice((b"[", b'{"a":', b"1" * 10, b"-")) * draw.randint(1, 3000)
    path.write_bytes(content)
    read_document(path)


IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 28, 28) + bytes(2 * 28 * 28)


def _idx(draw: random.Random, place: Path) -> None:
    path = place / draw.choice(("a.gz", "a"))
    content = _mutated(draw, IDX[: draw.choice((20, len(IDX)))])
    if path.suffix == ".gz":
        content = gzip.compress(content, 1)
        content = _mutated(draw, content) if draw.random() < 0.3 else content
    path.write_bytes(content)
    read_idx(path, 1 << 20)


def _npz_bytes() -> bytes:
    stream = io.BytesIO()
    y = np.arange(40) % 2
    x = np.random.default_rng(0).random((40, 2), "f4")
    np.savez(stream, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return stream.getvalue()


NPZ = _npz_bytes()


def _header(draw: random.Random) -> bytes:
    shape = draw.choice(
        ("(40, 2)", "(10**13,)", "(-1, 2)", "(" * 50, "()", "(0,)", "(True, 2)", "(1e9,)", "[4]")
    )
    descr = draw.choice(
        ("'<f4'", "'|O'", "'<m8[s]'", "'<U9'", "'|V99999999999'", "[('a','<f4')]", "'x'", "4")
    )
    text = (
        f"{{'descr': {descr}, 'fortran_order': {draw.choice(('False', '1', 'None'))}, 'shape': {shape}, }}\n"
    )
    version = draw.choice((b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    size = struct.pack("<H" if version == b"\1\0" else "<I", draw.choice((len(text), 0, 65000)))
    return b"\x93NUMPY" + version + size + text.encode() + bytes(draw.choice((0, 8, 320)))


def _npz(draw: random.Random, place: Path) -> None:
    path = place / "a.npz"
    if draw.random() < 0.5:
        path.write_bytes(_mutated(draw, NPZ))
    else:
        method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(path, "w", method) as archive:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                archive.writestr(f"{key}.npy", _header(draw))
        if draw.random() < 0.5:
            path.write_bytes(_mutated(draw, path.read_bytes()))
    npz.read_npz(path, ArrayForm())


PICKLE = pickle.dumps({"data": np.zeros((2, 4), np.uint8), "labels": [1, 2], "names": ("a", "b")}, protocol=2)
OPERATIONS = [
    bytes([code])
    for code in b"().0123FGIJKLMNPQRSTUVXabcdeghijlopqrstu}\x80\x81\x82\x85\x88\x8a\x8b\x8c\x94\x95"
]


def _pickle(draw: random.Random, _place: Path) -> None:
    content = _mutated(draw, PICKLE)
    if draw.random() < 0.5:
        content = b"\x80\x02" + b"".join(
            draw.choice(OPERATIONS) + draw.randbytes(draw.randint(0, 4)) for _ in range(draw.randint(1, 40))
        )
    unpickle(content, "the file")


READERS: dict[str, Callable[[random.Random, Path], None]] = {
    "yaml": _yaml,
    "overrides": _override,
    "gates": _gate,
    "json": _json,
    "idx": _idx,
    "npz": _npz,
    "pickle": _pickle,
}


def _fuzz(reader: str, count: int, place: Path) -> dict[str, Any]:
    outcomes = {"accepted": 0, "refused": 0}
    slowest = 0.0
    for number in range(count):
        draw = random.Random(f"{reader} {number}")
        start = time.process_time()
        try:
            READERS[reader](draw, place)
            outcomes["accepted"] += 1
        except InitbenchError:
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{reader}, case {number}: {type(error).__name__}: {error}") from error
        slowest = max(slowest, time.process_time() - start)
    assert slowest < SECONDS, f"{reader}: a case took {slowest:.1f} s"
    return outcomes


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_answers_random_input(reader: str, tmp_path: Path) -> None:
    outcomes = _fuzz(reader, COUNTS[reader] // 100, tmp_path)
    assert outcomes["refused"] > 0
    assert outcomes["accepted"] > 0 or reader == "pickle"  # no random change leaves a pickle valid


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_answers_much_random_input(reader: str, tmp_path: Path) -> None:
    assert CASES >= 500_000
    outcomes = _fuzz(reader, COUNTS[reader], tmp_path)
    print(f"{reader}: {COUNTS[reader]:,} cases, {outcomes}")
