"""Sessions that train in a thread, and the code that a driver sends to machines of its cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from initbench import plugins
from initbench.data.dataset import DataSource
from initbench.models.model_factory import load_factory
from initbench.runner import plan as planning
from initbench.runner.plan import RunContext
from initbench.runner.workers import ray_actor
from initbench.runner.workers.base import Died, Event, Failed, Finished, ReleaseRequest, Reported
from initbench.runner.workers.code_archive import CodeArchive, collect_code
from initbench.runner.workers.ray_actor import install_code
from initbench.runner.workers.task import WorkerTask
from initbench.runner.workers.training_session import CodeVersions, TrainingSession, code_versions
from initbench.store.store import Store
from initbench.train.events import Advanced, Checkpointed, Diagnosed, Released

MakeTask = Callable[..., WorkerTask]


@pytest.fixture
def make_task(make_config: Any, tmp_path: Path) -> MakeTask:
    def make(**changes: Any) -> WorkerTask:
        config = make_config(**changes)
        source = DataSource(root=tmp_path, offline=True)
        context = RunContext(store=Store(tmp_path / "runs"), source=source, device=torch.device("cpu"))
        return WorkerTask(
            number=7,
            runs=tuple((config.resolved(), seed) for seed in config.seed_list),
            resolved=planning.plan(config, context).resolved,
            device="cpu",
            mode="vmap",
            threads=1,
            checkpoint_seconds=1e9,
        )

    return make


def all_events(session: TrainingSession) -> Iterator[Event]:
    while True:
        for event in session.events():
            yield event
            if isinstance(event, Finished | Failed | Died):
                return


def test_a_session_reports_the_whole_training_with_its_machine(make_task: MakeTask) -> None:
    session = TrainingSession()
    for seeds in (2, 1):
        session.begin(make_task(seeds=seeds))
        events = list(all_events(session))
        assert events[-1] == Finished(7)
        reported = [event.event for event in events if isinstance(event, Reported)]
        results = [event.result for event in reported if isinstance(event, Diagnosed)]
        assert len(results) == seeds
        assert all({"processor", "cores", "system"} == set(result["machine"]) for result in results)
        assert pickle.loads(pickle.dumps(events)) == events


def test_a_session_stops_after_a_checkpoint(make_task: MakeTask) -> None:
    session = TrainingSession()
    session.begin(make_task(seeds=2, train={"steps": 100_000}))
    kinds: list[type] = []
    for event in all_events(session):
        if isinstance(event, Reported):
            kinds.append(type(event.event))
            if kinds.count(Advanced) == 2:
                session.stop()
    assert isinstance(event, Died)
    assert kinds[-2:] == [Checkpointed, Checkpointed]


def test_a_session_releases_runs_of_its_task_only(make_task: MakeTask) -> None:
    session = TrainingSession()
    session.begin(make_task(seeds=3, train={"steps": 2_000}))
    session.request_release(ReleaseRequest(6, 2))
    session.request_release(ReleaseRequest(7, 1))
    reported = [event.event for event in all_events(session) if isinstance(event, Reported)]
    assert [event.runs for event in reported if isinstance(event, Released)] == [(2,)]
    assert sum(isinstance(event, Diagnosed) for event in reported) == 2


def test_a_session_ends_that_takes_too_much_memory(make_task: MakeTask) -> None:
    session = TrainingSession(memory=1e6)
    session.begin(make_task(train={"steps": 500}))
    *_, last = all_events(session)
    session.stop()
    assert isinstance(last, Died) and last.out_of_memory
    assert last.reason.startswith("its worker process took ")


def test_other_code_is_recognised() -> None:
    here = code_versions()
    assert here.difference(code_versions()) is None
    assert "torch" in here.distributions
    other = CodeVersions(here.package, {**here.distributions, "torch": "1.0"})
    difference = here.difference(other)
    assert difference is not None and difference.startswith("torch 1.0 there, and ")
    without = CodeVersions(here.package, {"numpy": here.distributions["numpy"]})
    assert str(here.difference(without)).startswith("torch is not installed there, and ")
    assert here.difference(CodeVersions("0", here.distributions)) == "other code of initbench there"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of the user: a package whose net needs its neighbour, and a file with a loss."""
    for name, text in {
        "travelled/__init__.py": "",
        "travelled/nets.py": "from travelled.sizes import WIDTH\ndef make():\n    return WIDTH\n",
        "travelled/sizes.py": "WIDTH = 8\n",
        "travelled/unused.py": "",
        "travelled_losses.py": "def own(output, y):\n    return output.mean()\n",
    }.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    monkeypatch.setenv(plugins.LOSS_VARIABLE, "travelled_losses:own")
    load_factory("travelled.nets:make")
    yield tmp_path / "project"
    load_factory(None)


def test_the_code_of_the_user_travels(project: Path) -> None:
    archive = collect_code()
    own = {name for name in archive.files if not name.startswith("initbench/")}
    modules = {"travelled/__init__.py", "travelled/nets.py", "travelled/sizes.py", "travelled_losses.py"}
    assert own == modules, "and nothing that they do not import"
    assert archive.variables == {plugins.VARIABLE: "", plugins.LOSS_VARIABLE: "travelled_losses:own"}
    assert "initbench/train/loop.py" in archive.files
    (project / "travelled" / "sizes.py").write_text("WIDTH = 9\n", encoding="utf-8")
    assert collect_code().digest != archive.digest


def test_installed_code_is_what_a_node_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archive = collect_code()
    folder = install_code(archive.files, archive.digest)
    assert folder == tmp_path / "initbench" / "code" / archive.digest
    source = f"import sys; sys.path.insert(0, {str(folder)!r}); import initbench; print(initbench.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == folder / "initbench" / "__init__.py"


def test_code_is_installed_once_mended_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ray_actor, "MAX_CODE_FOLDERS", 2)
    archives = [CodeArchive({"pack/__init__.py": b"", "pack/a.py": bytes([i])}, {}) for i in range(3)]
    first = install_code(archives[0].files, archives[0].digest)
    inode = (first / "pack" / "a.py").stat().st_ino
    assert install_code(archives[0].files, archives[0].digest) == first
    assert (first / "pack" / "a.py").stat().st_ino == inode
    (first / "pack" / "a.py").write_bytes(b"changed")
    install_code(archives[0].files, archives[0].digest)
    assert (first / "pack" / "a.py").read_bytes() == b"\0"
    folders = [install_code(archive.files, archive.digest) for archive in archives[1:]]
    assert sorted(first.parent.iterdir()) == sorted(folders)


def test_code_is_installed_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = install_code({"a.py": b"1"}, "digest")
    assert folder.parent == tmp_path and (folder / "a.py").read_bytes() == b"1"
