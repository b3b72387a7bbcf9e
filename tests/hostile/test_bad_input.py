"""Tables of bad input: every key of a config, every option of a command, every kind of data file."""

from __future__ import annotations

import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pydantic import BaseModel

from initbench.cli.lazy_group import load_command
from initbench.cli.main import app
from initbench.components.activation import ACTIVATIONS
from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.components.optimizer import OPTIMIZERS
from initbench.components.schedule import SCHEDULES
from initbench.config.loading import load_overrides
from initbench.config.schema import ExperimentConfig, LrFactors, ProbeOptions, TrainOptions
from initbench.config.yaml_reader import MAX_BYTES, MAX_FAULTS, parse_yaml
from initbench.data.dataset import DATASETS, AugmentOptions, ShiftOptions
from initbench.data.idx_file import read_idx
from initbench.data.safe_unpickle import unpickle
from initbench.data.sets import npz
from initbench.data.user_arrays import ArrayForm
from initbench.errors import AllocationError, ConfigError, DataError, InitbenchError, UsageError
from initbench.machine import failed_allocation_size, require_memory
from initbench.models.init_weights import InitOptions
from initbench.models.network import FAMILIES
from initbench.paths import expand_user, read_regular_file

SECONDS = 5.0
"""That one case may take."""
NUMBERS = ("1e308", "-1e308", "1" + "0" * 99, "9223372036854775808", "-1", "1e-320", "1" * 5000 + "e1")
OTHERS = (
    "''",
    "[]",
    "{}",
    "null",
    "true",
    "[[[[1]]]]",
    "~nosuchuser/x",
    "{name: x, name: y}",
    "'" + "x" * 400 + "'",
)
BASE = ("name=a", "data.name=digits", "model.depth=2", "model.width=4", "train.steps=2")

SECTIONS: dict[str, type[BaseModel]] = {
    "": ExperimentConfig,
    "train": TrainOptions,
    "train.lr_factors": LrFactors,
    "probe": ProbeOptions,
    "init": InitOptions,
    "data.shift": ShiftOptions,
    "data.augment": AugmentOptions,
}
CHOICES = {
    "data": (DATASETS, "name"),
    "model": (FAMILIES, "family"),
    "model.activation": (ACTIVATIONS, "name"),
    "model.norm": (NORMS, "name"),
    "init.scheme": (INITS, "name"),
    "train.optimizer": (OPTIMIZERS, "name"),
    "train.schedule": (SCHEDULES, "name"),
}


def _keys() -> Iterator[tuple[str, str]]:
    """Each key of a config once, as the overrides that lead to it and the key itself."""
    for section, model in SECTIONS.items():
        for field, info in model.model_fields.items():
            yield "", f"{section}.{info.alias or field}".strip(".")
    seen = set()
    for section, (registry, tag) in CHOICES.items():
        for entry in registry:
            for field, info in entry.options.model_fields.items():
                owner = next(
                    base
                    for base in reversed(entry.options.__mro__)
                    if field in getattr(base, "model_fields", {})
                )
                if (owner, section, field) not in seen and field != tag:
                    seen.add((owner, section, field))
                    yield f"{section}.{tag}={entry.name}", f"{section}.{info.alias or field}"


KEYS = list(_keys())


@pytest.mark.parametrize(("choice", "key"), KEYS, ids=[f"{choice} {key}".strip() for choice, key in KEYS])
def test_a_bad_value_is_accepted_or_named(choice: str, key: str) -> None:
    for value in (*NUMBERS, *OTHERS):
        start = time.process_time()
        overrides = [*BASE, *([choice] if choice else []), f"{key}={value}"]
        try:
            config = load_overrides(overrides, ExperimentConfig)
        except ConfigError as error:
            assert error.issues, value
        else:
            assert value not in ("1e308", "-1e308", "1" + "0" * 99), f"{key} takes {value}: {config}"
        assert time.process_time() - start < SECONDS, value


VALUES = ("", "nan", "9" * 30, "x" * 300, "~nosuchuser/x", "/dev/zero")
MORE_VALUES = ("-1", "1e308", "a,b,c", "a=1:2:3", "\x1b[31m", "::error::x", "[[[[", "/dev/full", ".", "0")
ARGUMENTS = {
    "run": ["missing.yaml"],
    "sweep": ["missing.yaml"],
    "lesson": ["no-such-lesson"],
    "compare": [],
    "ls": [],
    "show": ["nothing"],
    "rm": ["nothing"],
    "merge": ["missing"],
    "upgrade": [],
    "explain": ["relu"],
    "validate": ["missing.yaml"],
    "probe": ["missing.yaml"],
    "lint": ["missing.yaml"],
    "new": ["first"],
    "catalog": [],
}
TRAINING = {
    "run": ["tiny.yaml", "-q", "seeds=1"],
    "sweep": ["tiny.yaml", "-q", "seeds=1", "model.depth=2,3", "--limit", "1"],
    "probe": ["tiny.yaml", "seeds=1"],
    "lint": ["tiny.yaml", "seeds=1"],
    "compare": ["tiny"],
}
"""Commands that get as far as training before they meet the value of an option."""
TINY = """\
kind: experiment
name: tiny
data: {name: digits}
model: {family: mlp, depth: 2, width: 4}
train: {steps: 2, batch_size: 32}
probe: {batch: 16}
"""


