"""Measure time and memory of the driver and of the commands in stores of up to 100,000 runs.

    python -m benchmarks.scale [--sizes N …] [--repeats N] [--folder DIR] [--write]

The runs are tiny (2 layers of 16 units), and `simulated_executor.py` replays the training of the first one
for all others; the driver, the store and the commands do what they always do. Files are not synced, as the
time of a sync is that of the disk; it is measured separately. Each command is a process of its own. Samples
are kept in `DIR/samples.jsonl` (default: /tmp/initbench-scale), so an interrupted measurement continues where
it was. With `--write`, docs/scale.md is written from all samples in DIR. 100,000 runs take 5 GB and an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.directory_fanout import ENTRIES, Fanout, measure

HERE = Path(__file__).resolve().parent
PLUGIN = str(HERE / "simulated_executor.py")
SIMULATED = ("--plugin", PLUGIN, "--executor", "simulated", "--workers", "1", "--quiet")
SEEDS = 50
"""Seeds per point of a sweep with many points."""
FEW_POINTS = 2
"""Points of a sweep with many seeds."""
SHAPES = ("points", "seeds")
MAX_SEEDS_SIZE = 10_000
"""Largest sweep with FEW_POINTS points."""
MAX_REPEATED_SIZE = 1_000
"""Largest size at which commands are measured more than once."""
CHILD = (
    "import os, sys; os.environ.get('SCALE_SYNC') or setattr(os, 'fsync', lambda _: None);"
    " from initbench.cli.main import run_command; sys.exit(run_command(sys.argv[1:]))"
)
SWEEP = """\
kind: sweep
name: tiny
base:
  data: {{name: digits}}
  model: {{family: mlp, depth: 2, width: 16}}
  train: {{steps: 20, batch_size: 64}}
  probe: {{batch: 64, bins: 8, when: [init, end]}}
grid:
  train.lr: [{rates}]
