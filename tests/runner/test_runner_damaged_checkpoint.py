"""A checkpoint that is not as it was written is not gone on from, and the run ends as it would have."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from initbench.data.dataset import DataSource
from initbench.errors import Terminated
from initbench.runner import runner
from initbench.runner.plan import RunContext
from initbench.store.checkpoint_files import CHECKPOINT, CHECKPOINTS, PREVIOUS, checkpoint_step
from initbench.store.manifest import find_step_disorder
from initbench.store.store import Store
from tests.runner.driven import Silent, numbers, run_experiment

STOPPED, LAST, BEFORE = 9, 8, 7
"""Update at which the run is stopped, and the steps of its two checkpoints."""
Damage = Callable[[Path], object]


class Stopper(Silent):
    """An Observer that keeps the steps it hears of, and may interrupt at one."""

    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self.at = at
        self.steps: list[int] = []

    def advanced(self, step: int) -> None:
        self.steps.append(step)
        if step == self.at:
            raise Terminated(15)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def put(path: Path, header: str, body: bytes) -> None:
    path.write_bytes(len(header.encode()).to_bytes(8, "little") + header.encode() + body)


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def body_start(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def in_header(change: Callable[[dict[str, Any]], object]) -> Damage:
    def act(path: Path) -> None:
        header, body = header_of(path)
        change(header)
        put(path, json.dumps(header), body)

    return act


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Written again by safetensors itself, with the metadata as they were."""

    def act(path: Path) -> None:
        header, _ = header_of(path)
        state = load(path.read_bytes())
        change(state)
        path.write_bytes(save(state, metadata=header["__metadata__"]))

    return act


def a_weight(state: dict[str, torch.Tensor]) -> str:
    return max((name for name in state if state[name].dim() == 2), key=lambda name: state[name].numel())


