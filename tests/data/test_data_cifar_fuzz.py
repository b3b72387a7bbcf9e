"""CIFAR archives that were changed or crafted: they are read or refused, soon and in little memory."""

from __future__ import annotations

import gzip
import hashlib
import random
import resource
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cifar_files import CLASSES, Cifar, cifar10, cifar100, python2

from initbench.data.sets.cifar import MAX_UNPACKED, _load, published_files
from initbench.errors import DataError

SECONDS = 5.0
KILOBYTES = 2_000_000
CASES = 2000
SETS = (cifar10(), cifar100())
TYPES = (
    tarfile.REGTYPE,
    tarfile.AREGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CONTTYPE,
    tarfile.GNUTYPE_SPARSE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    b"Z",
)
PICKLES = (
    b"",
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x02r\xff\xff\xff\xff.",
    b"(" * 600_000,
    b"\x80\x02)" + b"\x85" * 100_000 + b"K\x01s.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00.",
    python2({b"data": list(range(3072)), b"labels": [0]}),
    python2({b"labels": [CLASSES] * 12, b"fine_labels": [-1] * 12}),
    python2([]),
)


def _mutated(draw: random.Random, content: bytes, first: int = 0) -> bytes:
    """The content with some bytes behind the first ones changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(first, max(first + 1, len(data)))
        match draw.randrange(5):
            case 0:
                data[at : at + 1] = draw.randbytes(1)
            case 1:
                data[at : at + 8] = draw.choice((b"\0" * 8, b"\xff" * 8, b"77777777", b"\x80" + b"\xff" * 7))
            case 2:
                del data[at : at + draw.randint(1, 600)]
            case 3:
                data[at:at] = data[at : at + draw.randint(1, 600)]
            case 4 if draw.random() < 0.3:
                del data[at:]
    return bytes(data)


def _member(draw: random.Random, name: str, content: bytes) -> bytes:
    """A member whose header may lie about its type, its size and what it points at."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    if draw.random() < 0.25:
        info.type = draw.choice(TYPES)
        info.linkname = draw.choice(("/etc/passwd", "/dev/zero", name, "../" * 30, ""))
    if draw.random() < 0.1:
        info.size = draw.choice((0, 1, len(content) + 1, 10**9, 2**40, 2**63))
    info.devmajor, info.devminor = 1, 5
    pax = {}
    if draw.random() < 0.1:
        keys = ("size", "path", "linkpath", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major", "mtime")
        pax[draw.choice(keys)] = draw.choice(("1", "-1", "9" * 40, "nan", "x", "0,99999999999", name))
        info.pax_headers = pax
    form = draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    header = info.tobuf(form, "utf-8", "surrogateescape")
    if draw.random() < 0.1:
        header = _mutated(draw, header)[:512].ljust(512, b"\0")
    return header + content + b"\0" * (-len(content) % 512)


def _archive(draw: random.Random, cifar: Cifar) -> tuple[bytes, dict[str, str]]:
    """An archive, and the checksums under which its members are taken for the published ones."""
    files = dict(cifar.files)
    if draw.random() < 0.5:
        name = draw.choice(list(files))
        files[name] = (
            _mutated(draw, files[name], draw.choice((0, max(0, len(files[name]) - 2000))))
            if draw.random() < 0.7
            else draw.choice(PICKLES)
        )
    members = [_member(draw, f"{cifar.folder}/{name}", content) for name, content in files.items()]
    if draw.random() < 0.2:
        draw.shuffle(members)
        members.append(draw.choice(members))
    tar = b"".join(members) + b"\0" * 1024
    if draw.random() < 0.2:
        tar = _mutated(draw, tar)
    packed = gzip.compress(tar, 1)
    if draw.random() < 0.1:
        packed = _mutated(draw, packed)
    return packed, {name: hashlib.md5(content).hexdigest() for name, content in files.items()}


def _read(cifar: Cifar, path: Path, checksums: dict[str, str]) -> None:
    files = published_files(cifar.name, cifar.class_name)
    wanted = {name: checksums[name] for name in files.unpacked.checksums}
    _load(replace(files, unpacked=replace(files.unpacked, checksums=wanted)), {cifar.packed: path})


def _attack(cases: range, place: Path) -> dict[str, int]:
    path, outcomes = place / "archive.tar.gz", {"read": 0, "refused": 0}
    for number in cases:
        draw = random.Random(f"cifar {number}")
        cifar = draw.choice(SETS)
        content, checksums = _archive(draw, cifar)
        path.write_bytes(content)
        start = time.process_time()
        try:
            _read(cifar, path, checksums)
            outcomes["read"] += 1
        except DataError as error:
            assert str(error)
            outcomes["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
        assert time.process_time() - start < SECONDS, number
    return outcomes


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_changed_archive_is_read_or_refused(tmp_path: Path) -> None:
    outcomes = _attack(range(270, 365), tmp_path)
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.slow
def test_many_changed_archives_are_read_or_refused(tmp_path: Path) -> None:
    before = _peak()
    outcomes = _attack(range(CASES), tmp_path)
    assert _peak() - before < KILOBYTES
    print(f"{CASES:,} archives, {outcomes}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batches.meta", "padding"])
def test_an_archive_that_unpacks_to_very_much_is_refused(tmp_path: Path, name: str) -> None:
    cifar, before = SETS[0], _peak()
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", 1) as packed:
        info = tarfile.TarInfo(f"{cifar.folder}/{name}")
        info.size = 2 * MAX_UNPACKED
        packed.write(info.tobuf())
        zeros = bytes(2**20)
        for _ in range(2 * MAX_UNPACKED // len(zeros)):
            packed.write(zeros)
    start = time.process_time()
    with pytest.raises(DataError, match=r"unpacks to more than|bytes, over the limit"):
        _read(cifar, path, dict.fromkeys(cifar.files, "0" * 32))
    assert time.process_time() - start < SECONDS
    assert _peak() - before < KILOBYTES
