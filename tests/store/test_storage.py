"""What every kind of storage promises; another kind is another line of the fixture."""

from __future__ import annotations

import errno
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lerar_dask.errors import LockedError, SpaceError, UsageError
from lerar_dask.store.bucket_storage import BucketStorage
from lerar_dask.store.storage import Place, ReplacedError, Storage, open_storage
from tests.store.buckets import bucket_server, use_server


@pytest.fixture(params=["local", "moto", "localbucket"])
def storage(request, tmp_path, monkeypatch) -> Storage:
    if request.param == "local":
        return open_storage(tmp_path / "store")
    endpoint, _ = request.getfixturevalue(request.param)
    use_server(monkeypatch, endpoint)
    return open_storage(f"s3://nights/{uuid.uuid4().hex}/store.zarr")


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with bucket_server("moto", tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def localbucket(tmp_path_factory):
    with bucket_server("localbucket", tmp_path_factory.mktemp("localbucket")) as server:
        yield server


def test_what_is_put_is_there(storage):
    assert storage.size("a/b") is None
    assert not storage.has("a")
    assert storage.put("a/b", b"one") == 3
    assert storage.put("a/b", [b"fo", memoryview(b"ur"), np.arange(3, dtype="u1")]) == 7
    assert storage.get("a/b") == b"four\x00\x01\x02"
    assert storage.size("a/b") == 7
    assert storage.has("a/b")
    assert storage.has("a")
    with pytest.raises(FileNotFoundError):
        storage.get("a/c")


def test_parts_and_identity(storage):
    storage.put("x", bytes(range(100)))
    ranges = storage.open_ranges("x")
    buffer = np.zeros(8, np.uint8)
    assert ranges.size == 100
    assert ranges.read_into(buffer, 10) == 8
    assert buffer.tolist() == list(range(10, 18))
    assert ranges.read_into(buffer, 96) == 4
    assert ranges.identity == storage.identity("x")
    ranges.close()
    storage.put("x", bytes(range(1, 101)))
    assert ranges.identity != storage.identity("x")
    with pytest.raises(FileNotFoundError):
        storage.open_ranges("y")
    with pytest.raises(FileNotFoundError):
        storage.identity("y")


def test_of_several_writers_one_wins(storage):
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda i: storage.put_if_absent("a/x", b"%d" % i), range(32)))
    assert sum(kept) == 1
    assert storage.get("a/x") == b"%d" % kept.index(True)
    assert storage.names("a") == ([], ["x"])


def test_names_and_walk(storage):
    for path in ("b", "a/2", "a/1", "a/c/0", "d/e/f/g"):
        storage.put(path, b"")
    assert storage.names("") == (["a", "d"], ["b"])
    assert storage.names("a") == (["c"], ["1", "2"])
    assert storage.names("none") == ([], [])
    assert storage.names("b") == ([], [])
    assert [p.path for p in Place(storage).walk()] == ["b", "a/1", "a/2", "a/c/0", "d/e/f/g"]
    assert [p.path for p in Place(storage).walk(frozenset(("c", "e")))] == ["b", "a/1", "a/2"]


def test_delete(storage):
    for path in ("a/1", "a/b/2", "c"):
        storage.put(path, b"x")
    for path in ("a", "c", "c", "none/at/all"):
        storage.delete(path)
    assert storage.names("") == ([], [])


def test_together(storage):
    assert storage.put_together("a/x", {"c/0": b"old", "c/1": b"older", "zarr.json": b"{}"}) == 10
    assert storage.put_together("a/x", {"c/0": b"new", "zarr.json": b"{}"}) == 5
    assert storage.get("a/x/c/0") == b"new"
    assert storage.names("a/x/c") == ([], ["0"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.put_together("a/y", {"c": b"7" * 1000, "n": b"7"}), range(40)))
    assert storage.get("a/y/c")[:1] == storage.get("a/y/n")
    assert storage.names("a") == (["x", "y"], [])


