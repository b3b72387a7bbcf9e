"""Words of the command line: headings for metrics, keys with `.name`, shipped configs, modules by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initbench.analysis.metrics import METRICS, resolve_metric_name
from initbench.render.compare import formatting
from tests.cli.test_cli_compare import put

Initbench = Callable[..., Any]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("relu", "tanh"):
        for seed in range(2):
            put(tmp_path / "runs", name, seed)
    return tmp_path / "runs"


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_named_by_its_heading(name: str) -> None:
    for target in (None, 0.867):
        assert resolve_metric_name(formatting.metric_heading(METRICS[name], target)) == name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Test %", "test_accuracy"),
        ("test acc", "test_accuracy"),
        ("val %", "final_val_accuracy"),
        ("steps to 86.7 %", "steps_to_target"),
        ("accuracy", None),
    ],
)
def test_other_words_for_a_metric(word: str, name: str | None) -> None:
    assert resolve_metric_name(word) == name


@pytest.mark.parametrize(
    "options",
    [
        ("--metric", "test %"),
        ("--metric", "test %,train loss"),
        ("--metric", "test_accuracy final_val_loss"),
        ("--columns", "n,final val %,val %, batch statistics"),
        ("--columns", "data.name,model.norm.name,test %"),
        ("--sort", "-test %"),
        ("--sort", "experiment"),
        ("--where", "data.name=mnist"),
        ("--where", "init.scheme.name!=zeros"),
        ("--by", "data.name"),
    ],
)
def test_compare_reads_what_it_prints(initbench: Initbench, runs: Path, options: tuple[str, str]) -> None:
    said = initbench("compare", "--runs-dir", str(runs), *options)
    assert said.code == 0, said.err
    assert "relu" in said.out or "mnist" in said.out


def test_a_key_is_answered_by_its_last_part(initbench: Initbench, runs: Path) -> None:
    said = initbench("compare", "--runs-dir", str(runs), "--where", "lr=0.1")
    assert said.code == 2
    assert "did you mean 'train.lr'?" in said.err


@pytest.mark.parametrize(
    "name", ["relu_kaiming", "relu_kaiming.yaml", "configs/relu_kaiming.yaml", "depth_by_init"]
)
def test_shipped_configs_are_read_by_name(
    initbench: Initbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = initbench("validate", name)
    assert said.out == f"{Path(name).stem}: ok\n"


def test_a_file_of_the_user_goes_before_a_shipped_one(
    initbench: Initbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relu_kaiming.yaml").write_text("name: mine\n")
    assert initbench("validate", "relu_kaiming").out == "mine: ok\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("relu_kaimng", "did you mean the shipped config 'relu_kaiming'?"),
        ("train.lr", "to set a key, write train.lr=VALUE"),
    ],
)
def test_what_is_no_file_is_answered_with_what_it_may_be(
    initbench: Initbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = initbench("validate", word)
    assert answer.code == 2
    assert said in answer.err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("./nets.py:make", "write nets:make"),
        ("nets.py:make", "write nets:make"),
        ("sub/nets.py:make", "write sub.nets:make"),
        ("nets.py", "write nets:FUNCTION"),
        ("nets.make", "write nets:make"),
        ("../nets.py:make", "write nets:make, in the folder .."),
    ],
)
def test_a_module_by_its_file_is_answered_with_its_name(initbench: Initbench, path: str, said: str) -> None:
    answer = initbench("probe", "--model", path, "--input", "8")
    assert answer.code == 2
    assert answer.err.rstrip().endswith(said)


@pytest.mark.parametrize("word", ["he_normal", "HeNormal", "inits/glorot_normal", "BatchNorm2d", "swish"])
def test_explain_takes_the_names_of_others(initbench: Initbench, word: str) -> None:
    assert initbench("explain", word).code == 0


def test_explain_names_all_that_a_word_may_mean(initbench: Initbench) -> None:
    said = initbench("explain", "xavier")
    assert said.code == 2
    assert "did you mean inits/xavier_normal or inits/xavier_uniform?" in said.err
