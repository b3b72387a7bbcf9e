"""A terminal or pipe that takes ASCII alone gets ASCII forms of all signs that initbench prints."""

from __future__ import annotations

import ast
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from initbench.cli.main import run_command
from initbench.cli.output_streams import install_output_streams
from initbench.render.ascii_text import UNKNOWN, ascii_form
from tests.cli.test_cli_strict import put

PACKAGE = Path(__file__).resolve().parents[2] / "initbench"
SHIPPED = [*PACKAGE.parent.glob("configs/**/*.yaml"), *PACKAGE.rglob("*.json")]
COMMANDS = """\
--help
compare --help
sweep --help
catalog
catalog inits
explain relu
explain xavier_normal
explain batch
explain exploding
ls
watch
watch --help
show relu
show tanh relu --all-layers
compare
compare --baseline relu
compare --metric test_accuracy
compare --layers
compare --by init.scheme,model.activation
compare --only-changed
compare --plot
compare --format markdown
compare --strict --fail-if 'test_accuracy ~= 0.9 within 1 %'
lesson ls 01_symmetry
data ls
merge runs --into merged
validate configs/relu_kaiming.yaml
run configs/relu_kaiming.yaml data.name=digits model.depth=3 model.width=8 train.steps=4 -q
probe configs/relu_kaiming.yaml data.name=digits model.depth=3 model.width=8
lint configs/relu_kaiming.yaml data.name=digits model.depth=3 model.width=8
"""


def _signs() -> Iterator[str]:
    """Yield the characters beyond ASCII in the strings of the package, and in what is shipped with it."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from (sign for sign in node.value if not sign.isascii())
    for path in SHIPPED:
        yield from (sign for sign in path.read_text(encoding="utf-8") if not sign.isascii())


def test_every_sign_of_ours_has_an_ascii_form():
    ends_of_ranges = ("Cs", "Co", "Cn", "Lo")
    signs = {sign for sign in _signs() if unicodedata.category(sign) not in ends_of_ranges}
    assert len(signs) > 40
    for sign in signs:
        form = ascii_form(sign)
        assert form.isascii() and form != UNKNOWN, sign


def test_ascii_forms():
    signs = "→ × ± ² σ Σ λ é █ 漢 x"
    assert " ".join(map(ascii_form, signs.split())) == "-> x +/- ^2 sigma Sigma lambda e # ? x"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A directory with the shipped configs and a few stored runs."""
    folder = tmp_path_factory.mktemp("ascii")
    (folder / "configs").symlink_to(repository / "configs")
    for name, scheme in (("relu", "kaiming_normal"), ("tanh", "xavier_normal")):
        put(folder / "runs", name, init={"scheme": scheme})
    return folder


def printed(words: str, encoding: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """Return what a command prints on stdout and stderr of this encoding."""
    with monkeypatch.context() as patch:
        paths = [folder / "out.txt", folder / "err.txt"]
        with paths[0].open("w", encoding=encoding) as out, paths[1].open("w", encoding=encoding) as err:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            install_output_streams()
            run_command(shlex.split(words))
            sys.stdout.flush()
            sys.stderr.flush()
    return "".join(path.read_text(encoding=encoding) for path in paths)


@pytest.mark.parametrize("words", COMMANDS.splitlines())
def test_no_sign_of_ours_becomes_a_question_mark(
    words: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(place)
    ours = printed(words, "utf-8", monkeypatch, tmp_path)
    plain = printed(words, "ascii", monkeypatch, tmp_path)
    assert plain.strip() and plain.isascii()
    assert plain.count("?") <= ours.count("?"), words
