"""The command line in this process: `run`, `show`, `compare`, `validate`, `schema` and their exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import Draft202012Validator, ValidationError

from initbench.cli import run as run_command
from initbench.errors import InitbenchError
from initbench.store.store import Store
from initbench.train.cohort import Cohort

TINY = """\
kind: experiment
name: {name}
seeds: {seeds}
data: {{name: digits}}
model: {{family: mlp, depth: 3, width: 16}}
train: {{steps: 20, batch_size: 32, lr: 0.05}}
probe: {{batch: 64, bins: 8}}
"""

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A config file in the current folder, by its name."""

    def to_file(name: str = "tiny", text: str = TINY, *, seeds: int = 1) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.format(name=name, seeds=seeds), encoding="utf-8")
        return Path(path.name)

    return to_file


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training of this process raises in its third update."""
    update, calls = Cohort.update, []

    def raising(self: Cohort, lr: float) -> None:
        calls.append(lr)
        if len(calls) == 3:
            raise RuntimeError("out of luck")
        update(self, lr)

    monkeypatch.setattr(Cohort, "update", raising)


def test_run_trains_stores_and_explains(initbench: Any, write: Write) -> None:
    said = initbench("run", write(seeds=2))
    assert said.code == 0
    assert "mlp 3 × 16 · relu · no norm · kaiming_normal · digits · 2 seeds" in said.out
    for word in ("Activations", "layer 1", "layer 2", "head 3", "Convergence", "step 20", "Diagnosis"):
        assert word in said.out
    assert "tiny: training 2 runs, 20 steps each" in said.err
    assert len(Store(Path("runs")).find([])) == 2


def test_a_second_run_shows_what_is_stored(initbench: Any, write: Write) -> None:
    first = initbench("run", write())
    again = initbench("run", "tiny.yaml")
    assert again.code == 0
    assert again.out == first.out
    assert "1 run already stored; --rerun retrains it" in again.err
    assert initbench("show", "tiny").out == first.out
    rerun = initbench("run", "tiny.yaml", "--rerun")
    assert "training 1 run" in rerun.err
    assert rerun.out == first.out


def test_quiet_says_nothing_on_stderr(initbench: Any, write: Write) -> None:
    said = initbench("run", write(), "--quiet")
    assert (said.code, said.err) == (0, "")
    assert "Convergence" in said.out


def test_a_fallback_is_said_even_when_quiet(initbench: Any, write: Write) -> None:
    said = initbench("run", write(), "data.name=mnist", "data.fallback=digits", "--offline", "--quiet")
    assert said.code == 0
    assert "digits is used instead" in said.err
    assert "digits (in place of mnist)" in said.out


def test_overrides(initbench: Any, write: Write) -> None:
    said = initbench("run", write(), "model.depth=4", "seeds=[7]", "train.steps=3", "--json")
    document = json.loads(said.out)
    assert [run["seed"] for run in document["runs"]] == [7]
    assert document["config"]["model"]["depth"] == 4
    assert [entry["step"] for entry in document["runs"][0]["convergence"]] == [0, 1, 2, 3]


def test_print_config_runs_again_to_the_same_id(initbench: Any, write: Write) -> None:
    printed = initbench("run", write(), "train.optimizer=adam", "seeds=2", "--print-config")
    assert printed.code == 0
    assert not Path("runs").exists()
    Path("printed.yaml").write_text(printed.out, encoding="utf-8")
    ids = [
        [run["run_id"] for run in json.loads(initbench("run", *arguments, "--json").out)["runs"]]
        for arguments in (["tiny.yaml", "train.optimizer=adam", "seeds=2"], ["printed.yaml"])
    ]
    assert ids[0] == ids[1]
    stored = Path("runs") / ids[0][1] / "config.yaml"
    again = json.loads(initbench("run", stored, "--json").out)
    assert [run["run_id"] for run in again["runs"]] == [ids[0][1]]


def test_print_config_of_several_files(initbench: Any, write: Write) -> None:
    said = initbench("run", write("a"), write("b"), "--print-config")
    assert [part["name"] for part in yaml.safe_load_all(said.out)] == ["a", "b"]


def test_json_is_one_document_and_nothing_else(initbench: Any, write: Write) -> None:
    said = initbench("run", write(seeds=2), "--json")
    document = json.loads(said.out, parse_constant=None)
    assert said.out.count("\n") == 1
    assert document["schema"] == "initbench.run/1"
    assert document["experiment"] == "tiny"
    run = document["runs"][1]
    assert run["status"] == "finished"
    assert run["convergence"][0]["step"] == 0
    assert run["snapshots"][-1]["layers"][-1]["act"] is None
    assert json.loads(initbench("show", "tiny", "--json").out) == document


def test_show_reports_the_share_of_evaluations_and_probes(initbench: Any, write: Write) -> None:
    document = json.loads(initbench("run", write(seeds=2), "--json", "-q").out)
    for run in document["runs"]:
        seconds = run["timings"]
        assert run["evaluation_share"] == (seconds["evaluate"] + seconds["probe"]) / seconds["train"]
    shown = initbench("show", "tiny", "--timings")
    assert shown.code == 0
    heading, *lines = shown.out.splitlines()
    assert heading.split() == ["Timings", "train", "evaluate", "probe", "total", "share", "%"]
    for line, run in zip(lines, document["runs"], strict=False):
        seconds = [run["timings"][name] for name in ("train", "evaluate", "probe", "total")]
        share = f"{100 * run['evaluation_share']:.1f}"
        assert line.split() == [run["run_id"], *(f"{value:.2f}" for value in seconds), share]


def test_timings_of_a_run_without_updates_have_no_share(initbench: Any, write: Write) -> None:
    initbench("run", write(), "-q")
    (path,) = Path("runs").glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record["timings"] = None
    path.write_text(json.dumps(record), encoding="utf-8")
    (run,) = json.loads(initbench("show", "tiny", "--json").out)["runs"]
    assert run["evaluation_share"] is None
    assert initbench("show", "tiny", "--timings").code == 0


def test_json_has_one_shape_whatever_is_shown(initbench: Any, write: Write) -> None:
    said = initbench("run", write("a"), write("b", seeds=2), "--json", "-q")
    both = json.loads(said.out)
    assert said.err == ""
    assert json.loads(initbench("show", "a", "b", "--json").out) == both
    for patterns, names in (
        (["a"], ["a"]),
        (["b"], ["b", "b"]),
        (["*-s0-*"], ["a", "b"]),
        (["a", "b"], "abb"),
    ):
        document = json.loads(initbench("show", *patterns, "--json").out)
        assert document.keys() == both.keys()
        assert [run["experiment"] for run in document["runs"]] == list(names)
        assert [run["config"]["name"] for run in document["runs"]] == list(names)
        assert document["experiment"] == (names[0] if len(set(names)) == 1 else None)


def test_json_holds_no_literal_that_is_not_json(initbench: Any, write: Write) -> None:
    """A net that overflows at once: its losses are not numbers."""
    said = initbench("run", write(), "init.scheme={name: constant, value: 1.0e+15}", "--json", "-q")
    assert said.code == 0, "a diverged run is a result"

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    run = json.loads(said.out, parse_constant=refuse)["runs"][0]
    assert run["status"] == "diverged"
    assert run["final"] is None
    assert "diverged" in [finding["code"] for finding in run["diagnosis"]]
    assert '"NaN"' in said.out or '"Infinity"' in said.out


def test_runs_dir_and_its_variable(initbench: Any, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    initbench("run", write(), "--runs-dir", "elsewhere", "-q")
    assert Store(Path("elsewhere")).find(["tiny"])
    monkeypatch.setenv("INITBENCH_RUNS", "elsewhere")
    assert "tiny" in initbench("ls").out
    assert not Path("runs").exists()


def test_compare(initbench: Any, write: Write) -> None:
    for name, scheme in (("a", "kaiming_normal"), ("b", "zeros")):
        initbench("run", write(name, seeds=2), f"init.scheme={scheme}", "train.steps=60", "-q")
    said = initbench("compare", "--json")
    (table,) = json.loads(said.out)["tables"]
    rows = {row["key"]["experiment"]: row for row in table["rows"]}
    assert table["dataset"] == "digits"
    assert (rows["a"]["n"], rows["b"]["n"]) == (2, 2)
    runs = json.loads(initbench("show", "a", "--json").out)["runs"]
    best = [max(entry["val_accuracy"] for entry in run["convergence"]) for run in runs]
    assert rows["a"]["metrics"]["best_val_accuracy"]["mean"] == pytest.approx(sum(best) / 2)
    hidden = [run["snapshots"][0]["layers"] for run in runs]
    first = [layers[0]["act"]["std"] for layers in hidden]
    assert rows["a"]["metrics"]["act_std_init_first"]["mean"] == pytest.approx(sum(first) / 2)
    assert rows["b"]["metrics"]["act_std_init_first"] == {"mean": 0.0, "std": 0.0, "n": 2, "ci": [0.0, 0.0]}
    assert rows["b"]["metrics"]["steps_to_target"]["mean"] is None
    plain = initbench("compare", "a", "--target", "0.99")
    assert plain.code == 0
    assert "steps to 99.0 %" in plain.out
    assert "not reached" in plain.out
    assert "\nb " not in plain.out


def test_compare_and_ls_of_an_empty_store(initbench: Any) -> None:
    for command in ("compare", "ls"):
        said = initbench(command)
        assert (said.code, said.out) == (0, "")
        assert "initbench run configs/relu_kaiming.yaml" in said.err


def test_validate_says_ok_and_trains_nothing(initbench: Any, write: Write) -> None:
    said = initbench("validate", write("a"), write("b"))
    assert (said.code, said.out, said.err) == (0, "a: ok\nb: ok\n", "")
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["validate", "run"])
def test_all_faults_of_all_files_are_told_at_once(initbench: Any, write: Write, command: str) -> None:
    write("one", "kind: experiment\nname: one\nmodel:\n  family: mlp\n  depht: 3\n  activation: rleu\n")
    write("two", "kind: experiment\nname: two\ntrain:\n  lr: fast\n")
    said = initbench(command, "one.yaml", "two.yaml", "missing.yaml", "train.stepz=3")
    assert (said.code, said.out) == (2, "")
    lines = said.err.splitlines()
    assert lines[0].startswith("one.yaml:5:3: model.depht: ")
    assert "did you mean" in lines[0] and "depth" in lines[0]
    assert any(re.match(r"one\.yaml:6:15: model\.activation: .*did you mean 'relu'", line) for line in lines)
    assert any(line.startswith("two.yaml:4:7: train.lr: ") for line in lines)
    assert any(line.startswith("missing.yaml") and "no such file" in line for line in lines)
    assert any("train.stepz" in line and "steps" in line for line in lines)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "tiny.yaml", "train.batch_size=5000"], 2),
        (["run", "tiny.yaml", "--device", "gpu"], 2),
        (["run", "seeds=2"], 2),
        (["run", "tiny.yaml", "--no-such-option"], 2),
        (["no-such-command"], 2),
        (["show", "nothing"], 2),
        (["show"], 2),
        (["compare", "nothing"], 2),
        (["compare", "--target", "1.5"], 2),
        (["rm", "nothing"], 2),
        (["run", "tiny.yaml", "data.name=mnist", "--offline"], 3),
        (["run", "tiny.yaml", "--device", "cuda:99"], 3),
        (["run", "tiny.yaml", "--data-dir", "tiny.yaml", "data.name=mnist"], 3),
        (["--version"], 0),
        (["--help"], 0),
    ],
)
def test_exit_codes(
    initbench: Any, write: Write, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    write()
    said = initbench(*arguments)
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert bool(said.err) == (code != 0)
    assert bool(said.out) == (code == 0)
    assert not Path("runs").exists()


def test_a_runs_dir_that_cannot_be_is_a_storage_error(initbench: Any, write: Write) -> None:
    Path("taken").write_text("", encoding="utf-8")
    said = initbench("run", write(), "--runs-dir", "taken/runs")
    assert said.code == 3
    assert said.err.splitlines()[-1].startswith("initbench: cannot ")


def test_an_experiment_without_its_data_is_told_and_the_others_go_on(initbench: Any, write: Write) -> None:
    absent = write("absent", TINY.replace("name: digits", "name: mnist, fallback: null"))
    said = initbench("run", absent, write("good"), "--offline", "--json")
    assert said.code == 3
    assert "absent: mnist is not in" in said.err
    assert said.err.splitlines()[-1] == "initbench: skipped 1 config (reasons above)"
    assert [run["experiment"] for run in json.loads(said.out)["runs"]] == ["good"]


@pytest.mark.usefixtures("fails_once")
def test_a_failed_experiment_is_told_last_and_the_others_go_on(initbench: Any, write: Write) -> None:
    said = initbench("run", write("bad", seeds=2), write("good"), "--workers", 1)
    assert said.code == 1
    assert "bad failed: RuntimeError: out of luck" in said.err
    store = Store(Path("runs"))
    assert {run_id.split("-")[0]: store.status(run_id) for run_id in store.find([])} == {
        "bad": "failed",
        "good": "finished",
    }
    assert "seed 0 failed: RuntimeError: out of luck" in said.out
    assert "healthy" not in said.out.split("good")[0]
    shown = initbench("show", "bad").out
    assert shown.count("Traceback") == 1, "of both runs, for they failed together"
    assert shown.rstrip().endswith("RuntimeError: out of luck")
    again = initbench("run", "bad.yaml", "--json")
    assert [run["status"] for run in json.loads(again.out)["runs"]] == ["finished"] * 2


@pytest.mark.usefixtures("fails_once")
def test_a_failed_run_has_its_place_in_the_document(initbench: Any, write: Write) -> None:
    said = initbench("run", write(seeds=2), "--json", "--workers", 1)
    assert said.code == 1
    runs = json.loads(said.out)["runs"]
    assert [(run["status"], run["final"]) for run in runs] == [("failed", None)] * 2
    assert "RuntimeError: out of luck" in runs[0]["error"]


def test_a_bug_is_called_one(initbench: Any, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(run_command, "_run_experiments", broken)
    said = initbench("run", write())
    assert said.code == InitbenchError.exit_code == 4
    assert "ZeroDivisionError: oops" in said.err
    assert "this is a bug in initbench" in said.err


def test_piped_output_is_plain_and_not_cut_at_80_columns(
    initbench: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "a_rather_long_name_" * 4
    run = initbench("run", write(name, seeds=3), "-q")
    compare = initbench("compare")
    for out in (run.out, compare.out):
        assert "\x1b" not in out
        assert "…" not in out
        assert max(len(line) for line in out.splitlines()) > 100
    assert f"{name}   mlp" in run.out
    assert compare.out.splitlines()[2].split()[-1] == "diverged"


@pytest.mark.parametrize(
    ("variables", "escapes", "colours"),
    [
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "1"}, False, False),
    ],
)
def test_colour_variables(
    initbench: Any,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    escapes: bool,
    colours: bool,
) -> None:
    initbench("run", write(), "-q")
    monkeypatch.setenv("TERM", "xterm")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    out = initbench("show", "tiny").out
    assert ("\x1b[" in out) == escapes
    assert bool(re.search(r"\x1b\[(\d;)?3\d", out)) == colours


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    from initbench.config.json_schema import json_schema

    document: dict[str, Any] = json.loads(json_schema())
    return document


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema)


CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.y*ml"))


def test_the_configs_of_the_first_step_are_there() -> None:
    names = {path.stem for path in CONFIGS}
    assert names >= {
        "relu_kaiming",
        "relu_xavier",
        "relu_torch_default",
        "relu_zeros",
        "relu_misprint",
        "relu_xavier_batchnorm",
        "relu_xavier_groupnorm",
        "tanh_xavier",
        "sigmoid_xavier",
        "sigmoid_xavier_batchnorm",
        "selu_lecun",
        "relu_lsuv",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid_and_named_as_its_file(
    initbench: Any, validator: Draft202012Validator, path: Path
) -> None:
    said = initbench("validate", path)
    is_lesson = "lessons" in path.parts
    name = re.sub(r"^\d+_", "", path.stem) if is_lesson else path.stem
    assert (said.code, said.out) == (0, f"{name}: ok\n"), said.err
    text = path.read_text(encoding="utf-8")
    first = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert first, "editors find the schema by the first line"
    root = Path(__file__).parents[2]
    assert (path.parent / first[1]).resolve() == (root / "docs" / "config.schema.json").resolve()
    document = yaml.safe_load(text)
    assert is_lesson or 2 <= len(document["notes"].strip().splitlines()) <= 3, "the notes say what to look at"
    validator.validate(document)


@pytest.mark.parametrize(
    "broken",
    [
        {"model": {"family": "mlp", "depht": 3}},
        {"model": {"family": "mlp", "activation": "rleu"}},
        {"model": {"family": "mlp", "depth": "three"}},
        {"train": {"lr": -1.0}},
        {"train": {"optimizer": {"name": "adam", "momentum": 0.9}}},
        {"init": {"scheme": "kaiming"}},
        {"seeds": []},
        {"name": ""},
        {"unknown": 1},
        {"kind": "other"},
    ],
)
def test_the_schema_refuses_what_is_broken(validator: Draft202012Validator, broken: dict[str, Any]) -> None:
    valid = {"kind": "experiment", "name": "x", "seeds": 1, "train": {"lr": 0.1}}
    validator.validate(valid)
    with pytest.raises(ValidationError):
        validator.validate({**valid, **broken})


def test_schema_prints_it_and_the_docs_hold_it(
    initbench: Any, schema: dict[str, Any], repository: Path
) -> None:
    said = initbench("schema")
    assert said.code == 0
    assert json.loads(said.out) == schema
    Draft202012Validator.check_schema(schema)
    shipped = repository / "docs" / "config.schema.json"
    if shipped.is_file():
        assert shipped.read_text(encoding="utf-8") == said.out, "run make docs"
    described = schema["$defs"]["TrainOptions"]["properties"]
    assert all("description" in field for field in described.values())
