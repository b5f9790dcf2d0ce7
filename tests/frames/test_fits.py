"""Pixels against astropy for every type; hostile files end with a reason, never with an exception of another kind."""

from __future__ import annotations

import gzip
import time

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.errors import FrameError
from lerar_dask.frames.fits import cards as read_cards
from lerar_dask.frames.reader import band_of, fill_band, read_pixels
from lerar_dask.frames.scan import probe

SHAPE = (7, 13)


def sample(dtype) -> np.ndarray:
    rng = np.random.default_rng(3)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(100, 20, SHAPE).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    data = rng.integers(low, high, SHAPE, dtype, endpoint=True)
    data[0, :2] = low, high
    return data


def plain(**cards) -> bytes:
    """A FITS file of any cards; pixels are zeros."""
    words = {"SIMPLE": "T", "BITPIX": "16", "NAXIS": "2", "NAXIS1": "13", "NAXIS2": "7", **cards}
    lines = [f"{k:8}= {v:>20}" for k, v in words.items() if v is not None]
    text = "".join(line.ljust(80) for line in [*lines, "END"])
    return text.ljust(-(-len(text) // 2880) * 2880).encode() + bytes(2880)


def problem_of(tmp_path, content: bytes, name="a.fits") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    frame = probe(path)
    assert (frame.pixels is None) == bool(frame.problem)
    return frame.problem


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("form", ["plain", "gzip", "extension"])
def test_every_type(tmp_path, dtype, form):
    data = sample(dtype)
    path = tmp_path / ("a.fits.gz" if form == "gzip" else "a.fits")
    if form == "extension":
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data)]).writeto(path)
    else:
        fits.PrimaryHDU(data).writeto(path)
    frame = probe(path)
    assert frame.problem == ""
    assert frame.shape == SHAPE
    pixels = read_pixels(frame)
    assert (pixels.scale, pixels.zero) == (1.0, 0.0)
    assert pixels.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(pixels.data, data)
    np.testing.assert_array_equal(band_of(frame, 2, 6, step=2), data[2:6:2].astype(np.float32))
    stack = np.zeros((3, 2, SHAPE[1]), np.float32)
    fill_band(frame, 1, 4, stack, 0)
    fill_band(frame, 1, 4, stack, 1, pedestal=np.full((3, SHAPE[1]), 7, np.float32), factor=0.5)
    values = data[1:4].astype(np.float32)
    np.testing.assert_array_equal(stack, np.stack([values, (values - 7) * np.float32(0.5)], axis=1))


@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("dtype", ["i2", "u2", "i4"])
def test_compressed(tmp_path, codec, dtype):
    data = np.random.default_rng(1).integers(0, 3000, (40, 50)).astype(dtype)
    path = tmp_path / "a.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, compression_type=codec)]).writeto(path)
    frame = probe(path)
    np.testing.assert_array_equal(read_pixels(frame).data, data)
    np.testing.assert_array_equal(band_of(frame, 5, 21), data[5:21])


def test_scale_zero_and_blank(tmp_path):
    path = tmp_path / "a.fits"
    hdu = fits.PrimaryHDU(np.arange(91, dtype="i2").reshape(SHAPE))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 20.0, 5
    hdu.writeto(path, output_verify="silentfix")
    raw = fits.open(path, do_not_scale_image_data=True)[0].data
    head = fits.getheader(path)
    expected = raw * float(head.get("BSCALE", 1)) + float(head.get("BZERO", 0))
    expected[raw == 5] = np.nan
    np.testing.assert_array_equal(band_of(probe(path), 0, 7), expected.astype(np.float32))


def test_blank_of_unsigned(tmp_path):
    content = plain(BZERO="32768", BLANK="-32768", BITPIX="16")
    path = tmp_path / "a.fits"
    pixels = np.zeros(SHAPE, ">i2")
    pixels[0, 0] = -32768
    path.write_bytes(content[:2880] + pixels.tobytes().ljust(2880, b"\0"))
    frame = probe(path)
    band = band_of(frame, 0, 7)
    assert read_pixels(frame).blank == 0
    assert np.isnan(band[0, 0])
    assert np.nansum(band == 32768) == band.size - 1


def test_sound_file_of_this_test_is_taken(tmp_path):
    assert problem_of(tmp_path, plain()) == ""


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        (dict(BITPIX="7"), "pixel type"),
        (dict(BITPIX="'16'"), "pixel type"),
        (dict(BITPIX=None), "pixel type"),
        (dict(NAXIS="-2"), "number of axes"),
        (dict(NAXIS="'two'"), "number of axes"),
        (dict(NAXIS="1E9"), "number of axes"),
        (dict(NAXIS="1000000000"), "number of axes"),
        (dict(NAXIS="T"), "number of axes"),
        (dict(NAXIS1="-13"), "size"),
        (dict(NAXIS1="13.5"), "size"),
        (dict(NAXIS2=None), "size"),
        (dict(NAXIS1="0"), "no image"),
        (dict(NAXIS="0"), "no image"),
        (dict(NAXIS1="999999999999", NAXIS2="999999999999"), "cut short"),
        (dict(NAXIS1="999999999999999999999999"), "cut short"),
        (dict(NAXIS1="1300"), "cut short"),
        (dict(NAXIS="3", NAXIS3="9"), "cube"),
    ],
)
def test_hostile_header(tmp_path, cards, reason):
    assert reason in problem_of(tmp_path, plain(**cards))


