"""What a run id covers, and what it does not."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import initbench
from initbench.config.schema import ExperimentConfig
from initbench.data.dataset import Located
from initbench.data.resolve import Resolved
from initbench.execute import identity
from initbench.execute.identity import Identity, code_hash, identify

CPU = torch.device("cpu")


def no_data() -> Any:
    raise AssertionError("the identity needs no tensors")


LOCATED = Located(name="digits", fingerprint="abc", load=no_data)
RESOLVED = Resolved(requested="digits", located=LOCATED)


def run_id(
    config: ExperimentConfig, resolved: Resolved = RESOLVED, device: torch.device = CPU, seed: int = 0
) -> str:
    return identify(config, resolved, device).run_id(config.name, seed)


def test_an_id_reads_name_seed_digest(make_config: Any) -> None:
    assert re.fullmatch(r"tiny-s12-[0-9a-f]{10}", run_id(make_config(), seed=12))


def test_seed_data_and_kind_of_device_change_it(make_config: Any) -> None:
    config = make_config()
    other_contents = Resolved(requested="digits", located=replace(LOCATED, fingerprint="abd"))
    other_set = Resolved(requested="digits", located=replace(LOCATED, name="mnist"))
    digests = [
        run_id(config).rpartition("-")[2],
        run_id(config, seed=1).rpartition("-")[2],
        run_id(config, other_contents).rpartition("-")[2],
        run_id(config, other_set).rpartition("-")[2],
        run_id(config, device=torch.device("cuda", 0)).rpartition("-")[2],
    ]
    assert len(set(digests)) == len(digests)
    cuda = [run_id(config, device=torch.device("cuda", index)) for index in (0, 1)]
    assert cuda[0] == cuda[1], "the kind of device matters, not which of them"


CHANGES: list[dict[str, Any]] = [
    {"model": {"depth": 4}},
    {"model": {"width": 17}},
    {"model": {"bias": False}},
    {"model": {"activation": "tanh"}},
    {"model": {"activation": {"name": "leaky_relu", "negative_slope": 0.3}}},
    {"model": {"norm": "batch"}},
    {"model": {"norm_placement": "after_activation"}},
    {"init": {"scheme": "xavier_normal"}},
    {"init": {"gain": 2.0}},
    {"init": {"bias": 0.1}},
    {"init": {"head": "zeros"}},
    {"train": {"steps": 21}},
    {"train": {"lr": 0.051}},
    {"train": {"batch_size": 31}},
    {"train": {"optimizer": "adam"}},
    {"train": {"weight_decay": 1e-4}},
    {"train": {"eval_every": 3}},
    {"data": {"normalize": "none"}},
    {"probe": {"bins": 9}},
]


def test_every_change_of_the_config_changes_it(make_config: Any) -> None:
    ids = {run_id(make_config()), *(run_id(make_config(**change)) for change in CHANGES)}
    assert len(ids) == len(CHANGES) + 1


def test_what_changes_no_number_does_not_change_it(make_config: Any) -> None:
    config = make_config()
    assert run_id(make_config(seeds=7)) == run_id(config)
    assert run_id(make_config(seeds=[0, 9])) == run_id(config)
    assert run_id(make_config(notes="look here")) == run_id(config)
    assert run_id(make_config(name="other")).rpartition("-")[2] == run_id(config).rpartition("-")[2]
    written_out = ExperimentConfig.model_validate(config.resolved())
    assert run_id(written_out) == run_id(config), "a default written out is the same config"
    backwards = ExperimentConfig.model_validate(reversed_keys(config.resolved()))
    assert run_id(backwards) == run_id(config)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


def test_the_digest_does_not_depend_on_the_order_of_its_parts() -> None:
    one, two = Identity({"a": {"x": 1, "y": [1, 2]}, "b": 2}), Identity({"b": 2, "a": {"y": [1, 2], "x": 1}})
    assert one.arm == two.arm
    assert one.arm != Identity({"a": {"x": 1, "y": [2, 1]}, "b": 2}).arm


def test_torch_and_the_code_change_it(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(make_config())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9.9")
        assert run_id(make_config()) != before
    monkeypatch.setattr(identity, "code_hash", lambda: "other")
    assert run_id(make_config()) != before


@pytest.fixture
def copied_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which code_hash reads in place of the real one."""
    package = tmp_path / "initbench"
    shutil.copytree(Path(initbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(initbench, "__file__", str(package / "__init__.py"))
    yield package
    code_hash.cache_clear()


def fresh_hash() -> str:
    code_hash.cache_clear()
    return code_hash()


def test_a_change_of_numerical_code_changes_the_hash(copied_package: Path) -> None:
    hashes = [fresh_hash()]
    assert fresh_hash() == hashes[0]
    for file in (
        "streams.py",
        "theory/quadrature.py",
        "components/norms/standard.py",
        "components/optimizer.py",
        "models/families/mlp.py",
        "data/sets/digits.py",
        "probing/moments.py",
        "train/cohort.py",
    ):
        path = copied_package / file
        path.write_text(path.read_text(encoding="utf-8") + "# a change\n", encoding="utf-8")
        hashes.append(fresh_hash())
    (copied_package / "train" / "new.py").touch()
    hashes.append(fresh_hash())
    assert len(set(hashes)) == len(hashes)


def test_a_change_of_a_table_does_not(copied_package: Path) -> None:
    before = fresh_hash()
    for file in ("report/text.py", "cli/run.py", "store/store.py", "compare/rows.py", "data/obtain/fetch.py"):
        path = copied_package / file
        path.write_text(path.read_text(encoding="utf-8") + "# a change\n", encoding="utf-8")
    assert fresh_hash() == before


def test_the_hash_covers_all_that_training_imports() -> None:
    """But for the config, whose resolved values are in the digest themselves, and what has no numbers."""
    package = Path(initbench.__file__).parent
    reached: set[str] = set()
    todo = ["train.loop", "train.start", "data.prepare"]
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        path = package / (module.replace(".", "/") + ".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("initbench."):
                below = str(node.module).removeprefix("initbench.")
                todo += [below] if (package / (below.replace(".", "/") + ".py")).is_file() else []
    parts = {module.partition(".")[0] for module in reached}
    covered = {part.removesuffix(".py") for part in identity._NUMERICAL}
    assert "train" in parts and "components" in parts
    assert parts - covered == {"errors", "registry", "choice", "config"}
