"""Stand-in for `sbatch` and `scontrol`: runs the tasks of an array as processes, signals and requeues them.

`python fake_slurm.py sbatch OPTIONS SCRIPT ARGUMENTS` returns when all tasks have ended. Everything that it
keeps is in the folder FAKE_SLURM: `sbatch` has one line of JSON per call, and `tasks` one per ended task.
FAKE_SIGNALS is a JSON object from the index of a task to the names of the signals that end its attempts, in
this order. A signal is sent when the pattern FAKE_MOMENT matches a new file of the folder FAKE_ROOT.
A TERM reaches all processes of the task, as in SLURM; a USR1, for the time limit, its script.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])
MAX_ARRAY_SIZE = 1001
OPTIONS = {
    *(
        "account",
        "array",
        "cpus-per-task",
        "dependency",
        "gres",
        "job-name",
        "mem",
        "nodes",
        "ntasks",
        "open-mode",
    ),
    *("output", "parsable", "partition", "requeue", "signal", "time"),
}


def main() -> None:
    """Act as the program that the first argument names."""
    program, *arguments = sys.argv[1:]
    sys.exit({"sbatch": sbatch, "scontrol": scontrol}[program](arguments))


def scontrol(arguments: list[str]) -> int:
    """Mark a task as requeued."""
    verb, task = arguments
    assert verb == "requeue" and re.fullmatch(r"\d+_\d+", task)
    if (STATE / "no-requeue").exists():
        print("scontrol: error: requeue is disabled", file=sys.stderr)
        return 1
    (STATE / f"requeue-{task}").touch()
    return 0


def sbatch(arguments: list[str]) -> int:
    """Run a script, once for each index of its array."""
    end = next(i for i, argument in enumerate(arguments) if not argument.startswith("-"))
    script, values = Path(arguments[end]), arguments[end + 1 :]
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    header = re.findall(
        r"^#SBATCH (.*)", re.split(r"^(?!#)", text, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE
    )
    options = {name: value for name, _, value in (o.removeprefix("--").partition("=") for o in header)}
    options |= {
        name: value for name, _, value in (o.removeprefix("--").partition("=") for o in arguments[:end])
    }
    assert set(options) <= OPTIONS, set(options) - OPTIONS
    job = 1 + len(_lines("sbatch"))
    _append("sbatch", {"job": job, "options": options, "script": script.name, "arguments": values})
    if "dependency" in options:
        kind, *ids = options["dependency"].split(":")
        assert kind == "afterany" and all(1 <= int(number) < job for number in ids)
    spool = STATE / f"script-{job}"
    shutil.copy(script, spool)
    first, last, at_a_time = 0, 0, None
    if "array" in options:
        match = re.fullmatch(r"0-(\d+)(?:%(\d+))?", options["array"])
        assert match is not None
        last, at_a_time = int(match[1]), match[2]
        if last >= MAX_ARRAY_SIZE:
            print("sbatch: error: Invalid job array specification", file=sys.stderr)
            return 1
    with ThreadPoolExecutor(int(at_a_time or 2)) as pool:
        indexes = range(first, last + 1)
        list(pool.map(lambda index: run_task(job, index, spool, options, values), indexes))
    print(f"{job};cluster")
    return 0


def run_task(job: int, index: int, script: Path, options: dict[str, str], values: list[str]) -> None:
    """Run a task until it ends without being requeued."""
    signals = json.loads(os.environ.get("FAKE_SIGNALS", "{}")).get(str(index), [])
    for restarts in range(100):
        name = options["output"].replace("%A", str(job)).replace("%a", str(index)).replace("%j", str(job))
        requeued = STATE / f"requeue-{job}_{index}"
        requeued.unlink(missing_ok=True)
        variables = {
            "SLURM_JOB_ID": str(1000 * job + index),
            "SLURM_ARRAY_JOB_ID": str(job),
            "SLURM_ARRAY_TASK_ID": str(index),
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }
        is_array = "array" in options
        environment = {**os.environ, **(variables if is_array else {})}
        with Path(name).open("ab" if options.get("open-mode") == "append" else "wb") as log:
            process = subprocess.Popen(
                ["bash", str(script), *values],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            sent = signals[restarts] if is_array and restarts < len(signals) else None
            if sent is not None:
                _send(sent, process, index)
            code = process.wait()
        record = {"job": job, "index": index, "restarts": restarts, "code": code, "signal": sent}
        files = Path(os.environ["FAKE_ROOT"]).glob(f"shard-{index + 1}/*/checkpoint*")
        _append("tasks", {**record, "checkpoints": len(list(files))})
        if not ((sent == "TERM" and "requeue" in options) or requeued.exists()):
            return
    raise AssertionError("the task is requeued for ever")


def _send(name: str, process: subprocess.Popen[bytes], index: int) -> None:
    root, pattern = Path(os.environ["FAKE_ROOT"]), os.environ["FAKE_MOMENT"].format(shard=index + 1)
    start = time.time()
    end = time.monotonic() + 60
    while not any(path.stat().st_mtime > start for path in root.glob(pattern)):
        assert process.poll() is None and time.monotonic() < end, "the moment of the signal never comes"
        time.sleep(0.01)
    if name == "TERM":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(getattr(signal, f"SIG{name}"))


def _lines(name: str) -> list[str]:
    path = STATE / name
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _append(name: str, record: dict[str, object]) -> None:
    with (STATE / name).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
