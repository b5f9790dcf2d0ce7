"""Objects of a store as files in a folder: a local disk, or one that a cluster shares."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from lerar_dask.errors import StoreError, space_error
from lerar_dask.store.lock import locked
from lerar_dask.store.storage import Buffers

__all__ = ["LocalStorage"]

_HALF = ".partial"
"""End of the names of what is not whole."""
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_TRIES = 100
"""Times that a folder is named while other writers name theirs."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class LocalStorage:
    """A folder; see `Storage` for what its methods promise."""

    in_vain_bytes = 0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def shown(self, path: str) -> str:
        """Path of the file."""
        return str(self._file(path))

    def get(self, path: str) -> bytes:
        """All bytes of a file."""
        with open(self._name(path), "rb", buffering=0) as file:
            return file.read()

    def get_array(self, path: str) -> np.ndarray:
        """All bytes of a file in an array of its own."""
        ranges = LocalRanges(self._name(path))
        try:
            data = np.empty(ranges.size, np.uint8)
            return data[: ranges.read_into(data, 0)]
        finally:
            ranges.close()

    def open_ranges(self, path: str) -> LocalRanges:
        """Open a file for reads of its parts."""
        return LocalRanges(self._name(path))

    def identity(self, path: str) -> tuple[int, int, int]:
        """Inode, size and time of change."""
        return _identity(os.stat(self._name(path)))

    def size(self, path: str) -> int | None:
        """Bytes of a plain file; a symbolic link is none."""
        file = self._file(path)
        return file.stat().st_size if file.is_file() and not file.is_symlink() else None

    def bytes_below(self, path: str) -> int:
        """Bytes of a file, or of all files in a folder; links count as what they are."""
        name = self._name(path)
        if not os.path.isdir(name):
            return os.lstat(name).st_size if os.path.lexists(name) else 0
        return sum(os.lstat(os.path.join(folder, n)).st_size for folder, _, names in os.walk(name) for n in names)

    def has(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return os.path.exists(self._name(path))

    def put(self, path: str, data: Buffers) -> int:
        """Write a file under another name, and give it its own."""
        final = self._file(path)
        partial = _half(final)
        with _told_if_full(final):
            try:
                size = _write(partial, data)
                _name_file(partial, final)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return size

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write a file, and link it to its name if that is free."""
        final = self._file(path)
        partial = _half(final)
        with _told_if_full(final):
            try:
                _write(partial, data)
                os.link(partial, final)
            except FileExistsError:
                return False
            finally:
                partial.unlink(missing_ok=True)
        return True

    def put_together(self, folder: str, objects: Mapping[str, Buffers]) -> int:
        """Write a folder under another name, and give it its own."""
        final = self._file(folder)
        partial = _half(final)
        with _told_if_full(final):
            try:
                total = sum(_write(partial / name, data) for name, data in objects.items())
                _name_folder(partial, final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return total

    @contextmanager
    def append(self, path: str) -> Iterator[LocalAppender]:
        """Open a file for appending, when it has a first record."""
        appender = LocalAppender(self._file(path))
        try:
            yield appender
        finally:
            appender.close()

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Folders and files in a folder, without halves and without links to folders."""
        folders: list[str] = []
        files: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._name(folder)) as entries:
            for entry in entries:
                if not entry.name.endswith(_HALF) and not (entry.is_symlink() and entry.is_dir()):
                    (folders if entry.is_dir() else files).append(entry.name)
        return sorted(folders), sorted(files)

    def delete(self, path: str) -> None:
        """Give it the name of a half, and remove that."""
        away = self._file(path).with_name(f"{uuid.uuid4().hex}{_HALF}")
        with suppress(FileNotFoundError, NotADirectoryError):
            self._file(path).rename(away)
            if away.is_dir() and not away.is_symlink():
                shutil.rmtree(away, ignore_errors=True)
            else:
                away.unlink()

    def sweep(self) -> int:
        """Remove halves."""
        stale = []
        for folder, names, files in os.walk(self.root):
            stale += [Path(folder, name) for name in (*names, *files) if name.endswith(_HALF)]
            names[:] = [name for name in names if not name.endswith(_HALF)]
        for path in stale:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return len(stale)

    @contextmanager
    def lock(self, path: str, *, shared: bool = False) -> Iterator[None]:
        """An advisory lock of the system on a file."""
        with locked(self._file(path), shared=shared):
            yield

    def for_zarr(self, path: str) -> str:
        """Path of the folder."""
        return self._name(path)

    def _file(self, path: str) -> Path:
        return self.root / path if path else self.root

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}" if path else self.url


class LocalRanges:
    """A file open for reading, by `pread`.

    A memory map would be 0.1 ns per pixel faster, but its pages count as ours, a read error or a file cut short under it
    ends the process (SIGBUS), and letting its pages go interrupts all cores.
    """

    __slots__ = ("_descriptor", "identity", "size")

    def __init__(self, name: str) -> None:
        self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self.identity, self.size = _identity(status), status.st_size

    def read_into(self, buffer: np.ndarray, offset: int) -> int:
        """Fill bytes (uint8) from an offset; how many there were."""
        return os.preadv(self._descriptor, [buffer.data], offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class LocalAppender:
    """A file that grows record by record."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1

    def append(self, record: bytes) -> None:
        """Add a record in one write."""
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, _APPEND, 0o644)
        if os.write(self._descriptor, record) < len(record):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """A file of a store is only ever replaced, never changed: another one has another identity."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _half(final: Path) -> Path:
    return final.with_name(f"{final.name}.{uuid.uuid4().hex}{_HALF}")


@contextmanager
def _told_if_full(final: Path) -> Iterator[None]:
    """Turn errors of a disk that is full or read-only into SpaceError."""
    try:
        yield
    except OSError as error:
        if full := space_error(error, final.parent, writing=True):
            raise full from error
        raise


def _write(path: Path, data: Buffers) -> int:
    """Write a new file, with the folders above it where they are missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    size = 0
    parts: Iterable = [data] if isinstance(data, bytes | bytearray | memoryview | np.ndarray) else data
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            size += len(view)
            while len(view):
                view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    return size


def _name_file(partial: Path, final: Path) -> None:
    """Give a file its name; a folder that stands in its place makes way, to be swept."""
    try:
        os.replace(partial, final)
    except IsADirectoryError:
        final.rename(_half(final))
        os.replace(partial, final)


def _name_folder(partial: Path, final: Path) -> None:
    """Give a folder its name; the same one, written by another task in the meantime, gives way."""
    for _ in range(_TRIES):
        try:
            partial.rename(final)
            return
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            away = _half(final)
            with suppress(OSError):
                final.rename(away)
                shutil.rmtree(away, ignore_errors=True)
    raise StoreError(f"an array of the store changes while it is written: {final}")