def _options() -> Iterator[tuple[str, str]]:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in load_command(command).params:
            flag = getattr(parameter, "is_flag", True)
            if parameter.param_type_name == "option" and not flag and name in ARGUMENTS:
                yield name, parameter.opts[0]


@pytest.mark.parametrize(("command", "option"), list(_options()))
def test_user_mistakes_exit_4_never(
    command: str,
    option: str,
    initbench: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in VALUES:
        said = initbench(command, *ARGUMENTS[command], option, value)
        assert said.code in (0, 1, 2, 3), (value, said.err)
        assert "Traceback" not in said.err, value


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), [case for case in _options() if case[0] in TRAINING])
def test_a_bad_option_of_a_command_that_trains_is_never_a_bug(
    command: str,
    option: str,
    initbench: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    for value in (*VALUES, *MORE_VALUES):
        start = time.process_time()
        said = initbench(command, *TRAINING[command], option, value)
        assert said.code in (0, 1, 2, 3), (value, said.err)
        assert "Traceback" not in said.err, value
        assert time.process_time() - start < 2 * SECONDS, value


def test_the_tables_of_bad_input_are_long() -> None:
    options = list(_options())
    trained = sum(command in TRAINING for command, _ in options)
    values = len(KEYS) * len((*NUMBERS, *OTHERS))
    count = values + len(options) * len(VALUES) + trained * len((*VALUES, *MORE_VALUES))
    print(f"{values} values of keys, {count - values} values of options")
    assert values >= 1000 and count >= 3500


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n" * (MAX_BYTES // 6),
        "a: {b: 1}\n" * (MAX_BYTES // 10),
        "a: [" + "b: 1," * (MAX_BYTES // 6) + "1]",
        "a: [" + "? b," * (MAX_BYTES // 6) + "1]",
        "a: {" + "b," * (MAX_BYTES // 3) + "}",
        "".join(f"k{number}: 1\n" for number in range(MAX_BYTES // 14)),
        "name: a\nseeds: [" + "x," * (MAX_BYTES // 3) + "1]",
        "a: [" + "010," * (MAX_BYTES // 5) + "]",
        "a: " + "1" * 500_000 + "e",
        "a: " + "1" * 500_000 + ".",
        "name: a\ntrain: {lr: '" + "1" * 500_000 + "x'}",
        "[" * MAX_BYTES,
        "? " * (MAX_BYTES // 2),
        "a: '" + "\n" * (MAX_BYTES - 10) + "'",
    ],
    ids=lambda text: repr(text[:18]),
)
def test_a_large_config_is_read_in_little_time(text: str) -> None:
    start = time.process_time()
    document = parse_yaml(text, "f")
    assert len(document.faults) <= MAX_FAULTS + 1
    if document.readable:
        with pytest.raises(ConfigError) as caught:
            load_overrides(
                ["name=a", *([f"train.lr={text[-500_000:]}"] if "e" in text[-2:] else ["x=1"])],
                ExperimentConfig,
            )
        assert len(caught.value.issues) <= MAX_FAULTS + 1
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize(
    "value", ["1e999", "1" * 16_000 + "e", "1" * 16_000 + "e5", "[" + "1," * 30_000 + "1]"]
)
def test_a_long_override_is_read_in_little_time(value: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError):
        load_overrides(["name=a", f"train.lr={value}"], ExperimentConfig)
    assert time.process_time() - start < SECONDS


# ---- data files


def _array(descr: str, shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (127 - len(header) % 64 - 10) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


ARRAYS = {
    "lying": _array("'<f4'", "(10000000000000, 6)"),
    "negative": _array("'<f4'", "(-1, 6)"),
    "deep": _array("'<f4'", "(" * 40 + ")" * 40),
    "objects": _array("'|O'", "(2, 6)", bytes(96)),
    "timedelta": _array("'<m8[s]'", "(2, 6)", bytes(96)),
    "text": _array("'<U2'", "(2, 6)", bytes(96)),
    "wide": _array("'|V9999999999'", "(2, 6)"),
    "named fields": _array("[('a', '<f4')]", "(2, 6)", bytes(48)),
    "no shape": _array("'<f4'", "None"),
    "a call": _array("'<f4'", "__import__('os').getpid()"),
    "empty": b"",
    "version 9": b"\x93NUMPY\x09\x00" + bytes(100),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("key", ["x_train", "y_train"])
def test_npz_damaged_member_is_named(tmp_path: Path, kind: str, key: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x_test=np.ones((2, 6), "f4"), y_test=np.array([0, 1]))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("x_train", "y_train"):
            good = (
                _array("'<f4'", "(2, 6)", bytes(48))
                if name == "x_train"
                else _array("'<i8'", "(2,)", bytes(16))
            )
            archive.writestr(f"{name}.npy", ARRAYS[kind] if name == key else good)
    with pytest.raises(DataError, match=r"a\.npz"):
        npz.read_npz(path, ArrayForm())


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_flipped_bits_of_an_archive_are_refused_or_harmless(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for part in ("train", "test"):
            archive.writestr(
                f"x_{part}.npy", _array("'<f4'", "(40, 6)", np.arange(240, dtype="f4").tobytes())
            )
            archive.writestr(f"y_{part}.npy", _array("'<i8'", "(40,)", (np.arange(40) % 2).tobytes()))
    content = path.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 150)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            npz.read_npz(path, ArrayForm())
        except DataError as error:
            assert "a.npz" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02r\xff\xff\xff\xff.",  # the memo is made as long as its largest number
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.",
        b"cnumpy\ndtype\n(S'V99999999999'\nI0\nI1\ntR.",
        b"(" * 600_000,
        b"\x80\x02)" + b"\x85" * 100_000 + b"K\x01s.",  # hashing tuples of tuples recurses in C
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00.",
        b"",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_crafted_pickle_is_refused_at_once(content: bytes) -> None:
    start = time.process_time()
    with pytest.raises(DataError, match="the file"):
        unpickle(content, "the file")
    assert time.process_time() - start < 2 * SECONDS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x",
        b"\0\0\x0d\1\0\0\0\1x",
        b"\0\0\x08\3" + b"\xff" * 12,
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match="labels"):
        read_idx(path, 1 << 20)
    packed = tmp_path / "labels.gz"
    packed.write_bytes(content or b"\x1f\x8b")
    with pytest.raises(DataError, match="labels"):
        read_idx(packed, 1 << 20)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**12)
    for path in (tmp_path / "pipe", tmp_path / "sparse", Path("/dev/zero"), tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError):
            read_regular_file(path, 1000)


def test_what_cannot_be_had_is_refused_with_its_size() -> None:
    with pytest.raises(AllocationError, match=r"1,000,000\.0 GB .* are available: make it smaller"):
        require_memory(1e15, "the net", "make it smaller")
    with pytest.raises(UsageError, match="no such user"):
        expand_user("~nosuchuser/x")


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["model.width=65536", "model.depth=200"], 3),
        (["data={name: gaussian, samples: 1000000000, dim: 1000000}"], 3),
        (["data.resize=4096"], 3),
        (["model={family: cnn, width: 65536, stages: 10, depth: 30}", "data.resize=4096"], 3),
        (["data.whiten=zca", "data.resize=128"], 3),
    ],
)
@pytest.mark.parametrize("command", ["run", "probe", "lint"])
def test_what_cannot_be_allocated_ends_with_a_sentence(
    initbench: Callable[..., Any], tmp_path: Path, command: str, overrides: list[str], code: int
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY, encoding="utf-8")
    quiet = ["-q", "--runs-dir", tmp_path / "runs"] if command == "run" else []
    said = initbench(command, config, *overrides, "seeds=1", *quiet)
    assert said.code == code, said.err
    assert "Traceback" not in said.err


def test_an_allocation_that_fails_tells_how_much_was_asked_for() -> None:
    import torch

    def allocate() -> None:
        torch.empty(2**55)

    for error in (None, MemoryError("Unable to allocate 3.00 GiB for an array"), MemoryError()):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate() if error is None else (_ for _ in ()).throw(error)
        assert failed_allocation_size(caught.value), caught.value
    assert failed_allocation_size(RuntimeError("something else")) is None


def test_every_error_of_ours_has_a_code() -> None:
    assert all(kind.exit_code in (1, 2, 3) for kind in InitbenchError.__subclasses__())


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.lr=1e38"],
        ["train.lr=1e19", "train.weight_decay=1e18"],
        ["train.lr=1e18", "train.lr_factors={body: 1e19, head: 1e19}"],
        ["train.lr=1e18", "train.optimizer=adam", "train.weight_decay=1e18"],
        ["train.optimizer=adamw", "train.lr=1e18", "train.weight_decay=1e18"],
        ["train.optimizer=rmsprop", "train.lr=1e38", "train.clip_norm=1e38"],
        ["init.gain=1e38", "init.bias=1e38"],
        ["init.scheme={name: constant, value: 1e38}"],
        ["init.scheme={name: normal, std: 1e38}"],
        ["init.scheme={name: uniform, bound: 1e38}"],
        ["model.activation={name: elu, alpha: 1e38}"],
        ["data.shift={brightness: 1e38, noise: 1e38}"],
    ],
)
def test_the_largest_numbers_diverge_and_do_not_fail(
    initbench: Callable[..., Any], tmp_path: Path, overrides: list[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY, encoding="utf-8")
    said = initbench("run", config, *overrides, "seeds=1", "-q", "--runs-dir", tmp_path / "runs")
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.lr=1e38", "train.weight_decay=1e38"],
        ["train.lr=1e38", "train.lr_factors={body: 1e38}"],
        ["train.lr=1e38", "train.optimizer=adam"],
    ],
)
def test_a_product_that_overflows_is_a_fault_of_the_learning_rate(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr: the learning rate times .* at most 1e\+38"):
        load_overrides([*BASE, *overrides], ExperimentConfig)
