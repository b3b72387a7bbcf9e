"""TensorBoard event files, one for each run.

The bytes of a file depend only on the run, so a repeated export does not touch unchanged files. A file has

    curves/val_loss, …              scalars of every evaluation
    act_std/layer_03, …             scalars of every layer and probe
    metrics/final_val_accuracy, …   the metrics of `compare`, as scalars at the last step
    activation/layer_03, …          histograms with the stored bins and counts
    hyperparameters                 the config keys; runs with the same arm form a group of the HParams page

Entries outside of the bins are in one additional bin of the same width on that side.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from initbench.export.table_files import ExportCounts
from initbench.export.tables import RunTables, Schemas, format_value
from initbench.export.tracker_values import (
    bins_with_outside,
    curve_scalars,
    layer_histograms_by_step,
    layer_scalars,
)
from initbench.optional_packages import import_optional
from initbench.store.files import LINES_BYTES, read_bytes, remove_temporaries, write_atomic
from initbench.store.histograms import Histogram

EVENT_FILE = "events.out.tfevents.0.initbench"
"""Name of the file in the directory of each run."""
_SUBJECT, _EXTRA = "TensorBoard event files", "tensorboard"
_CRC_MASK = 0xA282EAD8
"""Constant that the record format of event files adds to rotated checksums."""


class TensorBoardExporter:
    """Writes `RUN_ID/EVENT_FILE` for each run."""

    def __init__(self) -> None:
        self._events = _load("compat.proto.event_pb2")
        self._summaries = _load("compat.proto.summary_pb2")
        self._tensors = _load("compat.proto.tensor_pb2")
        self._shapes = _load("compat.proto.tensor_shape_pb2")
        self._types = _load("compat.proto.types_pb2")
        self._histograms = _load("plugins.histogram.metadata")
        self._hparams = _load("plugins.hparams.summary_v2")
        self._hparams_data = _load("plugins.hparams.plugin_data_pb2").HParamsPluginData
        self._checksum = import_optional("crc32c", _SUBJECT, _EXTRA).crc32c

    def write(self, runs: Iterable[RunTables], _schemas: Schemas, output: Path) -> ExportCounts:
        """Write the event file of each run; other files in the directories are not touched."""
        command = shlex.join(["tensorboard", "--logdir", str(output)])
        counts = ExportCounts(files=[output], advice=f"view them with: {command}")
        for tables in runs:
            path, content = output / tables.run_id / EVENT_FILE, self._encode(tables)
            if _has_content(path, content):
                counts.unchanged += 1
                continue
            path.parent.mkdir(exist_ok=True)
            remove_temporaries(path.parent)
            write_atomic(path, content)
            counts.written += 1
        return counts

    def _encode(self, tables: RunTables) -> bytes:
        """Return the content of the event file of a run."""
        start = tables.time_of_step(0)
        version = self._events.Event(wall_time=start, file_version="brain.Event:2")
        events = [version, self._events.Event(wall_time=start, summary=self._hyperparameters(tables))]
        for step, values in sorted(self._values_by_step(tables).items()):
            summary = self._summaries.Summary(value=values.values())
            events.append(self._events.Event(wall_time=tables.time_of_step(step), step=step, summary=summary))
        return b"".join(self._frame(event.SerializeToString(deterministic=True)) for event in events)

    def _hyperparameters(self, tables: RunTables) -> Any:
        """Return the summary with the config keys; the HParams page averages the runs of one arm."""
        values = {key: _hyperparameter(value) for key, value in tables.config.items()}
        start = tables.time_of_step(0)
        summary = self._hparams.hparams_pb(values, trial_id=str(tables.run["arm"]), start_time_secs=start)
        for value in summary.value:
            plugin = value.metadata.plugin_data
            plugin.content = self._hparams_data.FromString(plugin.content).SerializeToString(
                deterministic=True
            )
        return summary

    def _values_by_step(self, tables: RunTables) -> dict[int, dict[str, Any]]:
        """Return the values of each step by tag; of two probes at one step, the later one."""
        values: dict[int, dict[str, Any]] = {}
        curves = ((step, f"curves/{name}", number) for step, name, number in curve_scalars(tables))
        metrics = ((tables.last_step, f"metrics/{name}", number) for name, number in tables.metrics.items())
        for step, tag, number in chain(curves, layer_scalars(tables), metrics):
            values.setdefault(step, {})[tag] = self._summaries.Summary.Value(tag=tag, simple_value=number)
        for step, tag, histogram in layer_histograms_by_step(tables):
            values.setdefault(step, {})[tag] = self._histogram_value(tag, histogram)
        return values

    def _histogram_value(self, tag: str, histogram: Histogram) -> Any:
        """Return a histogram as rows of left edge, right edge and count."""
        rows = bins_with_outside(histogram)
        numbers = [number for row in rows for number in row]
        sizes = [self._shapes.TensorShapeProto.Dim(size=size) for size in (len(rows), 3)]
        tensor = self._tensors.TensorProto(
            dtype=self._types.DT_DOUBLE,
            tensor_shape=self._shapes.TensorShapeProto(dim=sizes),
            tensor_content=struct.pack(f"<{len(numbers)}d", *numbers),
        )
        metadata = self._histograms.create_summary_metadata(display_name=None, description=None)
        return self._summaries.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)

    def _frame(self, data: bytes) -> bytes:
        """Return a record of an event file: length, checksum of the length, data, checksum of the data."""
        length = struct.pack("<Q", len(data))
        return length + self._masked_checksum(length) + data + self._masked_checksum(data)

    def _masked_checksum(self, data: bytes) -> bytes:
        checksum = self._checksum(data)
        rotated = (checksum >> 15) | (checksum << 17)
        return struct.pack("<I", (rotated + _CRC_MASK) & 0xFFFFFFFF)


def _load(module: str) -> Any:
    return import_optional(f"tensorboard.{module}", _SUBJECT, _EXTRA)


def _hyperparameter(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else format_value(value)


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return read_bytes(path, LINES_BYTES) == content
    except OSError:
        return False
