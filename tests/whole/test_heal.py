"""A damaged store heals: every kind of part, in every way, and the master is the same."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from lerar_dask.pipeline import stack
from lerar_dask.run import Run
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from tests.conftest import run

CHANGED = {"reject": "sigma", "tile_px": 96}
"""Settings that make a run read everything before the master."""


def fingerprint(out: Path) -> str:
    (path,) = out.glob("*.fits")
    with fits.open(path) as opened:
        return hashlib.sha256(b"".join(opened[i].data.tobytes() for i in range(5))).hexdigest()


def kinds(store: Path) -> dict[str, list[Path]]:
    """Files of a store by their kind: numbers and keys made alike."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in store.rglob("*") if p.is_file() and p.name != "lock"):
        part = path.relative_to(store).as_posix()
        kind = re.sub(r"[0-9a-f]{12,}", "K", part)
        kind = re.sub(r"\d+x\d+_\w+", "G", kind)
        kind = re.sub(r"(?<=/)\d+(?=/|$|\.json)", "N", kind)
        found.setdefault(kind, []).append(path)
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def clear(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


WAYS = (flip, cut, clear, Path.unlink)


@pytest.fixture(scope="module")
def changed(night, stacked, tmp_path_factory) -> str:
    """Fingerprint of the master with the changed settings."""
    out = tmp_path_factory.mktemp("changed") / "out"
    shutil.copytree(stacked, out)
    assert run(night, out, **CHANGED).exit_code == 0
    return fingerprint(out)


def test_the_kinds_are_many(stacked):
    assert len(kinds(stacked / "store.zarr")) > 60


@pytest.mark.parametrize("turn", range(4))
def test_one_file_of_every_kind(night, stacked, changed, tmp_path, turn):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    for n, files in enumerate(kinds(out / "store.zarr").values()):
        WAYS[(turn + n) % 4](files[(turn * 7) % len(files)])
    summary = run(night, out, **CHANGED)
    assert (summary.exit_code, summary.n_used) == (0, 8)
    assert any("damaged" in note for note in summary.notes)
    assert fingerprint(out) == changed
    assert run(night, out, **CHANGED).did_nothing


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", ["raw/G/frames/N.json", "raw/G/pixels/c/N/N/N", "measures/G/K/grid/c/N/N/N/N/N"])
def test_all_files_of_a_kind(night, stacked, changed, tmp_path, kind, way):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    for path in kinds(out / "store.zarr")[kind]:
        way(path)
    summary = run(night, out, **CHANGED)
    assert (summary.exit_code, summary.n_used) == (0, 8)
    assert fingerprint(out) == changed


def test_every_line_of_the_ledger(night, stacked, tmp_path):
    (segment,) = (stacked / "store.zarr" / "ledger").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    bad = [bytes([line[0]]) + line[1:40] + bytes([line[40] ^ 4]) + line[41:] for line in lines]
    (out / "store.zarr" / "ledger" / segment.name).write_bytes(b"".join(bad))
    summary = run(night, out)
    assert summary.exit_code == 0
    assert any(f"{len(lines)} lines of the store's ledger damaged" in note for note in summary.notes)
    assert fingerprint(out) == fingerprint(stacked)
    assert not any("ledger" in note for note in run(night, out).notes)


def test_a_sub_whose_file_is_gone_is_set_aside_by_name(night, stacked, tmp_path):
    folder, out = tmp_path / "night", tmp_path / "out"
    shutil.copytree(night, folder)
    assert run(folder, out).exit_code == 0
    lost = sorted((folder / "lights").glob("*.fits"))[2]
    lost.unlink()
    for path in kinds(out / "store.zarr")["raw/G/pixels/c/N/N/N"]:
        flip(path)
    summary = run(folder, out)
    assert (summary.exit_code, summary.n_used) == (0, 7)
    assert [(Path(path).name, reason) for path, reason in summary.aside] == [(lost.name, "its file is gone")]
    assert [row["reason"] for row in Run.open(out).frames if row["path"] == str(lost)] == ["its file is gone"]


def test_it_is_said_which_sub_and_what_was_done(night, stacked, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    flip(kinds(out / "store.zarr")["raw/G/frames/N.json"][4])
    said = []
    bus = Bus()
    bus.subscribe(lambda event: said.append(getattr(event, "text", "")))
    stack([night], out, Settings.of(**CHANGED), bus=bus)
    (text,) = [text for text in said if "damaged" in text]
    assert re.fullmatch(r"damaged in the store: the raw pixels of \S+\.fits; made again", text)


def test_a_disk_that_loses_it_again_ends_with_one_line(night, stacked, tmp_path, monkeypatch):
    from lerar_dask.errors import StoreError
    from lerar_dask.store.measures import MeasureStore

    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    flip(kinds(out / "store.zarr")["measures/G/K/summary/N.json"][0])
    write = MeasureStore.write

    def write_badly(self, slot, **parts):
        size = write(self, slot, **parts)
        flip(Path(str(self._summary(slot))))
        return size

    monkeypatch.setattr(MeasureStore, "write", write_badly)
    with pytest.raises(StoreError, match="made again 2 times"):
        run(night, out)
