"""Strict reader of YAML that returns plain data, the position of every key, and all faults at once.

Scalars follow the YAML 1.2 core schema, so `1e-3` is a number and `no` and `12:30` are text. Values that
YAML versions read differently (`010`) are refused, and so are features that a config does not need: tags,
merge keys, several documents and recursion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import yaml

from initbench.config.issue_messages import syntax_problem, yaml_type_name
from initbench.config.validation_errors import MAX_FAULTS, KeyPath, dotted_key
from initbench.errors import ConfigIssue
from initbench.registry import missing_space_advice

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_DIGITS = 100
MAX_VALUES = 20_000

REFUSED = "\0refused\0"
"""Placeholder in `Document.data` for a faulty value, so that the rest can be checked."""

Position = tuple[int, int]

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_EXPECTED = "a config is a mapping such as `kind: experiment`"


@dataclass
class YamlNode:
    """One value of a document with its positions in the text."""

    value: Any  # a scalar, or a dict or list of nodes
    position: Position
    key_position: Position
    size: int = 1  # characters with aliases expanded
    depth: int = 0  # levels of values below this one

    def plain(self) -> Any:
        """Return the value as independent plain data: two aliases of one anchor share nothing."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


@dataclass(frozen=True)
class Positions:
    """Positions of keys and values: (line, column), both from 1."""

    root: YamlNode

    def key(self, path: Sequence[str | int]) -> Position | None:
        """Return the position of the key (or list item) at `path`; None if the file has none."""
        node = self.find(path)
        return node.key_position if node else None

    def value(self, path: Sequence[str | int]) -> Position | None:
        """Return the position of the value at `path`; None if the file has none."""
        node = self.find(path)
        return node.position if node else None

    def find(self, path: Sequence[str | int]) -> YamlNode | None:
        """Return the value at `path` with its positions; None if the file has none."""
        try:
            return reduce(lambda node, part: node.value[part], path, self.root)
        except (KeyError, IndexError, TypeError):
            return None


@dataclass(frozen=True)
class Document:
    """Result of `parse_yaml`: the data as far as it could be read, and its faults."""

    data: dict[str, Any]
    positions: Positions
    faults: list[ConfigIssue]
    file: str
    """Name of the file in messages."""
    readable: bool = True
    """Whether the whole document was read; otherwise `data` is incomplete."""

    def where(self, path: Sequence[str | int], *, of_key: bool = False) -> str:
        """Return `file:line:column` of the value (or key) at `path`, or of its nearest parent's key."""
        for end in range(len(path), 0, -1):
            find = self.positions.key if of_key or end < len(path) else self.positions.value
            position = find(path[:end])
            if position is not None:
                return f"{self.file}:{position[0]}:{position[1]}"
        return f"{self.file}:1:1"


def parse_scalar(text: str) -> Any:
    """Parse a plain scalar; raises ValueError if it is ambiguous or too long."""
    if _WHOLE.fullmatch(text):
        return _whole(text)
    if _FLOAT.fullmatch(text):
        _refuse_too_long(text, "number")
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _NULL.fullmatch(text):
        return None
    return unicode_text(text)


def unicode_text(text: str) -> str:
    """Return `text` itself; raises ValueError if it cannot be encoded as UTF-8."""
    if re.search("[\ud800-\udfff]", text):
        raise ValueError("is not valid Unicode: it holds half of a surrogate pair")
    return text


def _whole(text: str) -> int:
    _refuse_too_long(text, "whole number")
    if not _LEADING_ZERO.fullmatch(text):
        return int(text, 0)
    old = f"the text {text!r}" if re.search("[89]", text) else str(int(text, 8))
    new = int(text)
    raise ValueError(f"ambiguous: YAML 1.1 reads {old}, YAML 1.2 reads {new}; write {new} or {text!r}")


def _refuse_too_long(text: str, noun: str) -> None:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a {noun} has at most {MAX_DIGITS} digits, this one has {len(text)}")


