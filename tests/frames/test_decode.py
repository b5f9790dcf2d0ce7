"""Packed files: what they hold comes out, and what is wrong with them ends in a reason, whatever it does to a decoder."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import FrameError
from lerar_dask.frames import decode
from lerar_dask.frames.reader import band_of, read_pixels
from lerar_dask.frames.scan import probe
from tests.frames.fuzzing import look

DATA = np.random.default_rng(3).integers(0, 4000, (64, 80)).astype(np.uint16)


def packed(path, data=DATA, codec="RICE_1", **cards):
    header = fits.Header({"IMAGETYP": "LIGHT", **cards})
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header, compression_type=codec)]).writeto(path)
    return path


def with_card(path, word, value, after=0):
    """Turn a card of a file's last header into another value."""
    data = bytearray(path.read_bytes())
    at = data.rfind(f"{word:<8}=".encode())
    assert at > after
    data[at : at + 80] = f"{word:<8}= {value:>20}".ljust(80).encode()
    path.write_bytes(bytes(data))
    return path


def reason_of(path):
    frame = probe(path)
    if frame.problem:
        return frame.problem
    with pytest.raises(FrameError) as caught:
        read_pixels(frame)
    return caught.value.message


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_rows_are_those_of_the_file(tmp_path, codec):
    frame = probe(packed(tmp_path / "a.fits.fz", codec=codec))
    np.testing.assert_array_equal(read_pixels(frame).data, DATA)
    np.testing.assert_array_equal(band_of(frame, 5, 60, step=7), DATA[5:60:7].astype(np.float32))


def test_threads_that_ask_at_once_get_their_own(tmp_path):
    frames = [probe(packed(tmp_path / f"{i}.fits.fz", np.roll(DATA, i, axis=0))) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for i, raw in enumerate(pool.map(read_pixels, frames)):
            np.testing.assert_array_equal(raw.data, np.roll(DATA, i, axis=0))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ZTILE1", 10**6),
        ("ZTILE1", 7),
        ("ZTILE2", 4),
        ("ZTILE1", -5),
        ("TFIELDS", 2**63),
        ("NAXIS2", 2**63),
        ("ZNAXIS2", 10**9),
        ("ZCMPTYPE", "'ODD_1   '"),
        ("ZBITPIX", -64),
        ("ZVAL1", 2**31),
    ],
)
def test_a_header_that_is_not_that_of_the_tiles(tmp_path, word, value):
    path = with_card(packed(tmp_path / "a.fits.fz"), word, value)
    assert look(path)
    assert probe(packed(tmp_path / "b.fits.fz")).problem == ""
    np.testing.assert_array_equal(read_pixels(probe(tmp_path / "b.fits.fz")).data, DATA)


def test_a_file_that_ends_the_decoder_is_set_aside_and_the_next_is_read(tmp_path, monkeypatch):
    good = probe(packed(tmp_path / "a.fits.fz"))
    read_pixels(good)
    monkeypatch.setattr(decode, "_CPU_S", -1.0)  # no more processor time than was taken so far

    def read_on():
        for _ in range(2000):
            read_pixels(good)

    with pytest.raises(FrameError, match="longer than its picture could"):
        read_on()
    monkeypatch.undo()
    np.testing.assert_array_equal(read_pixels(good).data, DATA)


def test_a_decoder_that_is_killed_between_two_files(tmp_path):
    frame = probe(packed(tmp_path / "a.fits.fz"))
    read_pixels(frame)
    for child in decode._pool.idle:
        child.process.kill()
        child.process.wait()
    n = len(decode._pool.idle)
    for _ in range(n):
        with pytest.raises(FrameError, match=r"SIGKILL|ended the decoder"):
            read_pixels(frame)
    np.testing.assert_array_equal(read_pixels(frame).data, DATA)


