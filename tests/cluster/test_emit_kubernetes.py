"""Sweeps as Indexed Jobs of Kubernetes: the manifests, and the scripts in them, which are executed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_programs import Programs, results

from initbench.cluster.kubernetes import job_name

Run = Callable[..., Any]
EMIT = (
    "sweep",
    "configs/tiny.yaml",
    "--emit",
    "k8s",
    "-o",
    "a job",
    "--image",
    "i:1",
    "--volume-claim",
    "runs",
)


@pytest.fixture
def documents(initbench: Run, folder: Path) -> Callable[..., list[dict[str, Any]]]:
    """Write the job of the sweep; gives the config map, the job, and the last job."""

    def write(*arguments: object) -> list[dict[str, Any]]:
        said = initbench(*EMIT, *arguments)
        assert said.code == 0, said.err
        texts = [
            (folder / "a job" / name).read_text(encoding="utf-8") for name in ("job.yaml", "merge-job.yaml")
        ]
        return [document for text in texts for document in yaml.safe_load_all(text)]

    return write


def execute(config_map: dict[str, Any], job: dict[str, Any], folder: Path, **variables: str) -> int:
    """Run the script of a job's container, with the config map in a folder of this machine."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["workingDir"] == "/volume"
    shell, path = container["command"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    script = config_map["data"][path.removeprefix(f"{mounts['sweep']}/")]
    sweep = folder / "sweep.yaml"
    sweep.write_text(config_map["data"]["sweep.yaml"], encoding="utf-8")
    text = script.replace(f"{mounts['sweep']}/sweep.yaml", '"$SWEEP"')
    environment = {**os.environ, **variables, "SWEEP": str(sweep)}
    return subprocess.run([shell, "-c", text], cwd=folder, env=environment, check=False).returncode


def test_the_job_computes_what_the_sweep_computes(
    documents: Run, initbench: Run, programs: Programs, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    assert initbench("sweep", "configs/tiny.yaml", "seeds=1", "--workers", 1, "--runs-dir", "local").code == 0
    config_map, job, merge = documents("seeds=1", "--tasks", 2, "--runs-dir", "my runs")
    volume = folder / "volume"
    volume.mkdir()
    for index in range(job["spec"]["completions"]):
        assert execute(config_map, job, volume, JOB_COMPLETION_INDEX=str(index)) == 0
    assert execute(config_map, merge, volume) == 0
    calls = programs.calls()
    assert [call[call.index("--shard") + 1] for call in calls[:2]] == ["1/2", "2/2"] and len(calls) == 4
    monkeypatch.chdir(volume)
    for call in calls:
        assert initbench(*call).code == 0
    assert len(results(folder / "local")) == 4 and results(volume / "my runs") == results(folder / "local")


def test_the_manifests_are_those_of_an_indexed_job(documents: Run):
    config_map, job, merge = documents(
        *("--tasks", 3, "--max-parallel", 2, "--memory", 1.5, "--gpus-per-task", 1, "--cpus-per-task", 4)
    )
    assert [(each["apiVersion"], each["kind"]) for each in (config_map, job, merge)] == [
        ("v1", "ConfigMap"),
        ("batch/v1", "Job"),
        ("batch/v1", "Job"),
    ]
    names = [each["metadata"]["name"] for each in (config_map, job, merge)]
    assert names == ["initbench-tiny", "initbench-tiny", "initbench-tiny-merge"]
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    assert spec["backoffLimitPerIndex"] > 0
    ignored, final = spec["podFailurePolicy"]["rules"]
    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert final["action"] == "FailIndex" and final["onExitCodes"]["values"] == [1, 2]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "required by a pod failure policy"
    (container,) = pod["containers"]
    assert container["name"] == final["onExitCodes"]["containerName"] and container["image"] == "i:1"
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "1500M"},
        "limits": {"memory": "1500M", "nvidia.com/gpu": "1"},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["runs"]["persistentVolumeClaim"] == {"claimName": "runs"}
    assert volumes["sweep"]["configMap"] == {"name": "initbench-tiny"}
    (last,) = merge["spec"]["template"]["spec"]["containers"]
    assert last["resources"] == {"requests": {"cpu": "1"}}, "the last job needs no GPU"
    assert "--device cuda --no-train" in config_map["data"]["merge.sh"]


def test_the_environment_of_this_machine_is_not_that_of_a_pod(
    documents: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INITBENCH_DATA", str(folder / "data"))
    monkeypatch.setenv("INITBENCH_RUNS", str(folder / "elsewhere"))
    scripts = documents("--tasks", 1)[0]["data"]
    assert (
        str(folder) not in scripts["task.sh"] + scripts["merge.sh"] and "--into runs" in scripts["merge.sh"]
    )


def test_a_file_of_this_machine_is_refused(initbench: Run, folder: Path):
    (folder / "configs" / "own.npz").touch()
    base = folder / "configs" / "base.yaml"
    text = base.read_text(encoding="utf-8").replace("{name: digits}", "{name: npz, path: own.npz}")
    base.write_text(text, encoding="utf-8")
    said = initbench(*EMIT, "--tasks", 1)
    assert said.code == 2 and "own.npz is a file of this machine" in said.err
    assert not (folder / "a job").exists()


OPTIONS = {
    "image": (["-o", "x", "--volume-claim", "v"], "--emit k8s requires --image"),
    "both": (["-o", "x"], "--emit k8s requires --image and --volume-claim"),
    "time": ([*EMIT[4:], "--time-limit", "2h"], "--time-limit cannot be combined with --emit k8s"),
    "claim": (["-o", "x", "--image", "i", "--volume-claim", "A b"], "the name of a persistent volume claim"),
    "spaces": (["-o", "x", "--image", "a b", "--volume-claim", "v"], "--image takes the name of an image"),
    "sbatch": ([*EMIT[4:], "--sbatch=-p"], "--sbatch cannot be combined with --emit k8s"),
}


@pytest.mark.parametrize(("arguments", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_do_not_fit_are_refused(
    initbench: Run, folder: Path, arguments: list[str], message: str
):
    said = initbench("sweep", "configs/tiny.yaml", "--emit", "k8s", *arguments)
    assert said.code == 2 and message in said.err


@pytest.mark.parametrize(
    ("sweep", "name"),
    [
        ("A_b.C", "initbench-a-b-c"),
        ("x" * 60, "initbench-" + "x" * 40),
        ("a--", "initbench-a"),
        ("1", "initbench-1"),
    ],
)
def test_names_of_jobs_are_labels(sweep: str, name: str):
    assert job_name(sweep) == name


KUBECTL = """\
#!/bin/bash
echo "$*" >> "$FAKE_SLURM/kubectl"
case "$1 $2 $3" in
"get job initbench-tiny") cat "$FAKE_SLURM/first" ;;
"get job initbench-tiny-merge") cat "$FAKE_SLURM/last" ;;
"logs "*) echo the table ;;
esac
"""


@pytest.mark.parametrize(
    ("first", "last", "code"),
    [
        ("SuccessCriteriaMet Complete", "Complete", 0),
        ("FailureTarget Failed", "Complete", 0),
        ("Complete", "Failed", 1),
    ],
)
def test_submit_waits_and_merges(
    documents: Run, programs: Programs, folder: Path, first: str, last: str, code: int
):
    documents("--tasks", 2)
    programs.add("kubectl", KUBECTL)
    (programs.state / "first").write_text(first, encoding="utf-8")
    (programs.state / "last").write_text(last, encoding="utf-8")
    submitted = programs.run(folder / "a job" / "submit.sh", "--namespace=mine")
    assert submitted.returncode == code and submitted.stdout.endswith("the table\n")
    assert ("some indexes of the job initbench-tiny failed" in submitted.stderr) == ("Failed" in first)
    calls = (programs.state / "kubectl").read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["apply", "get", "delete", "apply", "get", "logs"]
    assert all("--namespace=mine" in call for call in calls)


def test_json_names_what_was_written(initbench: Run, folder: Path):
    said = json.loads(initbench(*EMIT, "--tasks", 2, "--json").out)
    assert said["schema"] == "initbench.emit/1" and said["is_new"] and said["kind"] == "k8s"
    assert (said["tasks"], said["runs"]) == (2, 8) and 0.0 < said["seconds_per_task"] < 60.0
    written = {path.name for path in (folder / "a job").iterdir()}
    assert (
        written == {*said["files"]} == {"job.yaml", "merge-job.yaml", "submit.sh", "sweep.yaml", "job.json"}
    )
