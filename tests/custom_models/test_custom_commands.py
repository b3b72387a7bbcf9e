"""`--model` of the commands: messages of what is wrong, identity by meaning, and what stored runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from initbench.models.model_factory import load_factory

NETS = "tests.custom_models.nets_of_tests"
CONFIG = """\
name: mine
data: {name: digits}
model: {family: custom}
train: {steps: 4, batch_size: 32}
probe: {batch: 32, bins: 8}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(CONFIG, encoding="utf-8")
    yield
    load_factory(None)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("raises", (), "could not build a network: RuntimeError: no such net"),
        ("number", (), "returned int, not an nn.Module"),
        ("other_classes", (), "a tensor of shape (B, 7), and the logits of 10 classes have shape (B, 10)"),
        ("without_parameters", (), "the module has no trainable parameters"),
        ("frozen", (), "the module has no trainable parameters"),
        ("in_float64", (), "blocks.0.linear.weight is float64; train in float32"),
        ("lazy", (), "1.weight belongs to a lazy layer, which has no shape yet"),
        (
            "embedding",
            (),
            "cannot take the samples, float32 of shape (B, 1, 8, 8): RuntimeError: Expected tensor",
        ),
        ("dictionary", (), "forward returns dict, and training needs a tensor of logits"),
        (
            "requires_width",
            (),
            "model.options.width: --model tests.custom_models.nets_of_tests:requires_width",
        ),
        ("mlp", ("model.options.widht=3",), "unknown argument 'widht'; did you mean 'width'?"),
        ("without_parameters", ("model.options.depth=3",), "model.options.depth: "),
        ("mlp", ("model.options.classes=3",), "model.options.classes: the data decide it; remove it"),
        ("mlp", ("model.options.activation=relu",), "model.options.activation: write model.activation"),
        (
            "mlp",
            ("model.norm=batch",),
            "model.norm: --model tests.custom_models.nets_of_tests:mlp has no argument",
        ),
        (
            "functional",
            ("model.activation=tanh",),
            "has no argument 'activation', so it decides; remove the key",
        ),
        ("mlp", ("model.bias=false",), "model.bias: the function of --model decides it; remove the key"),
        ("mlp", ("model.activation=maxout",), "model.activation: maxout mixes channels"),
        ("mlp", ("model.family=mlp",), "--model cannot be combined with model.family=mlp"),
        ("mlp", ("init.scheme=fixup",), "init.scheme: fixup edits the branches of a residual net"),
        ("mlp", ("init.scheme=autoencoder",), "init.scheme: autoencoder trains the layers"),
        ("convolutional", ("init.scheme=identity",), "init.scheme: identity fills matrices"),
        ("exchangeable", ("model.norm={name: group, num_groups: 5}",), "model.norm.num_groups: "),
        ("missing", (), "there is no attribute 'missing'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(initbench, name, changes, message):
    said = initbench("run", "mine.yaml", "--model", f"{NETS}:{name}", "-q", *changes)
    assert said.code == 2
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("runs").exists() or not any(Path("runs").glob("mine-*"))


def test_a_stored_run_says_what_it_needs_and_resuming_requires_it(initbench):
    said = initbench("run", "mine.yaml", "--model", f"{NETS}:mlp", "-q", "model.options.depth=3")
    assert said.code == 0
    (directory,) = Path("runs").glob("mine-s0-*")
    config = (directory / "config.yaml").read_text(encoding="utf-8")
    assert "nets_of_tests" not in config
    assert "depth: 3" in config
    entry = json.loads((directory / "run.json").read_text(encoding="utf-8"))["custom_model"]
    assert entry["module"] == NETS
    made = f"made with --model mlp of module {NETS}, code {entry['code']}"
    assert made in said.out.replace("\n", " ")
    load_factory(None)
    assert made in initbench("show", "mine").out.replace("\n", " ")
    assert "mine-s0" in initbench("ls").out
    assert initbench("compare").code == 0
    again = initbench("run", directory / "config.yaml")
    assert again.code == 2
    assert "custom is a net of your own: name the function that builds it with --model" in again.err
    assert f"the stored runs of mine were {made}" in again.err
    repeated = initbench("run", directory / "config.yaml", "--model", f"{NETS}:mlp", "-q")
    assert repeated.code == 0
    assert len(list(Path("runs").glob("mine-*"))) == 1, "the stored run is shown, not trained again"


LESSON = """\
kind: lesson
name: zeros
question: Does the net learn from zeros?
source: "-"
base:
  seeds: 2
  data: {name: digits}
  train: {steps: 60, batch_size: 32, lr: 0.1}
  probe: {when: [init, end], batch: 32, bins: 8}
arms:
  zeros: {init.scheme: zeros}
  as_built: {init.scheme: as_built}
  deep: {init.scheme: kaiming_normal, model.options.depth: 5}
claims:
  - says: Units that start equal stay equal
    holds_if: zeros.max_layer(unit_spread@end) < 0.000001
  - says: Kaiming keeps the signal
    holds_if: deep.min_layer(q@init) > 0.01
"""


def test_a_lesson_trains_the_net_of_the_user(initbench):
    Path("zeros.yaml").write_text(LESSON, encoding="utf-8")
    model = ("--model", f"{NETS}:mlp")
    said = initbench("lesson", "zeros.yaml", *model, "-q", "--json", "--workers", "1")
    assert said.code == 0, said.err
    (lesson,) = json.loads(said.out)["lessons"]
    assert [claim["verdict"] for claim in lesson["claims"]] == ["supported", "supported"]
    records = {
        arm["name"]: json.loads((Path("runs") / arm["runs"][0] / "run.json").read_text(encoding="utf-8"))
        for arm in lesson["arms"]
    }
    assert {record["custom_model"]["function"] for record in records.values()} == {"mlp"}
    assert records["deep"]["parameters"] > records["as_built"]["parameters"]
    assert records["as_built"]["final"]["val_accuracy"] > records["zeros"]["final"]["val_accuracy"] + 0.1
    assert initbench("validate", "zeros.yaml", *model).code == 0
    listed = json.loads(initbench("lesson", "ls", "zeros.yaml", *model, "--json").out)["lessons"]
    assert [entry["runs"]["missing"] for entry in listed] == [0]

    without = initbench("lesson", "zeros.yaml")
    assert without.code == 2
    assert (
        "arms.deep.model.options.depth: needs a family: options is a key of custom; pass --model"
        in without.err
    )
    assert f"were made with --model mlp of module {NETS}" in without.err
    assert "unknown key" in initbench("lesson", "symmetry", *model).err


SOURCE = '''\
from torch import nn
from {name}_parts import WIDTH

FACTOR = 1
OTHER = 5


def make(input_shape, classes):
    """Return a net."""
    width = FACTOR * WIDTH
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


def another(input_shape, classes):
    return nn.Linear(OTHER, classes)
'''
PARTS = "WIDTH = 16\nUNUSED = 1\n"


def run_id(initbench, name: str, change: tuple[str, str] = ("", "")) -> str:
    """The id of the run of a module with a changed source; a process imports each module once."""
    for file, text in ((name, SOURCE.format(name=name)), (f"{name}_parts", PARTS)):
        Path(f"{file}.py").write_text(text.replace(*change) if change[0] else text, encoding="utf-8")
    said = initbench("run", "mine.yaml", "--model", f"{name}:make", "-q", "--json", "--runs-dir", name)
    assert said.code == 0, said.err
    (run,) = json.loads(said.out)["runs"]
    return str(run["run_id"])


def test_the_meaning_of_the_code_is_part_of_the_identity(initbench):
    original = run_id(initbench, "nets_original")
    assert run_id(initbench, "nets_docstring", ("Return a net.", "Return the net.")) == original
    assert run_id(initbench, "nets_comment", ("FACTOR = 1", "FACTOR = 1  # of the width")) == original
    assert run_id(initbench, "nets_other", ("OTHER = 5", "OTHER = 6")) == original
    assert run_id(initbench, "nets_unused", ("UNUSED = 1", "UNUSED = 2")) == original
    assert run_id(initbench, "nets_constant", ("FACTOR = 1", "FACTOR = 2")) != original
    assert run_id(initbench, "nets_parts", ("WIDTH = 16", "WIDTH = 17")) != original
    assert run_id(initbench, "nets_body", ("nn.ReLU()", "nn.Tanh()")) != original


def test_probe_lint_and_validate_take_a_config_and_a_function(initbench):
    arguments = ("mine.yaml", "--model", f"{NETS}:mlp", "init.scheme=xavier_normal")
    probed = initbench("probe", *arguments, "seeds=2", "model.options.depth=6", "--json")
    assert probed.code == 0
    document = json.loads(probed.out)
    assert [layer["name"] for layer in document["layers"]][-1] == "head"
    assert document["layers"][0]["predicted"]["q"] is not None
    assert initbench("lint", *arguments).code == 0
    assert initbench("validate", *arguments).out == "mine: ok\n"
    assert initbench("probe", "mine.yaml").code == 2
    both = initbench("probe", *arguments, "--input", "1,8,8")
    assert both.code == 2
    assert "a config, which sets data.name instead" in both.err


def test_lint_compares_with_the_declared_scheme(initbench):
    """Weights that are as built differ from a declared scheme only if they are drawn by another one."""
    for scheme in ("as_built", "kaiming_normal", "orthogonal"):
        said = initbench(
            "lint", "mine.yaml", "--model", f"{NETS}:mlp", f"init.scheme={scheme}", "--fail-on", "any"
        )
        assert said.code == 0, said.out
