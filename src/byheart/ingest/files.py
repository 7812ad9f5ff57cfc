"""Folders, zips and single files: which of their files are pages of the manual."""

from __future__ import annotations

import fnmatch
import os
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from byheart.ingest.convert import FORMATS
from byheart.ingest.pool import Source
from byheart.records import Skipped

_MAX_ENTRIES = 20_000
_MAX_UNPACKED_BYTES = 2 * 2**30
_MAX_RATIO = 200  # text packs 3 to 20 times; bombs, 1,000 times
_RATIO_MATTERS_BYTES = 10 * 2**20
_OTHER_FOLDERS = {"node_modules", "__pycache__", "__MACOSX"}
_ASSETS = {
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".avif", ".bmp", ".mp4", ".webm", ".mov", ".mp3", ".css",
    ".js", ".ts", ".tsx", ".jsx", ".json", ".yaml", ".yml", ".toml", ".xml", ".map", ".woff", ".woff2",
    ".ttf", ".eot", ".otf",
}  # fmt: skip


def find_sources(
    path: Path, *, prefix: str, include: tuple[str, ...], exclude: tuple[str, ...], max_file_mb: float
) -> Iterator[Source | Skipped]:
    """Yield the pages of a folder, zip or file, sorted; Skipped for files that are none. Hidden ones are passed over.

    `prefix` is put before every location ("" or "folder/"). Raises FileNotFoundError where there is nothing.
    """
    max_bytes = int(max_file_mb * 2**20)
    if path.is_dir():
        found = _in_folder(path, prefix, max_bytes)
    elif not path.exists():
        raise FileNotFoundError(path)
    elif path.suffix.lower() == ".zip":
        found = _in_zip(path, prefix, max_bytes)
    else:
        found = iter([_file(path, f"{prefix}{path.name}", max_bytes)])
    for item in found:
        reason = left_out(item.location, include=include, exclude=exclude)
        yield Skipped(item.location, reason) if reason else item


def files_below(path: Path) -> Iterator[Path]:
    """Yield the files of a folder in a fixed order, without hidden ones and installed packages."""
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _OTHER_FOLDERS)
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder) / name


def left_out(location: str, *, include: tuple[str, ...], exclude: tuple[str, ...]) -> str:
    """Return why a location is not wanted, or ""."""
    if include and not any(fnmatch.fnmatchcase(location, pattern) for pattern in include):
        return "left out: it matches none of ingest.include"
    matching = next((pattern for pattern in exclude if fnmatch.fnmatchcase(location, pattern)), None)
    return f"left out by ingest.exclude: {matching}" if matching is not None else ""


def _in_folder(root: Path, prefix: str, max_bytes: int) -> Iterator[Source | Skipped]:
    inside = root.resolve()
    located = sorted((file.relative_to(root).as_posix(), file) for file in files_below(root))
    for name, file in located:
        location = f"{prefix}{name}"
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            yield Skipped(location, "it is a link that leads out of the folder")
        else:
            yield _file(file, location, max_bytes)


def _file(file: Path, location: str, max_bytes: int) -> Source | Skipped:
    try:
        status = file.stat()
    except OSError as fault:
        return Skipped(location, f"{fault.strerror or fault}")
    if not file.is_file():
        return Skipped(location, "it is not a regular file")
    reason = _unreadable(location, status.st_size, max_bytes)
    if reason:
        return Skipped(location, reason)
    return Source(location, "", _modified(status), file.read_bytes)


def _modified(status: os.stat_result) -> str:
    """Return when a file was last changed: unlike the time of reading, the same in every run."""
    return datetime.fromtimestamp(int(status.st_mtime), UTC).isoformat()


def _unreadable(location: str, size: int, max_bytes: int) -> str:
    """Return why a file of this name and size is not read, or ""."""
    suffix = PurePosixPath(location).suffix.lower()
    if suffix in _ASSETS:
        return f"it is not a page ({suffix})"
    if suffix not in FORMATS and PurePosixPath(location).name.lower() != "readme":
        known = " ".join(sorted(FORMATS))
        return f"byheart does not read {suffix or 'files without an ending'} (it reads {known})"
    if size == 0:
        return "it is empty"
    if size > max_bytes:
        return f"it has {size / 2**20:.0f} MB, over the limit of {max_bytes / 2**20:g} MB (ingest.max_file_mb)"
    return ""


def _in_zip(path: Path, prefix: str, max_bytes: int) -> Iterator[Source | Skipped]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as fault:  # ValueError: a name's letters
        yield Skipped(path.name, f"the archive cannot be opened: {fault}")
        return
    # The archive stays open as long as one of its entries waits to be loaded.
    entries = sorted((entry for entry in archive.infolist() if not entry.is_dir()), key=lambda e: e.filename)
    reason = _bomb(entries)
    if reason:
        yield Skipped(path.name, reason)
        return
    modified = _modified(path.stat())
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if not any((part.startswith(".") and part != "..") or part in _OTHER_FOLDERS for part in parts):
            yield _zip_entry(archive, entry, f"{prefix}{PurePosixPath(*parts)}", modified, max_bytes)


def _bomb(entries: list[zipfile.ZipInfo]) -> str:
    if len(entries) > _MAX_ENTRIES:
        return f"the archive has {len(entries)} entries, over the limit of {_MAX_ENTRIES}"
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _MAX_UNPACKED_BYTES:
        return f"the archive unpacks to {unpacked // 2**20} MB, over the limit of {_MAX_UNPACKED_BYTES // 2**20} MB"
    return ""


def _zip_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, location: str, modified: str, max_bytes: int
) -> Source | Skipped:
    name = entry.filename.replace("\\", "/")
    if name.startswith("/") or ".." in PurePosixPath(name).parts or (len(name) > 1 and name[1] == ":"):
        return Skipped(location, "its name leads out of the archive")
    if entry.flag_bits & 1:
        return Skipped(location, "it is encrypted: pack it without a password")
    if entry.file_size > _RATIO_MATTERS_BYTES and entry.file_size > _MAX_RATIO * max(entry.compress_size, 1):
        return Skipped(location, f"it unpacks {entry.file_size // max(entry.compress_size, 1)}-fold: a zip bomb")
    reason = _unreadable(location, entry.file_size, max_bytes)
    if reason:
        return Skipped(location, reason)

    def load() -> bytes:
        try:
            with archive.open(entry) as stream:
                data = stream.read(max_bytes + 1)  # the size that the archive states may be a lie
        except Exception as fault:  # each way of packing has errors of its own
            raise ValueError(f"it cannot be unpacked: {fault}") from fault
        if len(data) > max_bytes:
            raise ValueError(f"it unpacks to more than {max_bytes / 2**20:g} MB (ingest.max_file_mb)")
        return data

    return Source(location, "", modified, load)
