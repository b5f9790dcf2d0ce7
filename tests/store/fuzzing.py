"""Mutated stores: a small finished run, damaged in as many ways as disks and people have, and stacked again.

`mutate(out, seed, number)` does the damage of one input, always the same; `judge(...)` stacks and says what came out.
Damage must heal to the very same pixels. What somebody else has made (parts changed places, sums that fit other values)
may give others, but never more than a reason.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lerar_dask.errors import LerarError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from lerar_dask.store.document import pack, unpack

SETTINGS: tuple[dict[str, Any], ...] = ({}, {"reject": "sigma"}, {"tile_px": 96, "reject": "none"})
"""The second and third read more and more of the store again."""
_FIXED = {"threads": 1, "preview": False, "report": False, "memory": "2GiB"}


def make_run(folder: Path) -> Path:
    """A night and its run, small; the folder that holds both."""
    night = simulate(folder / "night", n=4, shape=(240, 280), seed=5, n_darks=3, n_flats=3, n_bias=3)
    again(night, folder / "out", {})
    return folder


def again(night: Path, out: Path, settings: dict[str, Any]) -> str:
    """Fingerprint of the master that a call gives."""
    summary = stack([night], out, Settings.of(**_FIXED, **settings), bus=Bus())
    if summary.exit_code != 0 or summary.n_used != 4:
        raise AssertionError(f"exit {summary.exit_code}, {summary.n_used} used: {summary.aside} {summary.groups}")
    (path,) = out.glob("*.fits")
    with fits.open(path) as opened:
        return hashlib.sha256(b"".join(opened[i].data.tobytes() for i in range(5))).hexdigest()


def fingerprints(made: Path, work: Path) -> list[str]:
    """What each of SETTINGS gives of a whole store."""
    found = []
    for k, settings in enumerate(SETTINGS):
        shutil.copytree(made / "out", work / f"whole{k}")
        found.append(again(made / "night", work / f"whole{k}", settings))
    return found


def judge(made: Path, out: Path, whole: list[str], seed: int, number: int) -> str:
    """Damage a copy of the run and stack it: `same pixels`, or the reason in place of a master.

    Raises
    ------
    AssertionError
        when other pixels came out of a damaged store.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made / "out", out)
    foreign = mutate(out, seed, number)
    which = int(np.random.default_rng([seed, number, 1]).integers(len(SETTINGS)))
    try:
        found = again(made / "night", out, SETTINGS[which])
    except LerarError as error:
        if foreign:
            return f"reason: {error.message[:40]}"
        raise AssertionError(f"it does not heal: {error.message}") from error
    except AssertionError:
        if foreign:
            return "fewer subs"
        raise
    if found == whole[which]:
        return "same pixels"
    if foreign:
        return "other pixels"
    raise AssertionError("other pixels")


def mutate(out: Path, seed: int, number: int) -> bool:
    """Damage files of a run's store; whether by what only somebody else can have done."""
    rng = np.random.default_rng([seed, number])
    store = out / "store.zarr"
    files = sorted(p for p in store.rglob("*") if p.is_file() and p.name != "lock")
    if rng.random() < 0.2:
        _foreign(rng, files)
        return True
    for _ in range(int(rng.integers(1, 6))):
        path = files[rng.integers(len(files))]
        if path.is_file():
            _DAMAGES[rng.integers(len(_DAMAGES))](rng, path)
    return False


def _flip(rng: np.random.Generator, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 4)) if data else 0):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def _cut(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size + 1))])


def _longer(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 4000))))


def _clear(rng: np.random.Generator, path: Path) -> None:
    """A block of the disk that was never written."""
    data = bytearray(path.read_bytes())
    start = int(rng.integers(len(data) + 1)) // 512 * 512
    data[start : start + 4096] = b"\0" * len(data[start : start + 4096])
    path.write_bytes(data)


def _noise(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(rng.bytes(int(rng.integers(0, 4000))))


def _remove(rng: np.random.Generator, path: Path) -> None:
    path.unlink()


def _remove_folder(rng: np.random.Generator, path: Path) -> None:
    parents = [p for p in path.parents if "store.zarr" in p.parts]
    shutil.rmtree(parents[int(rng.integers(len(parents)))])


def _folder_in_its_place(rng: np.random.Generator, path: Path) -> None:
    path.unlink()
    path.mkdir()


_DAMAGES = (_flip, _flip, _flip, _cut, _cut, _longer, _clear, _noise, _remove, _remove_folder, _folder_in_its_place)


def _foreign(rng: np.random.Generator, files: list[Path]) -> None:
    """Parts that changed places, or JSON with other values under a sum that fits."""
    documents = [p for p in files if p.suffix == ".json" and p.name != "zarr.json"]
    segments = [p for p in files if p.suffix == ".jsonl"]
    kind = rng.integers(3)
    if kind == 0:
        first, second = (files[i] for i in rng.choice(len(files), 2, replace=False))
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    elif kind == 1 and documents:
        path = documents[rng.integers(len(documents))]
        path.write_bytes(pack(_other(rng, unpack(path.read_bytes()))))
    elif segments:
        path = segments[rng.integers(len(segments))]
        lines = path.read_bytes().splitlines()
        at = int(rng.integers(len(lines)))
        lines[at] = pack(_other(rng, unpack(lines[at])))
        path.write_bytes(b"\n".join(lines) + b"\n")


def _other(rng: np.random.Generator, value: Any) -> Any:
    """A value with one thing in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _other(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [*value[:at], _other(rng, value[at]), *value[at + 1 :]]
    strange = (
        None,
        True,
        -1,
        0,
        1e300,
        float("nan"),
        "",
        "x",
        "../../x",
        "/etc/passwd",
        [],
        {},
        [[]],
        {"is": "path"},
        1 << 70,
    )
    return strange[rng.integers(len(strange))]