def parse_yaml(text: str | bytes, file: str) -> Document:
    """Read one YAML mapping; the result holds data or faults for any `text`, and no exception is raised."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        return _unreadable(file, "", f"is larger than {MAX_BYTES:,} bytes, the limit for a config")
    try:
        return _YamlReader(raw.decode("utf-8"), file).document()
    except UnicodeDecodeError as error:
        text_before = raw[: error.start].decode("utf-8")
        return _unreadable(file, text_before, f"is not UTF-8 text: byte 0x{raw[error.start]:02x}")
    except yaml.reader.ReaderError as error:
        text_before = raw.decode("utf-8")[: error.position]
        return _unreadable(file, text_before, f"the character U+{error.character:04X} is not allowed")


def _unreadable(file: str, text_before: str, problem: str) -> Document:
    line, column = text_before.count("\n") + 1, len(text_before) - text_before.rfind("\n")
    return _document(None, [ConfigIssue(f"{file}:{line}:{column}", "", problem)], file)


def _document(root: YamlNode | None, faults: list[ConfigIssue], file: str) -> Document:
    node = root or YamlNode({}, (1, 1), (1, 1))
    return Document(node.plain(), Positions(node), faults, file, root is not None)


class _StopError(Exception):
    """Signal that reading cannot continue; the fault with the reason has been recorded."""


class _YamlReader(yaml.SafeLoader):
    """PyYAML's scanner and parser with a custom composer that records positions and enforces limits."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self.file = file
        self.faults: list[ConfigIssue] = []
        self.finished: dict[str, YamlNode] = {}
        self.open_anchors: set[str] = set()
        self.value_count = 0
        self.alias_count = 0
        self.alias_size = 0

    def document(self) -> Document:
        """Read the stream's only document and collect its faults."""
        root = None
        try:
            root = self._root()
        except _StopError:
            pass
        except yaml.MarkedYAMLError as error:
            self._fault(syntax_problem(error), _position(error.problem_mark or self.get_mark()))
        except (ValueError, OverflowError):  # PyYAML lets \UFFFFFFFF and %YAML 1.<5000 digits> escape
            self._fault("an escape or number that cannot be read", _position(self.get_mark()))
        return _document(root, self.faults, self.file)

    def _next(self) -> Any:
        return self.get_event()  # type: ignore[no-untyped-call]

    def _ahead(self) -> Position:
        return _position(self.peek_event().start_mark)  # type: ignore[no-untyped-call]

    def _root(self) -> YamlNode | None:
        self._next()
        if self.check_event(yaml.StreamEndEvent):
            self._stop(f"is empty; {_EXPECTED}", (1, 1))
        self._next()
        node = self._compose((), None)
        self._next()
        if not self.check_event(yaml.StreamEndEvent):
            self._fault("a second document starts here; a config file holds one", self._ahead())
        if isinstance(node.value, dict):
            return node
        if node.value is not REFUSED:
            what = (
                "is empty" if node.value is None else f"must be a mapping, not {yaml_type_name(node.value)}"
            )
            spaced = missing_space_advice(node.value) if isinstance(node.value, str) else None
            self._fault(f"{what}; {spaced or _EXPECTED}", node.position)
        return None

    def _compose(self, path: KeyPath, key_position: Position | None) -> YamlNode:
        event = self._next()
        at = _position(event.start_mark)
        self.value_count += 1
        if self.value_count > MAX_VALUES:
            self._stop(f"holds more than {MAX_VALUES:,} keys and values, the limit for a config", at)
        if len(path) > MAX_DEPTH:
            self._stop(f"is nested deeper than {MAX_DEPTH} levels, the limit", at)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, at, key_position or at)
        self.open_anchors.add(event.anchor)
        node = YamlNode(None, at, key_position or at)
        self._fill(node, event, path)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
            self._fault(f"the tag {tag!r} is not accepted; write the plain value", at, path)
            node.value = REFUSED
        self.open_anchors.discard(event.anchor)
        self.finished[event.anchor] = node
        return node

    def _fill(self, node: YamlNode, event: Any, path: KeyPath) -> None:
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event, path)
            node.size += len(event.value)
            return
        is_list = isinstance(event, yaml.SequenceStartEvent)
        node.value = self._items(path) if is_list else self._entries(path)
        children = node.value if isinstance(node.value, list) else node.value.values()
        node.size += sum(child.size for child in children)
        node.depth = max((child.depth + 1 for child in children), default=0)

    def _scalar(self, event: Any, path: KeyPath) -> Any:
        try:
            return parse_scalar(event.value) if event.implicit[0] else unicode_text(event.value)
        except ValueError as error:
            self._fault(str(error), _position(event.start_mark), path)
            return REFUSED

    def _items(self, path: KeyPath) -> list[YamlNode]:
        items: list[YamlNode] = []
        while not self.check_event(yaml.SequenceEndEvent):
            items.append(self._compose((*path, len(items)), None))
        self._next()
        return items

    def _entries(self, path: KeyPath) -> dict[str, YamlNode]:
        entries: dict[str, YamlNode] = {}
        while not self.check_event(yaml.MappingEndEvent):
            at = self._ahead()
            key = self._key(path, at)
            node = self._compose((*path, REFUSED if key is None else key), at)
            if key is not None and key in entries:
                line = entries[key].key_position[0]
                self._fault(f"duplicate key; it was first given on line {line}", at, (*path, key))
            elif key is not None:
                entries[key] = node
                node.size += len(key)
        self._next()
        return entries

    def _key(self, path: KeyPath, at: Position) -> str | None:
        fault_count = len(self.faults)
        merge = self.check_event(yaml.ScalarEvent) and self.current_event.style is None
        key = self._compose((*path, REFUSED), None).value
        if merge and key == "<<":
            self._fault("the merge key '<<' is not accepted; write the keys out", at, path)
        elif not isinstance(key, str):
            advice = "" if key is None or isinstance(key, list | dict) else "; put it in quotes"
            self._fault(f"a key must be text, not {yaml_type_name(key)}{advice}", at, path)
        return None if len(self.faults) > fault_count else str(key)

    def _alias(self, event: Any, path: KeyPath, at: Position, key_position: Position) -> YamlNode:
        self.alias_count += 1
        if self.alias_count > MAX_ALIASES:
            self._stop(f"has more than {MAX_ALIASES} aliases, the limit", at)
        target = self.finished.get(event.anchor)
        inside = event.anchor in self.open_anchors
        if target is None or inside:
            why = "stands inside its own anchor" if inside else "names no anchor before it"
            self._fault(f"the alias *{event.anchor} {why}", at, path)
            return YamlNode(REFUSED, at, key_position)
        self.alias_size += target.size
        if self.alias_size > MAX_BYTES:
            self._stop(f"aliases expand it beyond {MAX_BYTES:,} characters, the limit", at)
        if len(path) + target.depth > MAX_DEPTH:
            self._stop(f"is nested deeper than {MAX_DEPTH} levels, the limit", at)
        return YamlNode(target.value, at, key_position, target.size, target.depth)

    def _fault(self, problem: str, at: Position, path: KeyPath = ()) -> None:
        key = dotted_key([part for part in path if part != REFUSED])
        self.faults.append(ConfigIssue(f"{self.file}:{at[0]}:{at[1]}", key, problem))
        if len(self.faults) == MAX_FAULTS:
            self._stop(f"has {MAX_FAULTS} faults so far; the rest is not read", at)

    def _stop(self, problem: str, at: Position) -> NoReturn:
        self.faults.append(ConfigIssue(f"{self.file}:{at[0]}:{at[1]}", "", problem))
        raise _StopError


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1
