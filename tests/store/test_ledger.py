"""The last record of a key wins; a torn line harms no other."""

from __future__ import annotations

from lerar_dask.store.ledger import Ledger
from tests.store.places import local

RECORD = {"digest": "", "state": "done", "reason": "", "result": {}}


def test_last_record_wins_across_writers(tmp_path):
    ledger = Ledger(local(tmp_path / "ledger"))
    assert ledger.load() == {}
    for name, value in (("z", 1), ("a", 2)):  # the later segment sorts first
        with ledger.writer(name, ledger.load()) as writer:
            writer.append({**RECORD, "key": "k", "value": value})
            writer.append({**RECORD, "key": name, "value": 0})
    assert ledger.load()["k"]["value"] == 2
    assert set(ledger.load()) == {"k", "a", "z"}


def test_writer_without_records_leaves_no_file(tmp_path):
    with Ledger(local(tmp_path)).writer("w", {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_torn_and_strange_lines_are_skipped(tmp_path):
    ledger = Ledger(local(tmp_path))
    with ledger.writer("w", ledger.load()) as writer:
        writer.append({**RECORD, "key": "a"})
        writer.append({**RECORD, "key": "b"})
    (path,) = tmp_path.iterdir()
    strange = b'[1]\n{"seq": 3}\n{"key": "c", "seq": "x"}\n{"key": ["l"], "seq": 1}\n\xff\n\n{"key": "d", "s'
    path.write_bytes(path.read_bytes() + strange)
    assert set(ledger.load()) == {"a", "b"}
    with ledger.writer("w", ledger.load()) as writer:
        writer.append({**RECORD, "key": "a", "new": True})
    assert ledger.load()["a"]["new"]


def test_compacted_tells_the_same(tmp_path):
    ledger = Ledger(local(tmp_path))
    for i in range(9):
        with ledger.writer("w", ledger.load()) as writer:
            writer.append({**RECORD, "key": "same", "i": i})
            writer.append({**RECORD, "key": f"own{i}"})
    before = ledger.load()
    assert ledger.take() == (before, 0)
    assert len(list(tmp_path.iterdir())) == 1
    assert ledger.load() == before
    assert before["same"]["i"] == 8
