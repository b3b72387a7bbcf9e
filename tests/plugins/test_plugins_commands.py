"""Plug-ins on the command line: their names in all commands, their failures, and runs without them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.plugins.processes import SCHEME, Call, run_python

PLUGIN = ("--plugin", "my_scheme.py")
COMPLETE = """\
import sys
sys.argv = ["initbench"]
from initbench.cli.main import app
app(prog_name="initbench")
"""


@pytest.mark.slow
def test_runs_use_a_plugin_in_worker_processes_and_are_resumed(call: Call, folder: Path) -> None:
    workers = ("--executor", "local", "--workers", "2", "-q")
    first = call("run", "tiny.yaml", "train.steps=21", *PLUGIN, *workers)
    assert first.returncode == 0, first.stderr
    assert "Plug-ins  init scheme mine: my_scheme" in first.stdout
    stored = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/run.json")}
    assert len(stored) == 2
    again = call("run", "tiny.yaml", "train.steps=21", "--plugin", "my_scheme", *workers)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/run.json")} == stored
    record = json.loads(next(iter(stored)).read_text(encoding="utf-8"))
    entry = {"kind": "init scheme", "name": "mine", "module": "my_scheme"}
    assert record["plugins"] == [{**entry, "distribution": None, "version": None}]
    for command in (["show", "tiny"], ["ls"], ["compare"]):
        shown = call(*command)
        assert (shown.returncode, "tiny" in shown.stdout) == (0, True), shown.stderr
    hint = "init scheme 'mine' came from plug-in my_scheme; name its module or file: --plugin my_scheme.py"
    for arguments in (["run", str(next(iter(stored)).with_name("config.yaml"))], ["explain", "mine"]):
        missing = call(*arguments)
        assert missing.returncode == 2
        assert hint in missing.stderr
        assert "Traceback" not in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["validate", "tiny.yaml"], "tiny: ok"),
        (["catalog", "inits"], "He's variance."),
        (["explain", "mine"], "He's variance."),
        (["schema"], '"mine"'),
        (["lint", "tiny.yaml", "seeds=1"], "tiny"),
        (["probe", "tiny.yaml", "seeds=1"], "tiny"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_names_of_a_plugin_are_known(arguments: list[str], expected: str, forked: Call) -> None:
    done = forked(*arguments, *PLUGIN)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.slow
def test_the_variable_names_plugins_and_completion_knows_them(
    call: Call, folder: Path, repository: Path
) -> None:
    variable = {"INITBENCH_PLUGINS": str(folder / "my_scheme.py")}
    assert call("validate", "tiny.yaml", **variable).returncode == 0
    line = "initbench run tiny.yaml init.scheme=mi"
    for words, variables in ((line, variable), (line.replace("tiny", "--plugin my_scheme tiny"), {})):
        completed = run_python(
            folder,
            repository,
            "-c",
            COMPLETE,
            _INITBENCH_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split()) - 1),
            **variables,
        )
        assert completed.stdout.split() == ["init.scheme=mine"], completed.stderr


FAULTS = {
    "a taken name": (
        SCHEME.replace('"mine"', '"normal"'),
        "init scheme 'normal' of my_scheme is taken: it is a name of 'normal' of"
        " initbench.components.inits.variance_scaling",
    ),
    "a taken alias": (
        SCHEME.replace('name="mine"', 'name="mine", aliases=("Glorot-Normal",)'),
        "the alias 'Glorot-Normal' of init scheme 'mine' of my_scheme is taken: it is a name of"
        " 'xavier_normal'",
    ),
    "an exception": (f"{SCHEME}1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
    "a missing library": (f"import no_such_library\n{SCHEME}", "No module named 'no_such_library'"),
    "an exit": ("raise SystemExit(0)\n", "it exits the process (SystemExit: 0)"),
    "a syntax error": ("def\n", "SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_a_plugin_that_cannot_be_used_is_named(text: str, message: str, forked: Call, folder: Path) -> None:
    (folder / "my_scheme.py").write_text(text, encoding="utf-8")
    done = forked("validate", "tiny.yaml", *PLUGIN)
    assert done.returncode == 2
    assert message in done.stderr
    assert "my_scheme" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_schem", "did you mean my_scheme?"),
        ("my_schem.py", "did you mean my_scheme.py?"),
        ("json.py", "another module is called json; rename the file"),
        ("tiny.yaml", "no such module"),
        ("a,b", "no name has a comma"),
        ("./my-scheme.py", "name the file NAME.py"),
    ],
)
def test_a_wrong_name_is_answered(name: str, message: str, forked: Call, folder: Path) -> None:
    for file in ("json.py", "my-scheme.py"):
        (folder / file).write_text(SCHEME, encoding="utf-8")
    done = forked("validate", "tiny.yaml", "--plugin", name)
    assert done.returncode == 2
    assert message in done.stderr


def test_two_plugins_with_one_name_are_refused(forked: Call, folder: Path) -> None:
    (folder / "other.py").write_text(SCHEME, encoding="utf-8")
    done = forked("catalog", "inits", *PLUGIN, "--plugin", "other")
    assert done.returncode == 2
    assert "init scheme 'mine' of other is taken: it is a name of 'mine' of my_scheme" in done.stderr


ALL_KINDS = f"""\
from dataclasses import replace

from initbench.runner.workers.base import EXECUTORS
from initbench.linting.rule import LINT_RULES
from initbench.components.optimizer import OPTIMIZERS
from initbench.data.dataset import DATASETS
from initbench.models.network import FAMILIES
{SCHEME}
for registry in (EXECUTORS, OPTIMIZERS, DATASETS, FAMILIES):
    first = next(iter(registry))
    registry.add(replace(first, name=f"my_{{first.name}}", aliases=(), suggested_for=()))
"""


def test_one_module_can_add_components_of_every_kind(forked: Call, folder: Path) -> None:
    """Whatever it imports first: no registry is read while initbench is imported."""
    (folder / "my_scheme.py").write_text(ALL_KINDS, encoding="utf-8")
    document = json.loads(forked("catalog", "--json", *PLUGIN).stdout)
    kinds = {
        kind
        for kind in document
        if kind != "schema"
        for entry in document[kind]
        if entry["name"][:3] == "my_"
    }
    assert kinds == {"executors", "optimizers", "datasets", "families"}
    assert "mine" in [entry["name"] for entry in document["inits"]]


@pytest.fixture
def installed(folder: Path) -> str:
    """A path with an installed distribution whose entry point cannot be imported."""
    site = folder / "site"
    metadata = site / "broken-2.5.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken\nVersion: 2.5\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text("[initbench.inits]\nx = broken_module\n", encoding="utf-8")
    (site / "broken_module.py").write_text("import no_such_library\n", encoding="utf-8")
    return str(site)


def test_a_broken_entry_point_is_named_with_its_distribution(
    installed: str, call: Call, repository: Path
) -> None:
    path = {"PYTHONPATH": os.pathsep.join([str(repository), installed])}
    done = call("validate", "tiny.yaml", *PLUGIN, **path)
    assert done.returncode == 2
    assert "plug-in broken_module of broken 2.5 (initbench.inits) cannot be imported" in done.stderr
    assert call("ls", **path).returncode == 0
    assert call("--help", **path).returncode == 0
