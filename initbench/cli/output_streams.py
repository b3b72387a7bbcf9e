"""stdout and stderr that outlive their reader: a closed pipe ends neither the command nor its verdict."""

from __future__ import annotations

import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_READER_GONE = (BrokenPipeError, ConnectionResetError)


class PipeTolerantFile(FileIO):
    """An open file descriptor that drops what is written once nobody reads from it.

    `head` closes its end as soon as it has enough. What is written after that is lost, as it should be, but
    the command goes on: a gate is still judged, a run still trained, and the exit code says how it went.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the bytes and return their number: all of them once the reader is gone."""
        try:
            return super().write(data)
        except _READER_GONE:
            return memoryview(data).nbytes


def install_output_streams() -> None:
    """Replace sys.stdout and sys.stderr by streams that outlive their reader.

    Characters that the encoding lacks become question marks: a histogram on an ASCII terminal is no error.
    """
    sys.stdout = _tolerant(sys.stdout)
    sys.stderr = _tolerant(sys.stderr)


def _tolerant(stream: TextIO) -> TextIO:
    """Return a stream on the same descriptor; None and what is not a plain text file stay as they are."""
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.flush()
    return TextIOWrapper(
        BufferedWriter(PipeTolerantFile(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
