"""The summary of a complete run: one small file with everything that comparisons and listings need.

Parsing the other files of a run takes milliseconds, mainly because of its histograms. `RunWriter.finish`
therefore reduces the run to a few kilobytes in `summary.jsonl`, which has three lines:

    header      {"schema": …, "run_id": …, "status": …, "final": …}: keys of run.json that listings need
    shared      {"config": …, "identity": …}: the same for all seeds, so that readers can parse it once
    numbers     the other fields of `summary_fields`, with all numbers of evaluations and layers as one array

The other files stay authoritative. A summary is used only if the manifest lists it with the hash that it has,
if run.json has its hash too, and if no file of lines has changed since. If a summary is missing or damaged,
or has another schema, the other files are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from initbench.store import strict_json
from initbench.store.checkpoint_files import LINE_FILES
from initbench.store.files import DOCUMENT_BYTES
from initbench.store.manifest import MANIFEST, SUMMARY, listed_files
from initbench.store.packed_numbers import (
    EVALUATION_KEYS,
    IS_PACKED,
    LAYER_ACTIVATIONS,
    RUNNING_STATISTICS,
    SHIFT_STATISTICS,
    Evaluations,
    Layer,
    PackedNumbers,
)
from initbench.store.record_schema import (
    Check,
    find_defect,
    is_config,
    is_list,
    is_mapping,
    is_natural,
    is_number,
    is_one_of,
    is_table,
    is_text,
    nullable,
    optional_keys,
)
from initbench.store.run_directory import COMPLETE, RUN, Record
from initbench.store.scores import recorded_scores
from initbench.store.strict_json import parse_number_or_none

SCHEMA = "initbench.summary/1"
"""Schema of the file; to be increased whenever the summary of any run changes."""

PROBED = ("init", "end")
TRAIN = "train"
MOMENTS = (*PROBED, TRAIN)
_HEADER_KEYS = (
    *("run_id", "experiment", "seed", "status", "created", "finished"),
    *("dataset", "dataset_requested", "device", "steps", "final"),
)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


@dataclass
class LineStatistics:
    """The statistics of a run's evaluations and probes, collected line by line without the histograms."""

    evaluations: Evaluations = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    """Other scores of each evaluation, by key, such as val_r2; only those that the run has."""
    begin: dict[str, float | None] | None = None
    """Validation losses and accuracies at step 0 with batch and population statistics of batch norm."""
    layers: dict[str, list[Layer]] = field(default_factory=dict)
    """By moment of PROBED, the weight layers in order, with the head last."""

    @classmethod
    def from_lines(cls, evaluations: Iterable[Record], snapshots: Iterable[Record]) -> LineStatistics:
        """Return the statistics of all lines of a run."""
        lines = cls()
        for entry in evaluations:
            lines.add_evaluation(entry)
        for snapshot in snapshots:
            lines.add_snapshot(snapshot)
        return lines

    def add_evaluation(self, entry: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""
        losses = (parse_number_or_none(entry[key]) for key in ("train_loss", "val_loss"))
        for score in recorded_scores(entry):
            if (key := f"val_{score.name}") not in EVALUATION_KEYS:
                earlier = self.scores.setdefault(key, [])
                earlier += [None] * (len(self.evaluations) - len(earlier))
                earlier.append(parse_number_or_none(entry[key]))
        accuracy = parse_number_or_none(entry.get("val_accuracy"))
        self.evaluations.append([float(entry["step"]), *losses, accuracy])
        if entry["step"] == 0 and self.begin is None:
            kinds = ("_batch", "_population")
            self.begin = {
                name: parse_number_or_none(value) for name, value in entry.items() if name.endswith(kinds)
            }

    def add_snapshot(self, snapshot: Mapping[str, Any]) -> None:
        """Add a line of layers.jsonl; only the first snapshot of each moment counts."""
        moment, layers = snapshot["when"], snapshot["layers"]
        if moment in PROBED and moment not in self.layers:
            names = RUNNING_STATISTICS if any("batch_norm" in layer for layer in layers) else ()
            self.layers[moment] = [_layer_statistics(layer, names) for layer in layers]


def summary_fields(record: Mapping[str, Any], lines: LineStatistics, shifts: Sequence[Record]) -> Record:
    """Return the fields of `analysis.run_summary.RunSummary`, with the config as stored.

    Args:
        record: Contents of run.json.
        lines: Statistics of the evaluations and probes.
        shifts: Lines of shift.jsonl.
    """
    identity, train = record.get("identity") or {}, record["config"].get("train") or {}
    layers = {
        **{moment: lines.layers[moment] for moment in PROBED if moment in lines.layers},
        **_mean_shift_statistics(shifts),
    }
    return {
        **_header_fields(record),
        "config": _config_with_data_used(record),
        "identity": identity,
        "arm": str(record.get("arm")),
        "fingerprint": str((identity.get("data") or {}).get("fingerprint") or ""),
        "steps": record.get("steps") or train.get("steps"),
        "batch_size": train.get("batch_size"),
        "begin": lines.begin or {},
        "packed": PackedNumbers.pack(lines.evaluations, layers),
        "scores": lines.scores,
        "diverged_step": (record.get("diverged") or {}).get("step"),
        "diagnosis": [finding["code"] for finding in record.get("diagnosis") or []],
        "seconds": _training_seconds(record),
        "machine": str((record.get("machine") or {}).get("processor") or ""),
        "error": str(record["error"]) if record.get("error") else None,
        "version": str((record.get("versions") or {}).get("initbench") or ""),
        "pretraining": _pretraining_cost(record),
    }


def summary_text(record: Mapping[str, Any], lines: LineStatistics, shifts: Sequence[Record]) -> str:
    """Return the contents of summary.jsonl; the arguments are those of `summary_fields`.

    Raises ValueError, TypeError, AttributeError or LookupError for a run without a summary, as it is not
    complete, or its record or lines are invalid.
    """
    if record["status"] not in COMPLETE or (defect := find_defect(record)):
        raise ValueError(defect or "the run is not complete")
    fields = summary_fields(record, lines, shifts)
    header = {"schema": SCHEMA, **{key: record.get(key) for key in _HEADER_KEYS}}
    shared = {key: fields.pop(key) for key in ("config", "identity")}
    for key in _header_fields(record):
        del fields[key]
    if not fields["scores"]:  # as in summaries of earlier versions
        del fields["scores"]
    fields["packed"] = fields.pop("packed").as_record()
    return "".join(strict_json.dumps(line) + "\n" for line in (header, shared, fields))


@dataclass(frozen=True)
class StoredSummary:
    """A valid summary file, of which only the header is parsed."""

    header: Record
    """Keys of run.json that listings need."""
    shared: bytes
    """Line with "config" and "identity", for `parse_shared`."""
    numbers: bytes

    def parse_fields(self) -> Record:
        """Return all fields of `summary_fields` except config and identity.

        Raises ValueError if the contents are invalid.
        """
        fields: Record = _parse_line(self.numbers, _NUMBERS)
        fields["packed"] = PackedNumbers.from_record(fields["packed"])
        for key in ("begin", "pretraining"):
            fields[key] = {name: parse_number_or_none(value) for name, value in fields[key].items()}
        fields["scores"] = {
            name: [parse_number_or_none(value) for value in values]
            for name, values in fields.get("scores", {}).items()
        }
        return {**_header_fields(self.header), **fields, "seconds": parse_number_or_none(fields["seconds"])}


def parse_shared(line: bytes) -> tuple[Record, Record]:
    """Return config and identity; raise ValueError if the line is invalid."""
    shared = _parse_line(line, _SHARED)
    return shared["config"], shared["identity"]


def read_summary(directory: Path, run_id: str) -> StoredSummary | None:
    """Return the summary of a complete run, or None if there is none that can be used.

    All files are opened relative to one directory, so that a rerun cannot replace the run during the read.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        content = _read_verified(descriptor)
        header, shared, numbers = content.split(b"\n", 2)
        parsed: Record = _parse_line(header, _HEADER)
    except (OSError, ValueError, MemoryError):
        return None
    finally:
        os.close(descriptor)
    return StoredSummary(parsed, _first_equal_line(shared), numbers) if parsed["run_id"] == run_id else None


@lru_cache(maxsize=4096)
def _first_equal_line(line: bytes) -> bytes:
    """Return one object for equal lines, as thousands of seeds may share a line."""
    return line


def _read_verified(directory: int) -> bytes:
    """Return the contents of summary.jsonl; raise ValueError or OSError if it cannot be used."""
    manifest = strict_json.loads(_read_regular(directory, MANIFEST).decode())
    digests, looks = {}, {}
    for name, size, digest in listed_files(manifest):
        look = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if look.st_size != size or not stat.S_ISREG(look.st_mode):
            raise ValueError(f"{name} has changed")
        digests[name], looks[name] = digest, look
    if not digests.keys() >= {RUN, SUMMARY}:
        raise ValueError("the run has no summary")
    newer = [n for n in LINE_FILES if n in looks and looks[n].st_mtime_ns > looks[SUMMARY].st_mtime_ns]
    for name in (RUN, *newer):  # newer files of lines are common in copies, which keep no times
        if hashlib.sha256(_read_regular(directory, name)).hexdigest() != digests[name]:
            raise ValueError(f"{name} has changed")
    content = _read_regular(directory, SUMMARY)
    if hashlib.sha256(content).hexdigest() != digests[SUMMARY]:
        raise ValueError(f"{SUMMARY} has changed")
    return content


def _read_regular(directory: int, name: str) -> bytes:
    """Return the contents of a regular file in a directory that is open as a descriptor."""
    descriptor = os.open(name, _OPEN, dir_fd=directory)
    try:
        look = os.fstat(descriptor)
        if not stat.S_ISREG(look.st_mode) or look.st_size > DOCUMENT_BYTES:
            raise ValueError(f"{name} cannot be read as a document")
        content = os.read(descriptor, look.st_size)
        if len(content) != look.st_size:
            raise ValueError(f"{name} is being written")
        return content
    finally:
        os.close(descriptor)


def _parse_line(line: bytes, check: Check) -> Any:
    value = strict_json.loads(line.decode())
    for problem in check(value, ""):
        raise ValueError(problem)
    return value


def _header_fields(record: Mapping[str, Any]) -> Record:
    """Return the fields that are determined by the header alone."""
    return {
        "run_id": record["run_id"],
        "experiment": str(record["experiment"]),
        "seed": int(record["seed"]),
        "status": str(record["status"]),
        "created": str(record.get("created") or ""),
        "dataset": str(record.get("dataset")),
        "dataset_requested": str(record.get("dataset_requested")),
        "final": {name: parse_number_or_none(value) for name, value in (record.get("final") or {}).items()},
    }


def _config_with_data_used(record: Mapping[str, Any]) -> Record:
    """Return the config with the data set that was used, if the stored config has the requested one."""
    config: Record = record["config"]
    data: Record = config.get("data") or {}
    used, requested = record.get("dataset"), record.get("dataset_requested")
    if None in (used, requested) or used == requested or data.get("name") != requested:
        return config
    return {**config, "data": {**data, "name": used}}


def _layer_statistics(layer: Mapping[str, Any], running: Sequence[str]) -> Layer:
    act, norm = layer["act"] or {}, layer.get("batch_norm") or {}
    return {
        "q": parse_number_or_none(layer["pre"]["q"]),
        **{name: parse_number_or_none(act.get(key)) for name, key in LAYER_ACTIVATIONS.items()},
        "delta_q": parse_number_or_none(layer["grad"]["pre_q"]),
        "weight_gradient": parse_number_or_none(layer["grad"].get("weight_norm")),
        "weight_std": parse_number_or_none(layer.get("weight_std")),
        "unit_spread": parse_number_or_none(layer.get("unit_spread")),
        **{name: parse_number_or_none(norm.get(name)) for name in running},
    }


def _mean_shift_statistics(shifts: Sequence[Record]) -> dict[str, list[Layer]]:
    """Return the hidden layers at TRAIN, averaged over the measured updates; empty without measurements."""
    hidden = [[layer for layer in entry["layers"] if layer["hidden"]] for entry in shifts]
    layers = [
        {
            name: _mean_of_known([parse_number_or_none(layer[name]) for layer in moments])
            for name in SHIFT_STATISTICS
        }
        for moments in zip(*hidden, strict=False)
    ]
    return {TRAIN: layers} if layers else {}


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _training_seconds(record: Mapping[str, Any]) -> float | None:
    timings = record.get("timings") or {}
    total = parse_number_or_none(timings.get("train"))
    return None if total is None else total / max(1, int(record.get("cohort") or 1))


def _pretraining_cost(record: Mapping[str, Any]) -> dict[str, float]:
    cost = record.get("pretraining")
    if not cost:
        return {}
    seconds = float(cost["seconds"]) / max(1, int(record.get("cohort") or 1))
    return {"seconds": seconds, "samples": float(cost["samples"])}


_HEADER = is_mapping(
    schema=is_one_of(SCHEMA),
    run_id=is_text,
    experiment=is_text,
    seed=is_natural,
    status=is_one_of(*COMPLETE),
    created=nullable(is_text),
    finished=nullable(is_text),
    dataset=is_text,
    dataset_requested=is_text,
    device=is_text,
    steps=nullable(is_natural),
    final=nullable(is_table(is_number)),
)
_SHARED = is_mapping(config=is_config, identity=is_mapping())
_NUMBERS = optional_keys(
    is_mapping(
        arm=is_text,
        fingerprint=is_text,
        steps=nullable(is_natural),
        batch_size=nullable(is_natural),
        begin=is_table(is_number),
        diverged_step=nullable(is_natural),
        diagnosis=is_list(is_text),
        seconds=is_number,
        machine=is_text,
        error=nullable(is_text),
        version=is_text,
        pretraining=is_table(is_number),
        packed=IS_PACKED,
    ),
    scores=is_table(is_list(is_number)),
)