def test_memory_beyond_what_the_picture_could_take(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr(decode, "_COPIES", 0)
    big = packed(tmp_path / "a.fits.fz", np.zeros((3000, 4000), np.uint16))
    assert "memory" in reason_of(big)


def test_no_decoder_outlives_the_run(tmp_path):
    packed(tmp_path / "a.fits.fz")
    program = (
        "import sys, os\nfrom pathlib import Path\nfrom lerar_dask.frames.scan import probe\n"
        "from lerar_dask.frames.reader import read_pixels\nfrom lerar_dask.frames import decode\n"
        "read_pixels(probe(Path(sys.argv[1])))\nprint(decode._pool.idle[0].process.pid, flush=True)\n"
        "os._exit(0) if sys.argv[2] == 'hard' else None\n"
    )
    for way in ("soft", "hard"):
        ended = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "a.fits.fz"), way],
            capture_output=True,
            check=True,
            timeout=60,
        )
        pid = int(ended.stdout)
        for _ in range(1000):
            if not Path(f"/proc/{pid}").exists():
                break
            os.sched_yield()
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                subprocess.run(["sleep", "0.01"], check=True)
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_damaged_and_endless_gzip_files(tmp_path):
    plain = tmp_path / "a.fits"
    fits.writeto(plain, np.random.default_rng(1).integers(0, 9999, (300, 400)).astype(np.uint16))
    whole = gzip.compress(plain.read_bytes())
    path = tmp_path / "light.fits.gz"
    for cut in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(cut * len(whole))])
        assert "unpacked" in reason_of(path) or "ends within" in reason_of(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 30] = b"\xff" * 30
    path.write_bytes(bytes(damaged))
    assert "unpacked" in reason_of(path)
    path.write_bytes(whole + gzip.compress(bytes(1 << 28), 1) * 20)  # 5 GiB of zeros behind it
    np.testing.assert_array_equal(read_pixels(probe(path)).data, fits.getdata(plain))


def test_an_image_behind_a_huge_one_in_a_gzip_file_is_not_looked_for(tmp_path):
    header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 1), ("NAXIS1", 2**40)])
    path = tmp_path / "light.fits.gz"
    path.write_bytes(gzip.compress(header.tostring().encode() + bytes(1 << 20)))
    assert "no image" in probe(path).problem


@pytest.mark.parametrize(
    "cards",
    [
        {"CRVAL1": "nan"},
        {"CRVAL1": ""},
        {"CD1_1": "nan"},
        {"EXPTIME": "1e12"},
        {"CD1_1": "1e400"},
        {"DATE-OBS": "'9999-99-99T99'"},
    ],
)
def test_values_that_no_camera_writes_are_not_known(tmp_path, cards):
    path = tmp_path / "a.fits"
    base = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 1.0, "CRVAL2": 2.0, "CRPIX1": 1.0, "CRPIX2": 1.0}
    base |= {"CD1_1": 1e-4, "CD2_2": 1e-4, "EXPTIME": 60.0, "DATE-OBS": "2026-03-10T22:00:00"}
    fits.writeto(path, DATA, fits.Header(base))
    assert probe(path).header.wcs is not None
    for word, value in cards.items():
        with_card(path, word, value)
    header = probe(path).header
    known = {"EXPTIME": header.exposure_s, "DATE-OBS": header.start}
    assert known.get(next(iter(cards)), header.wcs) is None


def test_long_texts_are_joined_whatever_their_length(tmp_path):
    path = tmp_path / "a.fits"
    header = fits.Header({"IMAGETYP": "LIGHT"})
    header["OBJECT"] = "ab" * 15_000
    fits.writeto(path, DATA, header)
    assert probe(path).header.object == "ab" * 100


def test_a_file_cut_short_while_it_is_read_is_a_reason(tmp_path):
    path = tmp_path / "a.fits"
    fits.writeto(path, np.zeros((500, 500), np.uint16))
    frame = probe(path)
    os.truncate(path, 30_000)
    os.utime(path, ns=(frame.mtime_ns, frame.mtime_ns))
    with pytest.raises(FrameError, match=r"changed|cut short"):
        read_pixels(frame)
