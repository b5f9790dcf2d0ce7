"""Mutated files: valid ones made here, damaged in as many ways as files are, and read as a night reads them.

`mutated(what, seed, number)` gives the bytes of one input, always the same; `look(path)` reads it. Anything but a frame or
a reason is a fault.
"""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path

import numpy as np
from astropy.io import fits

from lerar_dask.errors import FrameError
from lerar_dask.frames.fits import cards as read_cards
from lerar_dask.frames.header import RANGES, Header
from lerar_dask.frames.reader import band_of, read_pixels
from lerar_dask.frames.scan import probe
from lerar_dask.link.match import link_frames
from lerar_dask.settings import Link

WHAT = ("header", "bytes", "gz", "fz")
SUFFIX = {"header": ".fits", "bytes": ".fits", "gz": ".fits.gz", "fz": ".fits.fz"}
_SHAPE = (40, 48)
_WORDS = (
    "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "TFIELDS", "EXTEND", "XTENSION", "END",
    "BSCALE", "BZERO", "BLANK", "ZIMAGE", "ZBITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2", "ZCMPTYPE", "ZBLANK",
    "ZQUANTIZ", "ZNAME1", "ZVAL1", "TFORM1", "TTYPE1", "THEAP", "ZSCALE", "ZZERO", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2",
    "CD1_1", "CD1_2", "CD2_1", "CD2_2", "CDELT1", "CDELT2", "CROTA2", "PC1_1", "CTYPE1", "CTYPE2", "RADESYS", "EXPTIME",
    "EXPOSURE", "GAIN", "OFFSET", "CCD-TEMP", "SET-TEMP", "XBINNING", "YBINNING", "BINNING", "DATE-OBS", "TIME-OBS", "MJD-OBS",
    "RA", "DEC", "OBJCTRA", "OBJCTDEC", "XPIXSZ", "FOCALLEN", "SCALE", "SATURATE", "PEDESTAL", "CALSTAT", "BAYERPAT", "XBAYROFF",
    "YBAYROFF", "ROWORDER", "IMAGETYP", "OBJECT", "FILTER", "INSTRUME", "SITELAT", "SITELONG", "ROTATANG", "AIRMASS", "EGAIN",
    "STACKCNT", "PIERSIDE", "CONTINUE", "HISTORY", "HIERARCH", "COMMENT",
)  # fmt: skip
_VALUES = (
    "0", "1", "-1", "2", "3", "8", "16", "-32", "-64", "32", "64", "7", "999", "1000", "32768", "65535", "2147483648",
    "9223372036854775808", "-9223372036854775808", "1e12", "1e308", "-1e308", "1e400", "nan", "NaN", "inf", "-inf", "T", "F", "",
    "''", "'   '", "'x'", "'&'", "'\u00e9\u00ff'", "'...'", "'..'", "'-'", "'/etc/passwd'", "'../../x'", "'\\x1b[2J'",
    "'RA---TAN'", "'DEC--TAN'", "'RICE_1'", "'GZIP_2'", "'HCOMPRESS_1'", "'PLIO_1'", "'NONE'", "'1PB(100)'", "'1QI'", "'J'",
    "'2026-03-10T22:00:00'", "'9999-12-31T23:59:59+99:99'", "'0001-01-01T00:00:00'", "'99:99:99'", "'12 34 56'", "'light'",
    "'Master Dark'", "1D5", "1,5", "0x10", "1" * 60, "'" + "y" * 66 + "&'", "1e-320", "-0", "+", ".", "1 / 2",
)  # fmt: skip


@cache
def valid(kind: str) -> tuple[bytes, ...]:
    """Files as cameras and programs write them."""
    rng = np.random.default_rng(7)
    made = []
    for dtype in ("u2", "i2", "f4", "u1"):
        data = rng.integers(0, 200, _SHAPE).astype(dtype)
        header = fits.Header(
            {"IMAGETYP": "LIGHT", "OBJECT": "M 31", "FILTER": "L", "EXPTIME": 60.0, "DATE-OBS": "2026-03-10T22:00:00",
             "INSTRUME": "Testcam", "GAIN": 100, "XBINNING": 1, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0,
             "CRVAL2": 41.0, "CRPIX1": 20.0, "CRPIX2": 24.0, "CD1_1": 1e-4, "CD2_2": 1e-4, "BAYERPAT": "RGGB"}
        )  # fmt: skip
        header["LONGTEXT"] = "a" * 150
        if kind == "fz":
            for codec in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"):
                made.append(_bytes([fits.PrimaryHDU(), fits.CompImageHDU(data, header, compression_type=codec)]))
        else:
            made.append(_bytes([fits.PrimaryHDU(data, header)]))
            made.append(_bytes([fits.PrimaryHDU(), fits.ImageHDU(data, header)]))
    return tuple(gzip.compress(b, 1) if kind == "gz" else b for b in made)