seeds: {seeds}
"""
TRAIN, AGAIN, PLAN = "sweep, nothing stored", "sweep, all stored", "sweep --dry-run, all stored"
SYNCED = "sweep, nothing stored, files synced"
LIST, LIST_COLD, ONE = "ls", "ls, cold", "show of one run"
COMPARE, COMPARE_COLD, COMPARE_BY = "compare", "compare, cold", "compare --by init.scheme"
EXPORT = "export --to parquet --tables runs"
MERGE, REMOVE = "merge of one half into the other", "rm of one half"
COMMANDS = (
    *(TRAIN, SYNCED, AGAIN, PLAN, LIST, LIST_COLD, ONE, COMPARE, COMPARE_COLD, COMPARE_BY),
    *(EXPORT, MERGE, REMOVE),
)


@dataclass(frozen=True)
class Sample:
    """One measured process."""

    shape: str
    """`points`: SEEDS seeds per point; `seeds`: FEW_POINTS points."""
    size: int
    """Number of runs of the sweep."""
    command: str
    runs: int
    """Number of runs that the command handles."""
    wall: float
    cpu: float
    """User and system time in seconds."""
    peak: float
    """Peak memory in bytes."""


@dataclass(frozen=True)
class Footprint:
    """Space of one run on the disk, and of its row in an exported table."""

    bytes: float
    """Allocated blocks."""
    entries: float
    """Files and directories."""
    row: float
    """Bytes in runs.parquet."""


class Study:
    """The measurements in one folder, which holds the stores and the samples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "samples.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.samples: list[Sample] = []
        if self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines()
            self.samples = [Sample(**json.loads(line)) for line in lines]

    def measure(self, shape: str, size: int, repeats: int) -> None:
        """Measure all commands at one size; samples that exist are not measured again."""
        root = self.folder / f"{shape}-{size}"
        sweep, runs = root.with_suffix(".yaml"), size
        points, seeds = (size // SEEDS, SEEDS) if shape == "points" else (FEW_POINTS, size // FEW_POINTS)
        rates = ", ".join(f"{0.001 + 1e-6 * index:.6f}" for index in range(points))
        sweep.write_text(SWEEP.format(rates=rates, seeds=seeds), encoding="utf-8")
        store = ["--runs-dir", str(root)]
        train = ["sweep", str(sweep), *SIMULATED, "--json"]
        if not self._count(shape, size, TRAIN):
            shutil.rmtree(root, ignore_errors=True)
        self._repeat(1, shape, size, TRAIN, runs, [*train, *store])
        self._repeat(repeats, shape, size, AGAIN, runs, [*train, *store])
        self._repeat(repeats, shape, size, PLAN, runs, ["sweep", str(sweep), "--dry-run", *store])
        self._repeat(repeats, shape, size, COMPARE, runs, ["compare", *store])
        if shape == "seeds":
            return
        self._repeat(repeats, shape, size, COMPARE_BY, runs, ["compare", "--by", "init.scheme", *store])
        self._repeat(repeats, shape, size, LIST, runs, ["ls", *store])
        run_id = next(entry.name for entry in os.scandir(root) if entry.name.startswith("tiny"))
        self._repeat(repeats, shape, size, ONE, runs, ["show", run_id, *store])
        tables = self.folder / f"tables-{size}"
        export = ["export", "--to", "parquet", "--tables", "runs", "-o", str(tables), *store]
        self._repeat(1, shape, size, EXPORT, runs, export)
        for command, arguments in ((LIST_COLD, ["ls"]), (COMPARE_COLD, ["compare"])):
            if not self._count(shape, size, command):
                evict(root)
            self._repeat(1, shape, size, command, runs, [*arguments, *store])
        self._measure_halves(size, root)

    def measure_synced(self, size: int) -> None:
        """Measure the driver with all syncs that it makes."""
        root, sweep = self.folder / f"synced-{size}", self.folder / f"points-{size}.yaml"
        arguments = ["sweep", str(sweep), *SIMULATED, "--runs-dir", str(root)]
        os.environ["SCALE_SYNC"] = "1"
        self._repeat(1, "points", size, SYNCED, size, arguments)
        del os.environ["SCALE_SYNC"]
        shutil.rmtree(root, ignore_errors=True)

    def _measure_halves(self, size: int, root: Path) -> None:
        """Move every other run to a second store, merge that store back, and remove its runs."""
        half, runs = self.folder / f"half-{size}", size // 2
        if not self._count("points", size, MERGE):
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            names = sorted(entry.name for entry in os.scandir(root) if entry.name.startswith("tiny"))
            for name in names[:runs]:
                (root / name).rename(half / name)
        self._repeat(1, "points", size, MERGE, runs, ["merge", str(half), "--into", str(root)])
        self._repeat(1, "points", size, REMOVE, runs, ["rm", "tiny*", "--yes", "--runs-dir", str(half)])
        shutil.rmtree(half, ignore_errors=True)

    def _count(self, shape: str, size: int, command: str) -> int:
        wanted = (shape, size, command)
        return sum((sample.shape, sample.size, sample.command) == wanted for sample in self.samples)

    def _repeat(
        self, repeats: int, shape: str, size: int, command: str, runs: int, arguments: Sequence[str]
    ) -> None:
        while self._count(shape, size, command) < repeats:
            wall, cpu, peak = run_child(arguments)
            sample = Sample(shape, size, command, runs, wall, cpu, peak)
            self.samples.append(sample)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(sample)) + "\n")
            print(
                f"{size:>7,} runs, {shape}: {command}: {wall:.2f} s, CPU {cpu:.2f} s, {peak / 1e6:,.0f} MB",
                file=sys.stderr,
                flush=True,
            )

    def fanouts(self) -> list[Fanout]:
        """Return the times of directories with many entries, which are measured once."""
        file = self.folder / "fanouts.json"
        if not file.exists():
            fanouts = [
                measure(size, self.folder, sharded=sharded) for size in ENTRIES for sharded in (False, True)
            ]
            file.write_text(json.dumps([asdict(fanout) for fanout in fanouts]), encoding="utf-8")
        return [Fanout(**fields) for fields in json.loads(file.read_text(encoding="utf-8"))]

    def footprint(self) -> Footprint:
        """Return the mean footprint of a run in the largest store of many points."""
        size = max(sample.size for sample in self.samples if sample.shape == "points")
        blocks = entries = 0
        for path in _files_of(self.folder / f"points-{size}"):
            blocks, entries = blocks + 512 * path.lstat().st_blocks, entries + 1
        tables = (self.folder / f"tables-{size}").rglob("*.parquet")
        return Footprint(blocks / size, entries / size, sum(path.stat().st_size for path in tables) / size)


def run_child(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Run an initbench command; return its wall time and CPU time (s), and its peak memory (bytes)."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed")
    peak = usage.ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
    return wall, usage.ru_utime + usage.ru_stime, peak


def evict(root: Path) -> None:
    """Drop the contents of all files from the page cache; names and inodes stay in memory."""
    os.sync()
    for path in _files_of(root):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _files_of(root: Path) -> Iterator[Path]:
    """Yield the directories of all runs, and their files."""
    for run in root.iterdir():
        if run.name.startswith("tiny"):
            yield run
            yield from run.iterdir()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of runs")
    parser.add_argument("--repeats", type=int, default=3, help="of the commands that take little time")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/initbench-scale"), help="for the stores")
    parser.add_argument("--write", action="store_true", help="write docs/scale.md")
    options = parser.parse_args()
    if any(size % (2 * SEEDS) for size in options.sizes):
        parser.error(f"--sizes takes multiples of {2 * SEEDS}")
    study = Study(options.folder)
    for size in sorted(options.sizes):
        for shape in SHAPES:
            if shape == "points" or size <= MAX_SEEDS_SIZE:
                study.measure(shape, size, options.repeats if size <= MAX_REPEATED_SIZE else 1)
        if size == 1000:
            study.measure_synced(size)
    from benchmarks import scale_page  # loads torch, whose memory a child process would count as its own

    print(scale_page.tables(study.samples))
    if options.write:
        scale_page.write(study.samples, study.footprint(), study.fanouts())


if __name__ == "__main__":
    main()