def test_of_writers_of_one_folder_one_is_seen_whole(tmp_path):
    storage = open_storage(tmp_path / "store")  # in a bucket all write the same
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: storage.put_together("a/y", {"c": b"%d" % (i % 2) * 1000, "n": b"%d" % (i % 2)}), range(40)
            )
        )
    assert storage.get("a/y/c")[:1] == storage.get("a/y/n")


def test_records(storage):
    with storage.append("l/1") as appender:
        assert not storage.has("l/1")
        for i in range(3):
            appender.append(b"%d\n" % i)
            assert storage.get("l/1").endswith(b"%d\n" % i)
    assert storage.get("l/1") == b"0\n1\n2\n"
    with storage.append("l/2"):
        pass
    assert not storage.has("l/2")


def test_lock(storage):
    storage.put("x", b"")
    with storage.lock("lock"), pytest.raises(LockedError, match=f"process {os.getpid()}"), storage.lock("lock"):
        pass
    with storage.lock("lock"):
        pass


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, SpaceError), (errno.EIO, OSError)])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, number, kind):
    storage = open_storage(tmp_path)
    storage.put("x", b"old")
    storage.put_together("a", {"c": b"old"})

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    for write in (
        lambda: storage.put("x", b"new"),
        lambda: storage.put_if_absent("y", b"new"),
        lambda: storage.put_together("a", {"c": b"new"}),
    ):
        with pytest.raises(kind):
            write()
    monkeypatch.undo()
    assert storage.names("") == (["a"], ["x"])
    assert storage.get("x") == storage.get("a/c") == b"old"


def test_a_folder_in_the_way_and_links(tmp_path):
    storage = open_storage(tmp_path)
    (tmp_path / "x").mkdir()
    storage.put("x", b"new")
    assert storage.get("x") == b"new"
    (tmp_path / "target").write_bytes(b"elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").symlink_to(tmp_path)
    assert storage.size("link") is None
    storage.put("link", b"own")
    assert (tmp_path / "target").read_bytes() == b"elsewhere"
    assert storage.names("")[0] == []
    storage.delete("folder")
    assert (tmp_path / "target").exists()
    storage.sweep()
    assert storage.names("") == ([], ["link", "target", "x"])


def test_kinds_that_nobody_knows(tmp_path):
    with pytest.raises(UsageError, match="ftp://"):
        open_storage("ftp://server/night")


def test_a_replaced_object_is_noticed_by_whoever_reads_it(storage):
    storage.put("x", bytes(1000))
    ranges = storage.open_ranges("x")
    storage.put("x", bytes(range(100)) * 10)
    buffer = np.zeros(8, np.uint8)
    if isinstance(storage, BucketStorage):
        with pytest.raises(ReplacedError):
            ranges.read_into(buffer, 0)
    else:
        assert ranges.identity != storage.identity("x")
    ranges.close()
    again = storage.open_ranges("x")
    assert again.read_into(buffer, 8) == 8
    assert buffer.tolist() == list(range(8, 16))
    again.close()


def test_many_records(storage):
    records = [b"%d %s\n" % (i, b"x" * 500) for i in range(300)]
    with storage.append("l/1.jsonl") as appender:
        for record in records:
            appender.append(record)
    folders, names = storage.names("l")
    assert not folders
    assert all(name.endswith(".jsonl") for name in names)
    kept = b"".join(storage.get(f"l/{name}") for name in names)
    assert sorted(kept.splitlines(keepends=True)) == sorted(records)


def test_shared_locks(storage):
    storage.put("x", b"")
    with storage.lock("lock", shared=True):
        with storage.lock("lock", shared=True):
            pass
        with pytest.raises(LockedError), storage.lock("lock"):
            pass
    with storage.lock("lock"), pytest.raises(LockedError), storage.lock("lock", shared=True):
        pass
    with storage.lock("lock"):
        pass