def replaced(make: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def change(state: dict[str, torch.Tensor]) -> None:
        name = a_weight(state)
        state[name] = make(state[name]).contiguous()

    return tensors(change)


def metadata(**entries: object) -> Damage:
    return in_header(lambda header: header["__metadata__"].update(entries))


def first_entry(header: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in header.items() if name != "__metadata__")


def swapped_for(make: Callable[[Path], object]) -> Damage:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


DAMAGES: dict[str, Damage] = {
    "a byte of the body": lambda path: flipped(path, body_start(path) + 100),
    "the last byte": lambda path: flipped(path, -1),
    "a byte of the header": lambda path: flipped(path, 60),
    "the header's length": lambda path: flipped(path, 0),
    "the length's high byte": lambda path: flipped(path, 7),
    "zeroed body": lambda path: put(path, json.dumps(header_of(path)[0]), bytes(len(header_of(path)[1]))),
    "zeroed whole": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeroed tail": lambda path: path.write_bytes(path.read_bytes()[:-500] + bytes(500)),
    "empty": lambda path: path.write_bytes(b""),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "cut in the body": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "cut to the length alone": lambda path: path.write_bytes(path.read_bytes()[:8]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "text": lambda path: path.write_bytes(b"\xff" * 40),
    "empty mappings": lambda path: path.write_bytes(b"\x08\0\0\0\0\0\0\0{}{}{}{}"),
    "deep header": lambda path: put(path, "[" * 100_000, b""),
    "deep in metadata": lambda path: put(path, '{"__metadata__": ' + '{"a":' * 5000 + "1" + "}" * 5001, b""),
    "header is a list": lambda path: put(path, "[]", b""),
    "no metadata": in_header(lambda header: header.pop("__metadata__")),
    "metadata is text": in_header(lambda header: header.update(__metadata__="x")),
    "no step": in_header(lambda header: header["__metadata__"].pop("step")),
    "another step": metadata(step="5"),
    "step is no number": metadata(step="x"),
    "a huge step": metadata(step=str(10**30)),
    "no checksum": in_header(lambda header: header["__metadata__"].pop("sha256")),
    "another checksum": metadata(sha256="0" * 64),
    "other lines": metadata(lines="{}"),
    "no rest": in_header(lambda header: header["__metadata__"].pop("rest")),
    "other offsets": in_header(lambda header: first_entry(header).update(data_offsets=[0, 2**50])),
    "unknown dtype": in_header(lambda header: first_entry(header).update(dtype="F1")),
    "transposed": replaced(lambda weight: weight.T),
    "flat": replaced(lambda weight: weight.reshape(-1)),
    "whole numbers": replaced(lambda weight: weight.to(torch.int32)),
    "doubles": replaced(lambda weight: weight.double()),
    "a NaN": replaced(lambda weight: weight * float("nan")),
    "a tensor less": tensors(lambda state: state.pop(a_weight(state))),
    "a tensor more": tensors(lambda state: state.update(more=torch.zeros(2))),
    "a directory": swapped_for(lambda path: path.mkdir()),
    "a link to nothing": swapped_for(lambda path: path.symlink_to("nothing")),
    "a link to a device": swapped_for(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": swapped_for(os.mkfifo),
}


@pytest.fixture(scope="module")
def stopped(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path, Any]]:
    """A config, the store of its interrupted run, and the numbers of an uninterrupted one."""
    root = tmp_path_factory.mktemp("stopped")
    config = make_config(model={"norm": "batch", "depth": 2, "width": 6}, probe={"covariate_shift": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "CHECKPOINT_SECONDS", 0.0)
        run_experiment(config, workplace(root / "whole"), Stopper(), rerun=False)
        with pytest.raises(Terminated):
            run_experiment(config, workplace(root / "runs"), Stopper(STOPPED), rerun=False)
    yield config, root / "runs", numbers(Store(root / "whole"))


def workplace(root: Path) -> RunContext:
    source = DataSource(root=root.parent / "data", offline=True)
    return RunContext(store=Store(root), source=source, device=torch.device("cpu"))


def gone_on(stopped: tuple[Any, Path, Any], tmp_path: Path, damage: Callable[[Path], object]) -> list[int]:
    """The steps made after `damage` was done to a copy of the run, whose numbers are those expected."""
    config, store, expected = stopped
    shutil.copytree(store, tmp_path / "runs")
    place = workplace(tmp_path / "runs")
    [record] = place.store.records()
    directory = place.store.root / record["run_id"]
    damage(directory)
    watcher = Stopper()
    run_experiment(config, place, watcher, rerun=False)
    assert numbers(place.store) == expected
    assert place.store.verify(record["run_id"]) == []
    assert not [path.name for path in directory.iterdir() if path.name.endswith(".tmp")]
    assert not any((directory / name).exists() for name in CHECKPOINTS)
    return watcher.steps


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    stopped: Any, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = gone_on(stopped, tmp_path, lambda directory: DAMAGES[kind](directory / CHECKPOINT))
    assert steps[0] == BEFORE + 1
    said = capsys.readouterr().err
    assert f"damaged: {CHECKPOINT}: " in said
    assert "resuming from the previous checkpoint" in said


@pytest.mark.parametrize("kind", ["a byte of the body", "deep header", "transposed", "a pipe"])
def test_where_both_are_damaged_the_run_begins_again(
    stopped: Any, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def both(directory: Path) -> None:
        for name in CHECKPOINTS:
            DAMAGES[kind](directory / name)

    assert gone_on(stopped, tmp_path, both)[0] == 1
    assert "starting from scratch" in capsys.readouterr().err


def test_whole_checkpoints_are_gone_on_from_without_a_word(
    stopped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gone_on(stopped, tmp_path, lambda _: None)[0] == LAST + 1
    assert capsys.readouterr().err == ""


def test_a_lost_last_checkpoint_leaves_the_one_before_it(stopped: Any, tmp_path: Path) -> None:
    """A kill can leave this state on a file system without hard links."""
    assert gone_on(stopped, tmp_path, lambda directory: (directory / CHECKPOINT).unlink())[0] == BEFORE + 1


LINE_DAMAGES: dict[str, Damage] = {
    "a byte": lambda path: flipped(path, 30),
    "lost": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "a line twice": lambda path: path.write_bytes(path.read_bytes().splitlines(True)[0] * 2),
    "a link": swapped_for(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("name", ["metrics.jsonl", "layers.jsonl", "shift.jsonl"])
@pytest.mark.parametrize("kind", LINE_DAMAGES)
def test_lines_that_are_not_those_of_the_checkpoint(
    stopped: Any, tmp_path: Path, name: str, kind: str
) -> None:
    assert gone_on(stopped, tmp_path, lambda directory: LINE_DAMAGES[kind](directory / name))[0] == 1


def test_lines_after_the_checkpoint_are_reported_again(stopped: Any, tmp_path: Path) -> None:
    def more(directory: Path) -> None:
        for name in ("metrics.jsonl", "layers.jsonl"):
            path = directory / name
            path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(True)[-1] + b'{"torn')

    assert gone_on(stopped, tmp_path, more)[0] == LAST + 1


def test_a_run_that_fails_as_it_is_taken_up_begins_again_at_the_next_try(
    stopped: Any, tmp_path: Path
) -> None:
    """Its checkpoints have the right checksum, but a run must not resume from them."""
    config, store, expected = stopped
    shutil.copytree(store, tmp_path / "runs")
    place = workplace(tmp_path / "runs")
    [record] = place.store.records()
    directory = place.store.root / record["run_id"]
    with pytest.MonkeyPatch.context() as patch:

        def refuse(_state: bytes) -> None:
            raise ValueError("not a checkpoint")

        patch.setattr("initbench.runner.workers.task.restore", refuse)
        run_experiment(config, place, Silent(), rerun=False)
    assert place.store.status(record["run_id"]) == "failed"
    assert checkpoint_step(directory) is None
    run_experiment(config, place, Silent(), rerun=False)
    assert numbers(place.store) == expected


def test_both_checkpoints_are_there_while_a_run_is_under_way(stopped: Any) -> None:
    [directory] = [path for path in stopped[1].iterdir() if path.is_dir()]
    assert checkpoint_step(directory) == LAST
    previous = json.loads(json.dumps(header_of(directory / PREVIOUS)[0]))["__metadata__"]["step"]
    assert int(previous) == BEFORE


def test_what_disorder_is() -> None:
    def of(*steps: object, when: object = None) -> str | None:
        return find_step_disorder((step, when) for step in steps)

    assert of(0, 1, 5, 6) is None
    assert of(0, None, 5) is None
    assert of(0, 5, 5) == of(0, 5, 5, when="train") == "line 3: step 5 comes after step 5"
    assert of(0, 5, 4) == "line 3: step 4 comes after step 5"
    assert find_step_disorder([(0, "init"), (0, "end")]) is None
