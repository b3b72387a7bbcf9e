"""A sweep as an Indexed Job of Kubernetes."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initbench.cluster.array_job import SWEEP_FILE, ArrayJob, script_body
from initbench.config.loading import dump_yaml
from initbench.errors import UsageError

VOLUME = "/volume"
"""Directory of a container in which the claim of the runs is mounted, and its working directory."""
_MOUNT = "/sweep"
"""Directory of a container in which the config map is mounted."""
_TASK_SCRIPT, _MERGE_SCRIPT = "task.sh", "merge.sh"
_CONTAINER = "initbench"
_MAX_NAME_LENGTH = 50
"""Maximum length of the name of a job; the names of its pods add the index and a random suffix."""
_RETRIES = 6
"""Number of times that an index is retried after a failure of its pod, such as a lack of memory."""
_FINAL_EXIT_CODES = [1, 2]
"""Exit codes after which a retry would end in the same way: a failed run, and an invalid command."""
_MAX_CONFIG_MAP_BYTES = 2**20
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class KubernetesOptions:
    """Settings of an Indexed Job that only Kubernetes has."""

    shards_directory: str
    """Directory of the shards' runs, relative to the volume."""
    image: str
    """Image of the containers, with initbench installed."""
    volume_claim: str
    """Persistent volume claim of the runs, which all pods can write to."""


def kubernetes_files(job: ArrayJob, options: KubernetesOptions) -> dict[str, str]:
    """Return the manifests `job.yaml` and `merge-job.yaml`, and `submit.sh`, which applies both.

    Raises:
        UsageError: If the sweep is too large for a config map.
    """
    name = job_name(job.name)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name),
        "data": {SWEEP_FILE: job.sweep, **_scripts(job, options)},
    }
    header = f"# Written by: {job.command_line}\n"
    first = header + dump_yaml(config_map)
    if len(first.encode()) > _MAX_CONFIG_MAP_BYTES:
        raise UsageError("the sweep exceeds the size of a config map, 1 MiB; remove points from its file")
    return {
        "job.yaml": f"{first}---\n{dump_yaml(_array_job(name, job, options))}",
        "merge-job.yaml": header + dump_yaml(_merge_job(name, job, options)),
        "submit.sh": _submit_script(name),
    }


def job_name(sweep: str) -> str:
    """Return the name of the job of a sweep, as Kubernetes allows names."""
    return re.sub(r"[^a-z0-9]+", "-", f"initbench-{sweep.lower()}")[:_MAX_NAME_LENGTH].rstrip("-")


def _scripts(job: ArrayJob, options: KubernetesOptions) -> dict[str, str]:
    """Return the scripts of the containers by name; initbench replaces the shell and receives its signals."""
    stores, runs = shlex.quote(options.shards_directory), shlex.quote(job.runs_dir)
    task = [
        "shard=$((JOB_COMPLETION_INDEX + 1))",
        f"{_sweep_command(job.train)} --shard $shard/{job.shards} --runs-dir {stores}/shard-$shard",
    ]
    merge = [
        f"initbench merge {stores}/shard-* --into {runs}",
        f"{_sweep_command(job.judge)} --runs-dir {runs}",
    ]
    return {
        name: "\n".join(["set -e", *job.setup, *commands]) + "\n"
        for name, commands in ((_TASK_SCRIPT, task), (_MERGE_SCRIPT, merge))
    }


def _array_job(name: str, job: ArrayJob, options: KubernetesOptions) -> dict[str, Any]:
    memory = {} if job.memory is None else {"memory": f"{math.ceil(job.memory * 1000)}M"}
    gpus = {"nvidia.com/gpu": str(job.gpus)} if job.gpus else {}
    resources = {"requests": {"cpu": str(job.cpus), **memory}, "limits": {**memory, **gpus}}
    # A pod that is evicted or preempted is replaced, and resumes its runs.
    on_disruption = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    exit_codes = {"containerName": _CONTAINER, "operator": "In", "values": _FINAL_EXIT_CODES}
    spec = {
        "completionMode": "Indexed",
        "completions": job.shards,
        "parallelism": min(job.shards, job.max_parallel or job.shards),
        "backoffLimitPerIndex": _RETRIES,
        "podFailurePolicy": {"rules": [on_disruption, {"action": "FailIndex", "onExitCodes": exit_codes}]},
        "template": _pod_template(name, job, options, _TASK_SCRIPT, resources),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(name), "spec": spec}


def _merge_job(name: str, job: ArrayJob, options: KubernetesOptions) -> dict[str, Any]:
    template = _pod_template(f"{name}-merge", job, options, _MERGE_SCRIPT, {"requests": {"cpu": "1"}})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(f"{name}-merge"),
        "spec": {"backoffLimit": 0, "template": template},
    }


def _pod_template(
    name: str,
    job: ArrayJob,
    options: KubernetesOptions,
    script: str,
    resources: Mapping[str, Any],
) -> dict[str, Any]:
    container = {
        "name": _CONTAINER,
        "image": options.image,
        "workingDir": VOLUME,
        "command": ["/bin/bash", f"{_MOUNT}/{script}"],
        "resources": {key: values for key, values in resources.items() if values},
        "volumeMounts": [
            {"name": "runs", "mountPath": VOLUME},
            {"name": "sweep", "mountPath": _MOUNT, "readOnly": True},
        ],
    }
    volumes = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": options.volume_claim}},
        {"name": "sweep", "configMap": {"name": job_name(job.name)}},
    ]
    return {
        "metadata": {"labels": _labels(name)},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [container],
            "volumes": volumes,
        },
    }


def _sweep_command(arguments: Sequence[str]) -> str:
    """Return a command on the sweep's file that replaces the shell, so that it receives its signals."""
    return shlex.join(["exec", "initbench", "sweep", f"{_MOUNT}/{SWEEP_FILE}", *arguments])


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "labels": _labels(name)}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "initbench", "app.kubernetes.io/instance": name}


def _submit_script(name: str) -> str:
    lines = [
        "#!/bin/bash",
        "# Applies the job, waits until it has ended, and merges its runs. Options are passed to kubectl,",
        "# as in ./submit.sh --namespace=research",
        "set -euo pipefail",
        f"job={name}",
        script_body("kubernetes_submit.sh"),
    ]
    return "\n".join(lines)
