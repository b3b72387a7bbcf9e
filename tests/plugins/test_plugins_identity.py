"""Changes of a plug-in that change the code fingerprint of the runs that use it, and changes that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugins.processes import run_python

FILES = {
    "mine.py": """\
import scales
from initbench.components.activation import ACTIVATIONS, Activation
from initbench.components.init_scheme import INITS, Scheme
from torch import nn

FACTOR = 2.0


def fill(weight, *, fan_in, generator, **_):
    weight.normal_(0.0, scales.std(FACTOR, fan_in), generator=generator)


INITS.add(Scheme(name="mine", summary="A scheme.", source="-", fill=fill))
INITS.add(Scheme(name="other", summary="Another.", source="-", fill=lambda weight, **_: weight.fill_(0.5)))
""",
    "scales.py": "from deeper.roots import root\n\n\ndef std(factor, fan):\n    return root(factor / fan)\n",
    "deeper/__init__.py": "SWITCH = 1\n",
    "deeper/roots.py": "from . import powers as p\n\n\ndef root(x):\n    return x ** p.HALF\n",
    "deeper/powers.py": "HALF = 0.5\n",
    "unused.py": "X = 1\n",
}
CHANGES: dict[str, tuple[str, str, str]] = {
    "a comment": ("mine.py", "FACTOR = 2.0", "# of He et al.\nFACTOR = 2.0"),
    "a docstring": ("scales.py", "    return", '    """Return the std."""\n    return'),
    "an annotation": ("scales.py", "def std(factor, fan):", "def std(factor: float, fan) -> float:"),
    "a text of the catalogue": ("mine.py", '"A scheme."', '"The scheme."'),
    "another scheme of the file": ("mine.py", "fill_(0.5)", "fill_(0.25)"),
    "a module that is not imported": ("unused.py", "X = 1", "X = 2"),
    "a constant": ("mine.py", "FACTOR = 2.0", "FACTOR = 2.5"),
    "a module next to it": ("scales.py", "factor / fan", "factor / (fan + 1)"),
    "a module of a package": ("deeper/roots.py", "x ** p", "1 * x ** p"),
    "a constant of a package": ("deeper/powers.py", "0.5", "0.49"),
    "a call when it is imported": ("deeper/__init__.py", "SWITCH = 1", "print()"),
}
WITHOUT_EFFECT = list(CHANGES)[:6]
PROGRAM = """\
import json, os, sys
from pathlib import Path
from initbench import plugins
from initbench.config.schema import ExperimentConfig
from initbench.runner.code_fingerprint import code_fingerprint

changes = json.loads(sys.argv[1])
for name, (file, old, new) in changes.items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        if file:
            path = Path(file)
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        plugins.request_plugins(["mine.py"])
        result = {}
        for scheme in ("mine", "other", "kaiming_normal"):
            data = {"name": "digits"}
            config = {"name": "a", "data": data, "model": {"family": "mlp"}, "init": {"scheme": scheme}}
            result[scheme] = code_fingerprint(ExperimentConfig.model_validate(config), "digits")
        if file:
            path.write_text(text)
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    print(json.dumps([name, json.loads(os.read(reader, 10_000))]))
"""


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, dict[str, str]]:
    """The fingerprints of runs with each scheme, after each change; the empty name is for no change."""
    folder = tmp_path_factory.mktemp("identity")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    changes = {"": ("", "", ""), **CHANGES}
    done = run_python(folder, repository, "-B", "-c", PROGRAM, json.dumps(changes))
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_counts_by_its_meaning_and_where_it_is_used(
    change: str, fingerprints: dict[str, dict[str, str]]
) -> None:
    original, changed = fingerprints[""], fingerprints[change]
    assert len(set(original.values())) == 3
    assert (changed["mine"] == original["mine"]) == (change in WITHOUT_EFFECT)
    assert changed["kaiming_normal"] == original["kaiming_normal"]


@pytest.mark.slow
def test_another_scheme_of_the_file_has_its_own_code(fingerprints: dict[str, dict[str, str]]) -> None:
    original = fingerprints[""]["other"]
    assert fingerprints["another scheme of the file"]["other"] != original
    assert fingerprints["a constant"]["other"] == original
