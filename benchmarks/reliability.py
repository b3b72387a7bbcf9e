"""Write docs/reliability.md: the guarantees of the store, and the results of injected faults.

    python -m benchmarks.reliability --every 1 --seconds 600
    python -m benchmarks.reliability --only injected --every 1

Each kind of fault is injected into every N-th store operation of each command. Then the files of a store are
fuzzed for the given number of seconds, and every reader is called. Sections that were not requested stay
unchanged on the page.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "store"))

import fault_harness  # noqa: E402
import store_fuzz  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
PROMISES = """# Reliability

<!-- Written by `python -m benchmarks.reliability`; do not edit. -->

## Guarantees

| event | guarantee |
| --- | --- |
| a system error, a full disk, or `kill -9` at any operation on the store | repeating the command gives the result of an uninterrupted command: the same files, byte for byte |
| the same event while a run is being claimed | readers do not see the run |
| the same event while a finished run is trained again | the finished run can be read until the new one replaces it |
| a damaged checkpoint | the run resumes from the previous checkpoint or starts over, and reports it |
| a run finishes | its steps are unique and increasing, and its directory holds the files of its manifest and its lock |
| an edited or truncated file | the file and the error are reported, and the other files are read |
| a link, a pipe or a device in a store | it is reported, but neither followed nor opened |
| stdout is closed or full | the command completes its other work, reports the problem, and ends with exit code 3, or with the exit code that has another reason (2 for a wrong command, 1 for a gate) |
| stderr is closed or full, or the reader of either stream exits | the exit code is the same, and trained runs are stored |
| text in a store from another user | it has no effect on a terminal, a CI job or a spreadsheet that shows it |

Two limitations remain: only `initbench ls --verify` detects bytes that change on the disk while size and times stay the
same, and a power loss can lose data if the file system acknowledges writes before they are durable.
"""  # noqa: E501


ELSEWHERE = """## Further tests

| test | cases | command |
| --- | ---: | --- |
| invalid values for every key of a config | 2,192 | `pytest tests/hostile/test_bad_input.py` |
| invalid values for the options of all commands | 1,358 | `pytest tests/hostile/test_bad_input.py` (462 of them without `-m slow`) |
| stdin, stdout and stderr closed, full, or without a reader, for each of 46 command lines | 414 | `pytest -m slow \
tests/hostile/test_streams.py -k decision` |
| five command lines with 5 to 64 file descriptors | 70 | `pytest -m slow tests/hostile/test_streams.py -k few` |
| SIGINT and SIGTERM at 60 moments during start-up, with and without workers | 240 | `pytest -m slow \
tests/hostile/test_signals_at_start.py` |
| modified or crafted CIFAR archives | 2,000 | `pytest -m slow tests/data/test_data_cifar_fuzz.py` |

In each case the command ends with the correct exit code or with a message that names the error, without a traceback and without a run that remains failed.
"""  # noqa: E501
SECTIONS = ("injected", "changed")


def main() -> None:
    """Run the requested parts and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="strike every N-th operation")
    parser.add_argument("--seconds", type=float, default=600.0, help="of changing each kind of file")
    parser.add_argument("--only", choices=SECTIONS, help="write this section, and leave the others")
    options = parser.parse_args()
    shared = Path("/dev/shm")
    written = {}
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as directory:
        if options.only in (None, "injected"):
            lines = [*_conditions(options.every), *_faults(Path(directory), options.every)]
            written["injected"] = "\n".join(lines)
        if options.only in (None, "changed"):
            written["changed"] = "\n".join(_changes(Path(directory) / "fuzz", options.seconds))
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = [written.get(name) or _section(page, name) for name in SECTIONS]
    PAGE.write_text("\n\n".join([PROMISES.rstrip(), *sections, ELSEWHERE]), encoding="utf-8")


def _section(page: str, name: str) -> str:
    """Return the current section of the page."""
    found = re.search(rf"^## What was {name}\n.*?(?=\n+## |\n*\Z)", page, re.DOTALL | re.MULTILINE)
    return found[0] if found else f"## What was {name}\n\nNothing yet."


def _machine() -> str:
    return f"On {datetime.now(UTC):%Y-%m-%d}, {platform.system()}, Python {platform.python_version()}."


def _conditions(every: int) -> Iterator[str]:
    yield "## What was injected\n"
    yield _machine()
    which = "Each" if every == 1 else f"One in {every}"
    yield (
        f"{which} of the operations that a command makes on the store (open, write, fsync, rename, mkdir, …)"
        " was disturbed in four ways, one at a time: the operation failed with ENOSPC or EIO, the process was"
        " killed, or the process was killed after half of the data had been written. Afterwards the command"
        " was repeated, and the store was compared with that of an uninterrupted command.\n"
    )


def _faults(directory: Path, every: int) -> Iterator[str]:
    yield "| command | operations | injected faults | different results |\n| --- | ---: | ---: | ---: |"
    with fault_harness.conditions():
        for name, scenario in fault_harness.SCENARIOS.items():
            operations, struck, failed = _struck(directory / name, scenario, every)
            print(f"{name}: {operations} operations, {struck} struck, {failed} otherwise", file=sys.stderr)
            yield f"| {name} | {operations} | {struck} | {failed} |"


def _struck(directory: Path, scenario: fault_harness.Scenario, every: int) -> tuple[int, int, int]:
    """Return the operations of the command, the injected faults, and how many changed the final result."""
    template = fault_harness.prepared(scenario, directory / "template")
    operations = fault_harness.count_of(scenario, template, directory / "whole")
    expected = fault_harness.state(directory / "whole" / "runs")
    struck = failed = 0
    for fate in fault_harness.FATES:
        for at in range(1, operations + 1, every):
            place = directory / f"{fate}{at}"
            try:
                fault_harness.struck(scenario, template, place, fate, at)
                failed += fault_harness.again(scenario, place) != expected
            except AssertionError as error:
                print(f"{directory.name}, {fate} at {at}: {error}", file=sys.stderr)
                failed += 1
            struck += 1
            shutil.rmtree(place)
    return operations, struck, failed


def _changes(directory: Path, seconds: float) -> Iterator[str]:
    yield "## What was changed\n"
    yield _machine()
    yield (
        "One or two values of a file were replaced by one of"
        f" {len(store_fuzz.VALUES)} others (nothing, null, NaN, numbers out of range, other types, deep"
        " nesting, text with escape characters), or the file was truncated. Then all functions that read a"
        " store were called.\n"
    )
    yield "| file | cases | reported as damaged | read | failed |\n| --- | ---: | ---: | ---: | ---: |"
    root = store_fuzz.small_store(directory)
    total = store_fuzz.Tally()
    for name, attack in store_fuzz.attacks(root).items():
        tally, end, seed = store_fuzz.Tally(), time.monotonic() + seconds, 0
        while time.monotonic() < end:
            seed += 1
            tally += attack(20, seed)
        for failure in tally.failures[:5]:
            print(failure[:500], file=sys.stderr)
        yield f"| {name} | {tally.cases:,} | {tally.refused:,} | {tally.read:,} | {len(tally.failures)} |"
        total += tally
    yield f"| all | {total.cases:,} | {total.refused:,} | {total.read:,} | {len(total.failures)} |"


if __name__ == "__main__":
    main()
