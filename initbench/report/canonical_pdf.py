"""A canonical form of PDF documents, in which equal pictures have equal bytes.

vl-convert orders and numbers the objects of a document, and the names in dictionaries of resources,
differently from call to call.
"""

from __future__ import annotations

import re

_RESOURCES = re.compile(rb"(?:^ *\/\w+ \d+ 0 R\n){2,}", re.MULTILINE)
_XREF_ENTRY = re.compile(rb"^(\d{10}) \d{5} n\r?\n?", re.MULTILINE)
_OBJECT = re.compile(rb"(\d+) 0 obj\b")
_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")


def canonical_pdf(document: bytes) -> bytes:
    """Return the document with sorted resources, and with objects numbered in the order of references.

    A document with another structure than that of vl-convert is returned unchanged.
    """
    table = document.rfind(b"xref\n", 0, document.rfind(b"startxref"))
    trailer_start = document.find(b"trailer", table)
    offsets = sorted(int(match[1]) for match in _XREF_ENTRY.finditer(document, max(table, 0), trailer_start))
    if table < 0 or trailer_start < 0 or not offsets:
        return document
    objects = {}
    for start, end in zip(offsets, [*offsets[1:], table], strict=True):
        header = _OBJECT.match(document, start)
        if header is None:
            return document
        objects[int(header[1])] = _RESOURCES.sub(_sorted_lines, document[header.end() : end])
    trailer = document[trailer_start : document.rfind(b"startxref")]
    order = _reference_order(trailer, objects)
    if sorted(order) != sorted(objects):
        return document
    return _assembled(document[: offsets[0]], [objects[number] for number in order], order, trailer)


def _assembled(header: bytes, objects: list[bytes], order: list[int], trailer: bytes) -> bytes:
    """Return the document of these objects, whose references use the numbers in `order`."""
    numbers = {old: new for new, old in enumerate(order, 1)}

    def renumbered(text: bytes) -> bytes:
        """Replace the references outside a stream."""
        words, keyword, stream = text.partition(b"stream\n")
        return _REFERENCE.sub(lambda match: b"%d 0 R" % numbers[int(match[1])], words) + keyword + stream

    parts, entries, position = [header], [b"0000000000 65535 f\r\n"], len(header)
    for number, text in enumerate(objects, 1):
        entries.append(b"%010d 00000 n\r\n" % position)
        parts.append(b"%d 0 obj" % number + renumbered(text))
        position += len(parts[-1])
    table = b"xref\n0 %d\n" % len(entries)
    ending = b"startxref\n%d\n%%%%EOF" % position
    return b"".join([*parts, table, *entries, renumbered(trailer), ending])


def _reference_order(trailer: bytes, objects: dict[int, bytes]) -> list[int]:
    """Return the numbers of the objects in the order in which a search from the trailer meets them."""
    order: dict[int, None] = {}
    waiting = _references(trailer)
    while waiting:
        number = waiting.pop()
        if number not in order and number in objects:
            order[number] = None
            waiting += _references(objects[number])
    return list(order)


def _references(text: bytes) -> list[int]:
    """Return the numbers of the objects that the text outside a stream refers to, the first one last."""
    words = text.partition(b"stream\n")[0]
    return [int(match[1]) for match in _REFERENCE.finditer(words)][::-1]


def _sorted_lines(match: re.Match[bytes]) -> bytes:
    return b"".join(sorted(match[0].splitlines(keepends=True)))
