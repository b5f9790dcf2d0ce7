"""Small machines and odd names: few open files, little memory, one huge frame, names that are no text."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import MemoryBudgetError
from tests.whole.nights import Night, adu, plane, rates, run, stamp


def small(tmp_path, seed, **how):
    night = Night(tmp_path / "night", seed, **how)
    night.lights(6)
    return night


def huge(path):
    """A light of 40,000 x 40,000 pixels that takes no room on the disk."""
    header = fits.Header(
        [("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 2), ("NAXIS1", 40_000), ("NAXIS2", 40_000), ("BZERO", 32768)]
    )
    header["IMAGETYP"], header["EXPTIME"], header["FILTER"], header["OBJECT"] = "LIGHT", 60.0, "L", "Sim 1"
    text = header.tostring().encode()
    path.write_bytes(text)
    os.truncate(path, len(text) + 2 * 40_000**2 + 2880)
    return path


def test_a_frame_too_large_for_the_memory_is_set_aside_by_name(tmp_path):
    night = small(tmp_path, 51)
    alone = run(night, tmp_path / "alone", memory="1GiB")
    huge(night.folder / "lights" / "huge.fits")
    summary = run(night, tmp_path / "out", memory="1GiB")
    assert summary.exit_code == 0
    ((path, reason),) = summary.aside
    assert path.endswith("huge.fits")
    assert "40000 x 40000" in reason
    assert "--memory 30" in reason
    assert [g.name for g in summary.groups] == [g.name for g in alone.groups]
    np.testing.assert_array_equal(plane(summary.groups[0].master), plane(alone.groups[0].master))


def test_when_no_light_fits_the_least_memory_is_said_and_does(tmp_path):
    night = Night(tmp_path / "night", 52)
    huge(night.put("light", "huge.fits", adu(night.light())))
    with pytest.raises(MemoryBudgetError) as caught:
        run(night, tmp_path / "out", memory="1GiB")
    assert "smallest of the lights needs 30" in caught.value.message
    assert not (tmp_path / "out" / "lerar.toml").exists()


@pytest.mark.slow
def test_few_open_files(tmp_path):
    night = Night(tmp_path / "night", 53, shape=(128, 160))
    for i in range(30):
        shift = tuple(night.rng.uniform(-4, 4, 2))
        night.put("light", f"l{i}.fits", adu(night.light(shift=shift)), EXPTIME=60.0, DATE_OBS=stamp(i))
    night.darks(150)
    night.darks(70, 0.0, "bias")
    night.flats(60)
    command = (
        f"ulimit -n 128 && exec {sys.executable} -m lerar_dask stack {night.folder} -o {tmp_path}/out --threads 8 -q"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr
    (master,) = (tmp_path / "out").glob("*.fits")
    found = rates(night, plane(master), least=80)
    assert len(found) > 3
    assert found.std() < 0.03 * found.mean()


def test_names_that_are_no_text(tmp_path):
    night = Night(tmp_path / os.fsdecode(b"n\xe9bula"), 54)
    for i in range(6):
        name = os.fsdecode(b"l\xff\xfe%d.fits" % i)
        night.put("light", name, adu(night.light()), EXPTIME=60.0, DATE_OBS=stamp(i), OBJECT=None)
    night.darks()
    night.flats()
    out = tmp_path / os.fsdecode(b"\xc3\x28")
    summary = run(night, out)
    assert summary.exit_code == 0
    assert summary.groups[0].n_used == 6
    assert not summary.aside
    assert run(night, out).did_nothing
    for words in (["info", "--frames"], ["link"]):
        target = out if words[0] == "info" else night.folder
        done = subprocess.run([sys.executable, "-m", "lerar_dask", words[0], target, *words[1:]], capture_output=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("limit", "words"), [("300000", "are needed at least"), ("1490000", "--memory")])
def test_an_address_limit_that_is_too_small_ends_with_one_line(tmp_path, limit, words):
    night = small(tmp_path, 55)
    command = f"ulimit -v {limit} && exec {sys.executable} -m lerar_dask stack {night.folder} -o {tmp_path}/out"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, text=True)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("lerar:")]
    assert len(said) == 1
    assert words in done.stderr
    assert "fault" not in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_solves_need_is_said_before_anything_is_read(tmp_path):
    night = small(tmp_path, 56)
    with pytest.raises(MemoryBudgetError, match="solving the 6 subs of Sim-1_L needs 516"):
        run(night, tmp_path / "out", memory="500MiB")
    assert run(night, tmp_path / "out", memory="527MiB").exit_code == 0