@pytest.mark.parametrize("cards", [dict(BSCALE="NAN"), dict(BSCALE="0"), dict(BZERO="INF")])
def test_scale_that_makes_no_pixels(tmp_path, cards):
    assert "scale" in problem_of(tmp_path, plain(**cards))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"S", "header"),
        (b"\x89PNG\r\n" + bytes(5000), "no FITS"),
        (b"hello world" * 1000, "no FITS"),
        (plain()[:2000], "header"),
        (plain()[:2880], "cut short: 0%"),
        (plain()[:2980], "cut short"),
        (plain().replace(b"END  ", b"EMD  ")[:2880], "header"),
        (gzip.compress(plain(), mtime=0)[:60], "unpacked"),
        (b"\x1f\x8b" + b"rubbish" * 50, "unpacked"),
    ],
)
def test_hostile_bytes(tmp_path, content, reason):
    assert reason in problem_of(tmp_path, content)


def test_header_without_end_is_read_no_further_than_needed(tmp_path):
    card = b"COMMENT x".ljust(80)
    head = plain()[:160] + card * 34
    assert "no end" in problem_of(tmp_path, head + card * 36 * 1100)


def test_gzip_bomb(tmp_path):
    bomb = gzip.compress(plain(NAXIS1="40000", NAXIS2="40000")[:2880] + bytes(1 << 20))
    assert "times its size" in problem_of(tmp_path, bomb, "a.fits.gz")


def test_gzip_that_would_be_unpacked_for_nothing(tmp_path):
    """A header promises much before the next HDU: it is not unpacked to get there."""
    words = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "1", "NAXIS1": "4000000000000", "EXTEND": "T"}
    header = b"".join(f"{word:8}= {value:>20}".encode().ljust(80) for word, value in words.items())
    path = tmp_path / "bomb.fits.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((header + b"END".ljust(80)).ljust(2880))
        for _ in range(40):
            file.write(bytes(1 << 24))
    start = time.process_time()
    assert "no image" in probe(path).problem
    assert time.process_time() - start < 0.3


def test_thirty_thousand_cards(tmp_path):
    content = plain()
    end = content.index(b"END".ljust(80))
    cards = b"".join(f"K{i:05d}  = {i}".encode().ljust(80) for i in range(30_000)) + b"END".ljust(80)
    header = content[:end] + cards
    path = tmp_path / "long.fits"
    path.write_bytes(header.ljust(-(-len(header) // 2880) * 2880) + content[2880:])
    found = probe(path)
    assert not found.problem
    assert np.array_equal(read_pixels(found).data, np.zeros(SHAPE, np.int16))
    assert len(read_cards(path, 0)) > 30_000


def test_gzip_that_ends_early_is_set_aside_when_read(tmp_path):
    path = tmp_path / "a.fits.gz"
    noise = np.random.default_rng(0).integers(0, 2**15, (200, 200)).astype("i2")
    fits.PrimaryHDU(noise).writeto(path)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(FrameError):
        read_pixels(probe(path))


def test_file_changed_after_the_scan(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(plain())
    frame = probe(path)
    path.write_bytes(plain()[:2900])
    with pytest.raises(FrameError, match="changed"):
        read_pixels(frame)
    path.unlink()
    with pytest.raises(FrameError, match="no longer"):
        read_pixels(frame)


def test_cards_come_back_verbatim(tmp_path):
    path = tmp_path / "a.fits"
    hdu = fits.ImageHDU(sample("i2"))
    hdu.header["OBJECT"] = ("O'Neil's", "a name")
    primary = fits.PrimaryHDU()
    primary.header["FILTER"] = "Ha"
    primary.header["LONG"] = "x" * 150
    fits.HDUList([primary, hdu]).writeto(path)
    frame = probe(path)
    assert (frame.header.object, frame.header.filter) == ("O'Neil's", "Ha")
    cards = read_cards(path, frame.pixels.hdu)
    with fits.open(path) as opened:
        wanted = [opened[i].header.tostring(sep="\n", endcard=True, padding=False).split("\n") for i in (0, 1)]
    assert [c for c in cards if c] == [line.rstrip() for block in wanted for line in block if line.strip()]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 2879), byte=st.integers(0, 255))
def test_any_byte_of_the_header_may_be_wrong(tmp_path_factory, at, byte):
    content = bytearray(plain(BZERO="32768", EXPTIME="30.0", OBJECT="'M 31'"))
    content[at] = byte
    path = tmp_path_factory.mktemp("f") / "a.fits"
    path.write_bytes(bytes(content))
    frame = probe(path)
    if frame.pixels is not None:
        assert read_pixels(frame).data.shape == frame.shape


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_letters_beyond_ascii_are_read_as_they_were_written(tmp_path, encoding):
    path = tmp_path / "light.fits"
    header = fits.Header({"OBJECT": "Mu@o 12345", "IMAGETYP": "LIGHT"})
    fits.writeto(path, np.zeros((4, 5), np.uint16), header)
    letter = "ñ".encode(encoding)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"Mu@o 12345", (b"Mu" + letter + b"o 12345")[:10].ljust(10)))
    assert probe(path).header.object.startswith("Muño 123")
