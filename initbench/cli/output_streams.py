"""Make stdout and stderr tolerate closed pipes and full disks.

Neither a closed pipe nor a full disk ends the command: runs are still trained and gates still judged. Lost
data on stdout is an error at the end; lost progress on stderr is not.
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
from initbench.render.ascii_text import replace_unencodable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ASCII_FORMS_HANDLER, ASCII_CODEC = "initbench.ascii", "initbench_ascii"
_READER_GONE = (BrokenPipeError, ConnectionResetError)


class LossTolerantFile(FileIO):
    """An open file descriptor that drops data that cannot be written, and stores the reason.

    A reader such as `head` may close the pipe early; data written after that are dropped without a reason.
    """

    loss: str | None = None
    """Reason why data were lost; None if none were."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the bytes and return the number written; drop all of them after a failure."""
        size = memoryview(data).nbytes
        if self.loss is not None:
            return size
        try:
            written: int | None = super().write(data)
            if written is None:  # a non-blocking pipe that is full
                select.select([], [self], [])
                return 0
            return written
        except _READER_GONE:
            return size
        except OSError as error:
            self.loss = (error.strerror or str(error)).lower()
            return size


class ClosedFile(LossTolerantFile):
    """Replacement of a stream that was closed before the command started."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Drop the bytes and return their number."""
        self.loss = "it is closed"
        return memoryview(data).nbytes


def install_output_streams() -> None:
    """Replace sys.stdout and sys.stderr by streams that tolerate write failures.

    Characters that the encoding lacks are printed in their ASCII forms, such as -> and sigma.
    Closed descriptors are opened on the null device, so that no file of a run reuses their number.
    """
    codecs.register_error(ASCII_FORMS_HANDLER, replace_unencodable)
    codecs.register(_find_codec)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


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


def check_output() -> None:
    """Raise OutputError if anything that was printed on stdout could not be written."""
    sys.stdout.flush()
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(file, LossTolerantFile) and file.loss is not None:
        raise OutputError(f"stdout cannot be written: {file.loss}")


def _stream(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a tolerant stream on the same descriptor; keep streams that are not text files."""
    if stream is None:
        closed = BufferedWriter(ClosedFile(descriptor, "wb", closefd=False))
        return TextIOWrapper(closed, encoding="utf-8", errors="replace")
    if not isinstance(stream, TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    return TextIOWrapper(
        BufferedWriter(LossTolerantFile(stream.fileno(), "wb", closefd=False)),
        encoding=ASCII_CODEC if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding,
        errors=ASCII_FORMS_HANDLER,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
