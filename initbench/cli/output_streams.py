"""stdout and stderr as commands need them: data that is lost is an error, progress that is lost is not.

A reader that has gone away ends neither the command nor its verdict.
"""

from __future__ import annotations

import codecs
import os
import select
import sys
from contextlib import suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from initbench.errors import OutputError
from initbench.report.ascii_text import replace_unencodable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ASCII_FORMS_HANDLER, ASCII_CODEC = "initbench.ascii", "initbench_ascii"
_READER_GONE = (BrokenPipeError, ConnectionResetError)


class PipeTolerantFile(FileIO):
    """An open file descriptor that drops what is written once nobody reads from it.

    `head` closes its end as soon as it has enough. What is written after that is lost, as it should be, but
    the command goes on: a gate is still judged, a run still trained, and the exit code says how it went.
    """

    _is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the bytes and return their number: all of them once the reader is gone.

        Raises:
            OutputError: If they cannot be written for another reason; the first time only.
        """
        size = memoryview(data).nbytes
        if self._is_lost:
            return size
        try:
            written: int | None = super().write(data)
            if written is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
                return 0
            return written
        except _READER_GONE:
            return size
        except OSError as error:
            self._is_lost = True
            return self.lose(size, error)

    def lose(self, size: int, error: OSError) -> int:
        """Raise the error that says why `size` bytes were lost."""
        del size
        raise OutputError(f"stdout cannot be written: {(error.strerror or str(error)).lower()}") from error


class BestEffortFile(PipeTolerantFile):
    """An open file descriptor that drops what cannot be written: progress and messages."""

    def lose(self, size: int, error: OSError) -> int:
        """Return `size`, as if all had been written."""
        del error
        return size


class ClosedFile(PipeTolerantFile):
    """Stands for a stdout that was closed before the command began."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Refuse to write, the first time."""
        if self._is_lost:
            return memoryview(data).nbytes
        self._is_lost = True
        raise OutputError("stdout cannot be written: it is closed")


def install_output_streams() -> None:
    """Replace sys.stdout and sys.stderr by streams that outlive their reader.

    Characters that the encoding lacks are printed in their ASCII forms, such as -> and sigma.
    Descriptors that are closed are opened on the null device, so that no file of a run takes their number.
    """
    codecs.register_error(ASCII_FORMS_HANDLER, replace_unencodable)
    codecs.register(_find_codec)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _stream(sys.stdout, 1, PipeTolerantFile)
    sys.stderr = _stream(sys.stderr, 2, BestEffortFile)


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """Return ASCII under another name: click writes UTF-8 to a stream whose encoding is called ASCII."""
    if name != ASCII_CODEC:
        return None
    info = codecs.lookup("ascii")
    return codecs.CodecInfo(
        info.encode,
        info.decode,
        info.streamreader,
        info.streamwriter,
        info.incrementalencoder,
        info.incrementaldecoder,
        name=ASCII_CODEC,
    )


def _stream(stream: TextIO | None, descriptor: int, kind: type[PipeTolerantFile]) -> TextIO:
    """Return a stream on the same descriptor; what is not a plain text file stays as it is."""
    if stream is None:
        kind = ClosedFile if descriptor == 1 else BestEffortFile
        return TextIOWrapper(BufferedWriter(kind(descriptor, "wb", closefd=False)), encoding="utf-8")
    if not isinstance(stream, TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    return TextIOWrapper(
        BufferedWriter(kind(stream.fileno(), "wb", closefd=False)),
        encoding=ASCII_CODEC if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding,
        errors=ASCII_FORMS_HANDLER,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
