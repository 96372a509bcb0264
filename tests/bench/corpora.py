"""The real mail of the data folder as raw messages, read without the product's own feeds."""

from __future__ import annotations

import gzip
import re
import tarfile
from pathlib import Path

_SEPARATOR = re.compile(rb"^From [^\n]*\d\d:\d\d[^\n]*\n", re.M)
ARCHIVES = ("linux-mips-1996-2001", "linux-mips-2006-2007", "r-package-devel-2015-2026")


def archive(data: Path, name: str) -> list[bytes]:
    """The messages of one mbox archive, without their separator lines; quoting of body lines is left as it is."""
    content = gzip.decompress((data / f"{name}.mbox.gz").read_bytes())
    starts = list(_SEPARATOR.finditer(content))
    ends = [following.start() for following in starts[1:]] + [len(content)]
    return [content[start.end() : end] for start, end in zip(starts, ends, strict=True)]


def tar_files(path: Path) -> dict[str, bytes]:
    """The files of a tar archive by name, in order."""
    found: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                found[member.name] = stream.read()
    return found


def malformed(data: Path) -> list[Path]:
    """The nasty mails, each beside a ``.json`` of what another parser makes of it."""
    return sorted((data / "malformed").glob("*/*.eml"))


def everything(data: Path, most: int) -> list[bytes]:
    """Up to ``most`` messages of each corpus, evenly spread: what a fuzzer starts from."""
    pools = [archive(data, name) for name in ARCHIVES]
    pools.append(list(tar_files(data / "spamassassin-part.tar.gz").values()))
    pools.append(list(tar_files(data / "threading-notmuch.tar.gz").values()))
    pools.append([path.read_bytes() for path in malformed(data)])
    return [raw for pool in pools for raw in pool[:: max(len(pool) // most, 1)][:most]]
