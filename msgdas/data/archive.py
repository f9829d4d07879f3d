"""Unpack zip and tar files of images once, into the user's cache folder; from there they are read as a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from msgdas.data.cache import cache_folder
from msgdas.errors import InputError
from msgdas.runs.files import staged_folder, write_chunks

__all__ = ["is_archive", "is_shards", "unpacked"]

ZIP, TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, LookupError, zipfile.BadZipFile, tarfile.TarError)
MOST_FILES = 20_000_000
KEPT_FREE = 2**30  # bytes of disk
CHUNK = 2**20
ENDS = 2**20  # bytes at an archive's start and end that tell it from others

Member = tuple[str, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether it is a zip or tar file by its name."""
    return path.name.lower().endswith((*ZIP, *TAR)) and path.is_file()


def is_shards(folder: Path) -> bool:
    """Whether it is a folder of tar files, as WebDataset has them, and of no other folders."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return any(map(is_archive, entries)) and not any(entry.is_dir() for entry in entries)


def unpacked(archive: Path) -> Path:
    """The folder with the contents of an archive, or of all in a folder of shards; it is unpacked when first asked for.

    Nothing is written outside that folder: members are regular files with relative names, others are left out. If all
    files lie in one folder, that is returned.

    Raises:
        InputError: it cannot be read, or needs more space than there is.
    """
    sources = sorted(p for p in archive.iterdir() if is_archive(p)) if archive.is_dir() else [archive]
    name = archive.resolve().name.split(".")[0] or "images"
    home = cache_folder("unpacked")
    folder = home / f"{name[:100]}-{_key(sources)}"
    if not folder.is_dir():
        try:
            home.mkdir(parents=True, exist_ok=True)
            with staged_folder(folder) as ready:
                for source in sources:
                    _unpack(source, ready / source.name.split(".")[0] if len(sources) > 1 else ready)
        except DAMAGE as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"archive '{archive}' cannot be unpacked: {reason}") from None
    while len(inside := [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]) == 1:
        if not inside[0].is_dir():
            break
        folder = inside[0]
    return folder


def _key(sources: list[Path]) -> str:
    """Names, sizes and ends of the archives as a short text."""
    digest = hashlib.sha256()
    for path in sources:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode(errors="surrogateescape"))
        with open(path, "rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(0, size - ENDS))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _unpack(archive: Path, into: Path) -> None:
    space, count = _Space(archive, into.parent), 0
    for name, data in _zip(archive) if archive.name.lower().endswith(ZIP) else _tar(archive):
        path = _inside(into, name)
        if path is None:
            continue
        count += 1
        if count > MOST_FILES:
            raise InputError(f"archive '{archive}' has more than {MOST_FILES:,} files: unpack it yourself")
        write_chunks(path, space.chunks(data))
    if not count:
        raise InputError(f"archive '{archive}' has no files")


class _Space:
    """What an archive may take of the disk."""

    def __init__(self, archive: Path, home: Path) -> None:
        self._archive, self._home, self._left = archive, home, shutil.disk_usage(home).free - KEPT_FREE

    def chunks(self, data: IO[bytes]) -> Iterator[bytes]:
        while chunk := data.read(CHUNK):
            self._left -= len(chunk)
            if self._left < 0:
                raise InputError(
                    f"archive '{self._archive}' needs more space than there is in '{self._home}': "
                    "free some, or name another cache folder by XDG_CACHE_HOME"
                )
            yield chunk


def _zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if not member.is_dir() and member.external_attr >> 28 != 0xA:  # a symbolic link
                with opened.open(member) as data:
                    yield member.filename, data


def _tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and (data := opened.extractfile(member)) is not None:
                yield member.name, data


def _inside(folder: Path, name: str) -> Path | None:
    """The path of a member below ``folder``; None for hidden files and names that lead out."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    if not parts or any(part.startswith((".", "/", "__MACOSX")) or "\0" in part or ":" in part for part in parts):
        return None
    return Path(os.path.join(folder, *parts))
