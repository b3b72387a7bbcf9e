"""The shape of the code: floors, cycles, sizes, docstrings, and what must never stand in it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "initbench"
FLOORS = (
    "errors",
    "interrupts",
    "paths",
    "optional_packages",
    "plugins",
    "registry",
    "user_functions",
    "registry_choice",
    "machine",
    "rng",
    "determinism",
    "torch_defaults",
    "theory",
    "components",
    "trace",
    "models",
    "data",
    "config",
    "probing",
    "linting",
    "train",
    "store",
    "pretrain",
    "runner",
    "diagnostics",
    "analysis",
    "study",
    "cluster",
    "render",
    "export",
    "report",
    "testing",
    "results",
    "api",
    "cli",
)
"""From the ground up: a file imports only from floors that stand before its own, and from its own."""

NEVER = {
    "analysis": {
        "torch",
        "numpy",
        "train",
        "runner",
        "diagnostics",
        "probing",
        "models",
        "data",
        "config",
        "components",
    },
    "store": {"torch", "numpy", "safetensors", "train", "models", "data", "config", "components"},
    "theory": {"components", "models", "data", "config"},
}
"""What a floor must do without although it stands below: tables of stored runs need no torch."""

FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 600, 80


def name_of(file: Path) -> str:
    """`initbench.train.loop`; a package carries its own name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that is imported, wherever in the file; `from package import module` as the module."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else str(node.module)


def floor_of(module: str) -> str | None:
    """The floor of an initbench module; None for the root, which only states the version."""
    parts = module.split(".")
    return parts[1] if parts[0] == "initbench" and len(parts) > 1 else None


def offences(found: Iterator[str]) -> None:
    lines = sorted(found)
    assert not lines, "\n" + "\n".join(lines)


def place(file: Path, line: int = 1) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def test_every_module_has_a_floor() -> None:
    floors = {floor_of(module) for module in MODULES} - {None, "__main__"}
    assert floors <= set(FLOORS), "name the new floor in FLOORS, where it belongs"
    assert len(FILES) > 60, "the files are found"


def test_a_file_imports_only_from_floors_below_its_own() -> None:
    def found() -> Iterator[str]:
        for module, file in MODULES.items():
            own = floor_of(module)
            if own in (None, "__main__"):
                continue
            for line, imported in imports(file):
                other = floor_of(imported)
                if other is not None and FLOORS.index(other) > FLOORS.index(str(own)):
                    yield f"{place(file, line)}: {own} stands below {other}"

    offences(found())


def test_what_some_floors_do_without() -> None:
    def found() -> Iterator[str]:
        for module, file in MODULES.items():
            for line, imported in imports(file):
                top = floor_of(imported) or imported.partition(".")[0]
                if top in NEVER.get(str(floor_of(module)), set()):
                    yield f"{place(file, line)}: imports {imported}"

    offences(found())


def test_no_import_cycle() -> None:
    graph = {
        module: {imported for _, imported in imports(file) if imported in MODULES} - {module, "initbench"}
        for module, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    assert done == set(graph)


def test_init_files_are_empty() -> None:
    inits = [file for file in FILES if file.name == "__init__.py" and file.parent != PACKAGE]
    assert len(inits) > 10
    offences(place(file) for file in inits if file.read_text(encoding="utf-8").strip())
    folders = {file.parent for file in FILES}
    offences(str(folder) for folder in folders if not (folder / "__init__.py").is_file())


def test_no_file_is_long() -> None:
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    offences(f"{place(file)}: {size} lines" for file, size in sizes.items() if size > MAX_FILE_LINES)


def test_no_function_is_long() -> None:
    def found() -> Iterator[str]:
        for file in FILES:
            for node in ast.walk(tree(file)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    if lines > MAX_FUNCTION_LINES:
                        yield f"{place(file, node.lineno)}: {node.name} has {lines} lines"

    offences(found())


def test_what_is_public_has_a_docstring() -> None:
    """Modules, classes, functions and methods but for dunders, setters and nested functions."""

    def missing(file: Path, body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            setter = any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
            if not node.name.startswith("_") and not setter and ast.get_docstring(node) is None:
                yield f"{place(file, node.lineno)}: {node.name}"
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from missing(file, node.body)

    def found() -> Iterator[str]:
        for file in FILES:
            module = tree(file)
            if module.body and ast.get_docstring(module) is None:
                yield place(file)
            yield from missing(file, module.body)

    offences(found())


BANNED_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
EXCEPTIONS = {"initbench.data.safe_unpickle": {"pickle"}}
"""CIFAR is published as pickles; their one reader refuses all that is no array, and never loads plainly."""
BANNED_NAMES = {"eval", "exec", "compile", "__import__"}
BANNED_CALLS = {
    "pickle.load",
    "pickle.loads",
    "torch.save",
    "os.system",
    "os.popen",
    "numpy.fromstring",
}


def test_nothing_that_runs_what_a_file_says() -> None:
    def found() -> Iterator[str]:
        for file in FILES:
            for line, imported in imports(file):
                if imported.partition(".")[0] in BANNED_MODULES - EXCEPTIONS.get(name_of(file), set()):
                    yield f"{place(file, line)}: imports {imported}"
            for node in ast.walk(tree(file)):
                if isinstance(node, ast.Call) and (problem := unsafe(node)):
                    yield f"{place(file, node.lineno)}: {problem}"

    offences(found())


def unsafe(call: ast.Call) -> str | None:
    """Why a call can run code that stands in a data file, or None."""
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in BANNED_NAMES or name in BANNED_CALLS:
        return name
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return f"{name} without weights_only=True"
    if re.fullmatch(r"yaml\.(\w+_)?load(_all)?", name) and keywords.get("Loader") != "_Reader":
        return f"{name} without the strict loader"
    if name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
        return f"{name} without allow_pickle=False"
    return "a shell" if keywords.get("shell") not in (None, "False") else None


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=asked)",
        "pickle.loads(text)",
        "yaml.load(text)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_rule_knows_what_is_unsafe(text: str) -> None:
    (statement,) = ast.parse(text).body
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    assert unsafe(statement.value)


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


# Written in pieces, or this file would be its own first finding.
PLACES = re.compile(
    "|".join(
        [
            r"(?<![\w.~>}])/(?:" + "work" + "|" + "home" + "|" + "Users" + "|" + "root" + r")/\w",
            r"[A-Z]:\\\\?" + r"Users\\",
            "index" + "-url",
            "trusted" + "-host",
            "pythonhosted" + r"\.",
            "arti" + "factory",
            "code" + "artifact",
            r"pypi\.(?!" + r"org/p)",
        ]
    ),
    re.IGNORECASE,
)


def test_no_machine_or_package_host_is_named() -> None:
    def found() -> Iterator[str]:
        for file in tracked_files():
            if not file.is_file():
                continue
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                continue
            for number, line in enumerate(lines, 1):
                if match := PLACES.search(line):
                    yield f"{place(file, number)}: {match[0]}"

    offences(found())


@pytest.mark.parametrize(
    "text", ["see /wo" + "rk/main/x", "'/ho" + "me/me/data'", "--extra-index" + "-url x"]
)
def test_the_rule_knows_a_machine(text: str) -> None:
    assert PLACES.search(text)
    assert not PLACES.search("runs/<run_id>/home/x and ../shared/data and https://pypi.org/project/x")
