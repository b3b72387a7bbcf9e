"""Fingerprint of the code: the changes that affect it, and coverage of all code that training executes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import initbench
from initbench.data.dataset import DataSource
from initbench.data.locate import resolve_dataset
from initbench.runner import code_fingerprint as fingerprints
from initbench.runner.code_fingerprint import code_fingerprint, is_numerical, read_module
from initbench.runner.dataset_cache import DatasetCache
from initbench.runner.run_identity import training_mode
from initbench.runner.workers.task import WorkerTask, train

PACKAGE = Path(initbench.__file__).parent
Change = Callable[[str], str]


def clear() -> None:
    for function in vars(fingerprints).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


UNCHANGED: dict[str, str] = {}
"""Fingerprints of configs under the code as it is."""


@pytest.fixture
def fingerprint_after(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """The fingerprint of a small config once the source of a module has changed.

    A change keeps the number of lines above every registry entry, since imported entries know their lines.
    """
    read = fingerprints._source_of
    changed: tuple[str, Change] = ("", str)

    def source_of(name: str) -> str:
        module, change = changed
        source = read(name)
        if name == module:
            assert change(source) != source
            return change(source)
        return source

    def after(module: str = "", change: Change = str, **config: Any) -> str:
        nonlocal changed
        key = repr(config)
        if not module and key in UNCHANGED:
            return UNCHANGED[key]
        if changed != (module, change):
            changed = (module, change)
            clear()
        fingerprint = code_fingerprint(make_config(**config), "digits")
        if not module:
            UNCHANGED[key] = fingerprint
        return fingerprint

    monkeypatch.setattr(fingerprints, "_source_of", source_of)
    yield after
    if changed != ("", str):
        clear()


def replace(old: str, new: str) -> Change:
    return lambda source: source.replace(old, new)


def append(text: str) -> Change:
    return lambda source: source + text


RELU = {"model": {"activation": "relu"}}
TANH = {"model": {"activation": "tanh"}}
PIECEWISE = "initbench.components.activations.piecewise"
LOOP = "initbench.train.loop"

WITHOUT_MEANING = {
    "a module's docstring": (LOOP, replace('"""Training loop', '"""The loop')),
    "a function's docstring": (PIECEWISE, replace('"""Apply the activation."""', '"""Compute φ(x)."""')),
    "a comment": (LOOP, append("# a comment\n")),
    "an annotation": (LOOP, replace(") -> None:", ") -> object:")),
    "a text of the catalogue": (PIECEWISE, replace('summary="0 for', 'summary="Zero for')),
    "a function that nothing uses": (LOOP, append("def unused() -> int:\n    return 1\n")),
    "another activation": (PIECEWISE, replace("-3.0, 3.0", "-3.0, 3.5")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("module", "change"), WITHOUT_MEANING.values(), ids=WITHOUT_MEANING)
def test_a_change_without_meaning_keeps_the_fingerprint(
    module: str, change: Change, fingerprint_after: Callable[..., str]
) -> None:
    assert fingerprint_after(module, change, **RELU) == fingerprint_after(**RELU)


@pytest.mark.parametrize("changed", [LOOP, PIECEWISE])
def test_all_changes_without_meaning_of_a_module_keep_the_fingerprint(
    changed: str, fingerprint_after: Callable[..., str]
) -> None:
    def change(source: str) -> str:
        for module, each in WITHOUT_MEANING.values():
            if module == changed:
                assert each(source) != source
                source = each(source)
        return source

    assert fingerprint_after(changed, change, **RELU) == fingerprint_after(**RELU)


def test_a_constant_of_relu_changes_relu_alone(fingerprint_after: Callable[..., str]) -> None:
    change = replace(
        "kinks=(0.0,),\n        histogram_range=(0.0, 4.0)",
        "kinks=(0.0,),\n        histogram_range=(0.0, 5.0)",
    )
    changed = [fingerprint_after(PIECEWISE, change, **config) for config in (RELU, TANH)]
    assert changed[0] != fingerprint_after(**RELU)
    assert changed[1] == fingerprint_after(**TANH)


def test_a_helper_changes_the_activations_that_call_it(
    fingerprint_after: Callable[..., str],
) -> None:
    change = replace("return (x > 0).to(x.dtype)", "return (x >= 0).to(x.dtype)")
    changed = [fingerprint_after(PIECEWISE, change, **config) for config in (RELU, TANH)]
    assert changed[0] != fingerprint_after(**RELU)
    assert changed[1] == fingerprint_after(**TANH)


ENGINE = {
    "the loop": (LOOP, replace("range(", "range(0 + ")),
    "an update": ("initbench.components.optimizer", replace("momentum", "momentum_")),
    "the random streams": ("initbench.rng", replace("return ", "return 0 or ")),
    "a statistic": ("initbench.probing.tensor_statistics", replace("return ", "return 0 or ")),
    "the diagnosis": ("initbench.probing.diagnosis", replace(">=", ">")),
    "the split": ("initbench.data.split", replace("return", "return 0 or")),
    "what runs at import": (LOOP, append("torch.set_flush_denormal(True)\n")),
}


@pytest.mark.parametrize(("module", "change"), ENGINE.values(), ids=ENGINE)
def test_a_change_of_the_engine_changes_all(
    module: str, change: Change, fingerprint_after: Callable[..., str]
) -> None:
    configs: list[dict[str, Any]] = [RELU, TANH, {"init": {"scheme": "orthogonal"}}]
    changed = [fingerprint_after(module, change, **config) for config in configs]
    unchanged = [fingerprint_after(**config) for config in configs]
    assert all(after != before for after, before in zip(changed, unchanged, strict=True))


@pytest.mark.parametrize(
    ("key", "value", "module"),
    [
        ("init", {"scheme": "lsuv"}, "initbench.components.inits.lsuv"),
        ("model", {"norm": "cosine"}, "initbench.components.norms.cosine"),
        ("model", {"family": "resnet"}, "initbench.models.families.resnet"),
        ("init", {"scheme": "sparse"}, "initbench.components.inits.sparse"),
    ],
    ids=str,
)
def test_a_component_counts_where_it_is_named(
    key: str, value: dict[str, Any], module: str, fingerprint_after: Callable[..., str]
) -> None:
    change = replace("options", "choices")
    changed = [fingerprint_after(module, change, **config) for config in ({key: value}, {})]
    assert changed[0] != fingerprint_after(**{key: value})
    assert changed[1] == fingerprint_after()


def test_the_data_set_that_was_found_counts(make_config: Any) -> None:
    assert code_fingerprint(make_config(), "mnist") != code_fingerprint(make_config(), "digits")


def test_moved_files_and_new_lines_keep_it(make_config: Any, tmp_path: Path) -> None:
    """In a copy of the package in which files were renamed, lines were added, and a scheme has come."""
    package = tmp_path / "initbench"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    renamed = {"train/loop.py": "train/updates.py", "theory/quadrature.py": "theory/integrals.py"}
    for old, new in renamed.items():
        (package / old).rename(package / new)
    for file in package.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        for old, new in renamed.items():
            old_module, new_module = (f"initbench.{path[:-3].replace('/', '.')}" for path in (old, new))
            source = source.replace(f"from {old_module} ", f"from {new_module} ")
        head, future, rest = source.partition("from __future__ import annotations\n")
        file.write_text(f"{head}{future}\n# comment\n\n\n{rest}" if future else source, encoding="utf-8")
    schemes = package / "components" / "inits"
    shutil.copy(schemes / "sparse.py", schemes / "added.py")
    added = (schemes / "added.py").read_text(encoding="utf-8").replace('name="sparse"', 'name="added"')
    (schemes / "added.py").write_text(added, encoding="utf-8")
    (package / "components" / "activations" / "piecewise.py").rename(
        package / "components" / "activations" / "kinked.py"
    )
    program = (
        "import json, sys\n"
        "from initbench.config.schema import ExperimentConfig\n"
        "from initbench.runner.code_fingerprint import code_fingerprint\n"
        "from initbench.components.init_scheme import INITS\n"
        "assert 'added' in INITS\n"
        "print(code_fingerprint(ExperimentConfig.model_validate(json.loads(sys.argv[1])), 'digits'))\n"
    )
    config = make_config()
    completed = subprocess.run(
        [sys.executable, "-c", program, json.dumps(config.resolved())],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.strip() == code_fingerprint(config, "digits")


EXECUTED = [
    {},
    {"model": {"family": "cnn", "depth": 4, "width": 8, "norm": "batch"}, "data": {"resize": 16}},
    {"model": {"family": "resnet_mlp", "activation": "gelu"}, "init": {"scheme": "skipinit"}},
    {"init": {"scheme": "lsuv"}, "train": {"optimizer": "adam", "schedule": "cosine"}},
    {"init": {"scheme": "critical"}, "model": {"activation": "tanh"}},
    {"init": {"scheme": {"name": "autoencoder", "steps": 2, "base": "kaiming_uniform"}}},
    {"model": {"norm": "weight", "activation": "prelu"}, "data": {"whiten": "zca"}},
    {"probe": {"covariate_shift": 1}, "data": {"label_noise": 0.1}},
]


@pytest.mark.parametrize("changes", EXECUTED, ids=str)
def test_all_code_that_a_training_executes_is_covered(changes: dict[str, Any], make_config: Any) -> None:
    """An independent twin: the interpreter reports every function of numerical code that it enters."""
    config = make_config(**{**changes, "train": {**changes.get("train", {}), "steps": 2}})
    device = torch.device("cpu")
    mode = training_mode(config, device)
    resolved = resolve_dataset(config.data, DataSource(root=Path("absent"), offline=True))
    task = WorkerTask(
        number=0,
        runs=((config.resolved(), 0),),
        resolved=resolved,
        device="cpu",
        mode=mode,
        threads=1,
        checkpoint_seconds=math.inf,
    )
    data = DatasetCache().of(resolved, config.data, device)
    assert task.configs  # validated now: rules about configs are not numerical code
    executed: set[tuple[str, int]] = set()

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        # Comprehensions, module bodies and the methods of dataclasses have no definition of their own.
        named = not frame.f_code.co_name.startswith("<") and not frame.f_code.co_filename.startswith("<")
        if event == "call" and named and is_numerical(module):
            executed.add((module, frame.f_code.co_firstlineno))

    sys.setprofile(profile)
    try:
        train(task, data, emit=lambda _event: None)
    finally:
        sys.setprofile(None)
    covered, _ = fingerprints._closure(fingerprints.entries_of(config, "digits"))
    missing = {
        f"{module}:{line}"
        for module, line in executed
        if read_module(module).statement_at(line) not in covered
    }
    assert len(executed) > 100
    assert not missing
