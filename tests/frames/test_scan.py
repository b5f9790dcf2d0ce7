"""Every file ends as a frame that can be read, or with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import UsageError
from lerar_dask.frames.reader import band_of, read_pixels
from lerar_dask.frames.scan import probe, scan


def put(path: Path, **cards) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(np.ones((4, 5), "i2"), fits.Header(cards)).writeto(path)
    return path


def test_all_real_files_end_well(shared_data):
    found = scan([shared_data])
    for frame in found.frames:
        assert (frame.pixels is None) <= bool(frame.problem), frame.path
        assert (frame.pixels is None) == bool(frame.problem) or frame.n_planes == 3, frame.path
        if frame.pixels is not None:
            pixels = read_pixels(frame).data
            assert pixels.shape == frame.shape
            assert np.nanstd(pixels.astype(float)) > 0
    n_files = sum(p.is_file() for p in shared_data.rglob("*"))
    assert len(found.frames) + found.n_foreign == n_files


def test_real_pixels_against_astropy(shared_data):
    checked = 0
    for frame in scan([shared_data]).frames:
        if frame.pixels is not None:
            with fits.open(frame.path) as opened:
                wanted = opened[frame.pixels.hdu].data.reshape(-1, *frame.shape).astype(np.float32)
            wanted -= np.float32(frame.pixels.less)  # PEDESTAL of the header
            assert len(wanted) == frame.n_planes
            for k, plane in enumerate(wanted):
                np.testing.assert_array_equal(band_of(frame, 0, frame.shape[0], plane=k), plane)
                checked += 1
    assert checked > 20


def test_reasons_of_real_files(shared_data):
    folder = shared_data / "formats"
    assert "three planes" in probe(folder / "cube_3planes_u16.fits").problem
    assert "interleaved" in probe(folder / "cube_interleaved_f32.fits").problem
    assert "XISF" in probe(folder / "rgb_f32_zstd_sh.xisf").problem
    stack = probe(folder / "siril106_stack_rgb_f32_crop.fits.gz")
    assert stack.header.is_stack
    lossy, exact = (probe(folder / f"comp_{n}_nan.fits.fz") for n in ("rice_float_lossy", "gzip2_float_lossless"))
    assert (lossy.pixels.lossy, exact.pixels.lossy) == (True, False)


def test_pattern_in_the_filter_of_a_real_sub(shared_data):
    found = probe(shared_data / "panoptes_kic8462852" / "tiny.fits").header
    assert (found.cfa, found.filter, found.sensor_temp_c) == ("RGGB", None, 11.0)


def test_what_is_gone_into(tmp_path):
    kept = [put(tmp_path / "a" / "x.fits"), put(tmp_path / "a" / "deep" / "Y.FIT")]
    put(tmp_path / ".hidden" / "h.fits")
    put(tmp_path / "a" / ".x.fits")
    put(tmp_path / "s.zarr" / "z.fits")
    put(tmp_path / "out" / "master.fits")
    put(tmp_path / "other" / "stack.fits")
    (tmp_path / "other" / "lerar.toml").touch()
    (tmp_path / "other" / "store.zarr").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    found = scan([tmp_path], exclude=[tmp_path / "out"])
    assert {f.path for f in found.frames} == set(kept)
    assert found.n_foreign == 1


def test_a_file_given_twice_counts_once(tmp_path):
    path = put(tmp_path / "x.fits")
    assert [f.path for f in scan([path, tmp_path]).frames] == [path]


def test_no_such_folder(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        scan([tmp_path / "nowhere"])


def test_a_dangling_link_has_a_reason(tmp_path):
    (tmp_path / "x.fits").symlink_to(tmp_path / "gone.fits")
    assert "cannot be read" in scan([tmp_path]).frames[0].problem


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.fits")
    assert scan([tmp_path]).frames[0].problem


def test_folder_names_tell_the_kind(tmp_path):
    kinds = {"Lights": "light", "darks": "dark", "FLAT": "flat", "bias": "bias", "dark_flats": "flat-dark"}
    for folder in kinds:
        put(tmp_path / "M31" / folder / "f.fits", EXPTIME=1.0)
    found = {f.path.parent.name: f.header for f in scan([tmp_path]).frames}
    assert {name: h.kind for name, h in found.items()} == kinds
    assert found["Lights"].object == "M31"


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    night, library = tmp_path / "night", tmp_path / "library"
    (night / "lights").mkdir(parents=True)
    library.mkdir()
    for path in (night / "lights" / "a.fits", library / "d.fits"):
        fits.PrimaryHDU(np.arange(64, dtype=np.uint16).reshape(8, 8)).writeto(path)
    (night / "darks").symlink_to(library, target_is_directory=True)
    (night / "lights" / "again").symlink_to(night, target_is_directory=True)
    assert [f.path.name for f in scan([night]).frames] == ["d.fits", "a.fits"]