def _bytes(hdus: list[fits.PrimaryHDU]) -> bytes:
    out = io.BytesIO()
    fits.HDUList(hdus).writeto(out)
    return out.getvalue()


def mutated(what: str, seed: int, number: int, seeds: tuple[bytes, ...] = ()) -> bytes:
    """The bytes of one input.

    Parameters
    ----------
    seeds : further valid files
    """
    rng = np.random.default_rng([WHAT.index(what), seed, number])
    sources = (*valid(what), *seeds)
    data = bytearray(sources[rng.integers(len(sources))])
    if what == "gz" and rng.random() < 0.5:
        inner = bytearray(gzip.decompress(bytes(data)))
        _mutate_cards(inner, rng)
        data = bytearray(gzip.compress(bytes(inner), 1))
        return bytes(data if rng.random() < 0.5 else _mutate_bytes(data, rng))
    if what in ("header", "fz") and rng.random() < (1.0 if what == "header" else 0.7):
        _mutate_cards(data, rng)
        return bytes(data)
    return bytes(_mutate_bytes(data, rng))


def _mutate_cards(data: bytearray, rng: np.random.Generator) -> None:
    """Other cards in place of some; a card of the file with another value; cards out of order."""
    places = [i for i in range(0, min(len(data), 40 * 2880), 80) if data[i : i + 1].isalpha()]
    for _ in range(int(rng.integers(1, 4))):
        at = int(places[rng.integers(len(places))]) if places else 0
        choice, text = rng.random(), str(_VALUES[rng.integers(len(_VALUES))])
        word = str(_WORDS[rng.integers(len(_WORDS))]) if choice < 0.5 else data[at : at + 8].decode("latin-1").rstrip()
        if choice < 0.35 or 0.5 <= choice < 0.85:
            same = [i for i in places if data[i : i + 8].decode("latin-1").rstrip() == word]
            card = f"{word:<8}= {text:>20}" if text[:1] != "'" else f"{word:<8}= {text}"
            at = same[0] if same else at
        else:
            card = f"{word:<8}{text}" if choice < 0.95 else "".join(map(chr, rng.integers(0, 256, 80)))
        data[at : at + 80] = card.encode("latin-1", "replace")[:80].ljust(80)


def _mutate_bytes(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Bits and bytes turned, parts cut out, repeated, filled, or the end missing."""
    n = len(data)
    for _ in range(int(rng.integers(1, 6))):
        a = int(rng.integers(n)) if rng.random() < 0.6 else int(rng.integers(min(n, 4000)))
        b = min(n, a + int(2 ** rng.uniform(0, 12)))
        way = rng.integers(6)
        if way == 0:
            data[a] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[a:b] = rng.bytes(b - a)
        elif way == 2:
            data[a:b] = bytes([int(rng.choice([0, 255, 32, 39]))]) * (b - a)
        elif way == 3:
            del data[a:b]
        elif way == 4:
            data[a:a] = data[a:b]
        else:
            del data[a:]
        n = len(data)
        if not n:
            break
    return data


def look(path: Path) -> str:
    """Read a file as a night does: "frame", or the reason why it is none.

    Raises
    ------
    AssertionError
        where a header holds a value that no header may.
    """
    frame = probe(path)
    _check(frame.header)
    link_frames([frame], Link())
    if frame.pixels is None:
        assert frame.problem
        return frame.problem
    try:
        raw = read_pixels(frame)
        assert raw.data.shape == frame.shape
        assert raw.data.dtype == np.dtype(frame.pixels.stored_dtype)
        rows = band_of(frame, 0, frame.shape[0], step=3)
        assert not np.isinf(rows).any() or frame.pixels.dtype[1] != "f"
        read_cards(frame.path, frame.pixels.hdu)
    except FrameError as error:
        return error.message
    return "frame"


def _check(header: Header) -> None:
    """Numbers finite and in range, texts of a bearable length and without control characters."""
    for name, value in vars(header).items():
        if name in RANGES and value is not None:
            least, most = RANGES[name]
            assert least <= value <= most, name
        if isinstance(value, str):
            assert len(value) <= 200, name
    for name in ("object", "filter", "camera", "telescope", "readout_mode"):
        assert (getattr(header, name) or "").isprintable(), name
    assert header.to_dict() == Header.from_dict(header.to_dict()).to_dict()
