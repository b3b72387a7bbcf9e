"""The pages agree with the code: generated pages are fresh, quoted commands exist, links resolve.

`make docs` rewrites a stale page.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from initbench.cli.lazy_group import load_command
from initbench.cli.load_configs import load_experiments
from initbench.cli.main import app
from initbench.study.load import load_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "runs/README.md")
    for path in sorted(ROOT.glob(pattern))
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    for name in [name for name in sys.modules if name == "docs" or name.startswith("docs.")]:
        monkeypatch.delitem(sys.modules, name)
    import docs.generate

    return docs.generate


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def quoted(path: Path, *, with_output: bool = True) -> Iterator[str]:
    """Yield every `initbench …` command line of a page, in fences and in running text.

    Commands in `console` fences precede their output, which may be an error.
    """
    text = path.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if with_output or language != "console" else ():
            command = re.sub(r"^(\$ )?([A-Z_]+=\S+ )*", "", line.strip())
            if command.startswith("initbench "):
                yield command
    for code in re.findall(r"`(initbench [^`]+)`", FENCE.sub("", text)):
        yield " ".join(code.split())


def _lines(*, with_output: bool) -> list[tuple[str, str]]:
    commands = {(_name(path), line) for path in PAGES for line in quoted(path, with_output=with_output)}
    return sorted(commands)


COMMANDS = _lines(with_output=True)
RUNNABLE = [
    (page, line) for page, line in _lines(with_output=False) if re.search(r"\bconfigs/\S+\.yaml", line)
]
END = re.compile(r"[|<>&].*")


def test_the_pages_quote_commands():
    assert len(COMMANDS) > 20


def test_generated_pages_are_fresh(generate):
    assert generate.stale() == []


def test_a_stale_page_is_found(generate):
    assert generate.stale({"README.md": lambda current: current + "x"}) == ["README.md"]


def _words(line: str) -> list[str]:
    """Return the words after `initbench`, up to a pipe or a redirection, without [placeholders]."""
    words = shlex.split(line, comments=True)[1:]
    end = next((i for i, word in enumerate(words) if END.fullmatch(word)), None)
    return [word for word in words[:end] if not word.startswith("[")]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_quoted_command_exists(page: str, line: str):
    words, command = _words(line), typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: no command {words[0]!r} in: {line}"
        command = load_command(command.commands[words.pop(0)])
    options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    for word in words:
        assert not word.startswith("-") or word.split("=")[0] in options, (
            f"{page}: no option {word!r} in: {line}"
        )
    if hasattr(command, "commands") or {"--help", "-h"} & set(words) or "[OPTIONS]" in line:
        return  # "[OPTIONS]" stands for required options, too
    if not words and (command.no_args_is_help or any(parameter.required for parameter in command.params)):
        return  # named in running text, without its arguments
    command.make_context("initbench", words)


@pytest.mark.parametrize(("page", "line"), RUNNABLE)
def test_a_quoted_config_and_its_overrides_load(page: str, line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    command, *words = _words(line)
    words = words[: next((i for i, word in enumerate(words) if word.startswith("-")), None)]
    files = [file for word in words for file in _expanded(word)]
    loaded = load_sweep(files[0], files[1:]).variants if command == "sweep" else load_experiments(files)
    assert loaded, f"{page}: {line}"


def _expanded(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_resolve(path: Path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{_name(path)} links to {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{_name(path)} links to {target}"


def _anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_entry_is_in_the_catalogue(generate):
    from initbench.config.registry_fields import registry_fields

    catalogue = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    for kind in registry_fields():
        for entry in kind.registry:
            assert f"| `{entry.name}` |" in catalogue


def test_every_shipped_config_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"configs/{path.name}" in readme


def test_a_measured_command_stands_with_its_output(generate, tmp_path: Path):
    from docs.generators import measured

    render = measured.renderer(tmp_path, ROOT / "configs")
    page = render("<!-- measured: initbench compare --sort label -->\nold\n<!-- /measured -->\n")
    assert "```console\n$ initbench compare --sort label\n\nNo runs in " in page
    assert "old" not in page
    assert render(page) == page


def test_the_page_on_comparisons_names_every_metric():
    from initbench.analysis.metrics import METRICS

    text = (ROOT / "docs/compare.md").read_text(encoding="utf-8").partition("## Metrics")[2]
    for name in METRICS:
        assert f"`{re.sub(r'_(init|end)_(first|middle|last)$', '', name)}`" in text, name
