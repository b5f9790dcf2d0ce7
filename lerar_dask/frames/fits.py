"""FITS: headers by a small parser of our own, and where the pixels lie.

In: a path. Out: a `Frame`. Nothing a file says makes us take memory: sizes are compared with the file's first. Refusals
are `FrameError`s with a reason for people.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.dialects import normalize_header
from lerar_dask.frames.frame import Frame, PixelSource
from lerar_dask.frames.values import number_of

__all__ = ["NAME", "cards", "is_one", "probe", "rows"]

NAME = "FITS"
_BLOCK = 2880
_MAX_BLOCKS = 1000
"""36,000 cards; the longest real header seen has 400."""
_MAX_HDUS = 64
MAX_PIXELS = 2_000_000_000
_MAX_EXPANSION = 2000
_MAX_UNPACKED = 1 << 28
"""Bytes of a gzipped file that are unpacked at most to reach an image in a later HDU."""
_MAX_TILES = 10_000_000
_CODECS = {"RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"}
_BITPIX = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def is_one(head: bytes) -> bool:
    """Whether a file begins as FITS files do."""
    return bool(head) and (head.startswith(b"SIMPLE") or b"SIMPLE".startswith(head))


def probe(path: Path, stat: os.stat_result) -> Frame:
    """Frame of a FITS file, also gzipped and tile-compressed; raises FrameError with the reason for a refusal."""
    zipped = _is_gzip(path)
    with gzip.open(path) if zipped else open(path, "rb") as file:
        hdus = list(_hdus(file, _MAX_UNPACKED if zipped else stat.st_size))
        index, cards = _image_hdu(hdus)
        merged = {**hdus[0][0], **{k: v for k, v in cards.items()}}
        for word in ("HISTORY", "COMMENT"):
            merged[word] = [*hdus[0][0].get(word, ()), *(cards.get(word, ()) if index else ())]
        shape, n_planes, source = _describe(cards, hdus[index][1], index, zipped)
    header = normalize_header(merged, path, shape=(n_planes, *shape) if n_planes > 1 else shape)
    lack = _lack(shape, n_planes, source, stat.st_size)
    color = n_planes > 1 and not header.is_stack
    return Frame(
        path=path,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        header=header,
        shape=shape,
        pixels=None if lack else source,
        n_planes=n_planes,
        problem=lack or ("it is a color image of three planes, no raw sub" if color else ""),
    )


def _lack(shape: tuple[int, int], n_planes: int, source: PixelSource, size: int) -> str:
    """Why the pixels cannot be there, told by the size of the file."""
    n = shape[0] * shape[1] * n_planes
    need = source.offset + n * np.dtype(source.dtype).itemsize
    if source.layout == "plain" and need > size:
        share = max(0.0, (size - source.offset) / (need - source.offset))
        return f"the file is cut short: {share:.0%} of its pixels are there"
    if n > MAX_PIXELS:
        return f"{shape[1]} x {shape[0]} pixels are more than any camera has"
    expansion = n * 2 / max(size, 1)
    if source.layout != "plain" and expansion > _MAX_EXPANSION:
        return f"it would unpack to {expansion:.0f} times its size"
    return ""


def cards(path: Path, hdu: int) -> list[str]:
    """Cards of the primary and of the image HDU, verbatim (80 characters each)."""
    with gzip.open(path) if _is_gzip(path) else open(path, "rb") as file:
        size = _MAX_UNPACKED if _is_gzip(path) else os.path.getsize(path)
        found: list[str] = []
        for number, (_, _, text) in enumerate(_hdus(file, size, last=hdu)):
            if number in (0, hdu):
                found += [text[i : i + 80].rstrip() for i in range(0, len(text), 80)]
        return found


def rows(frame: Frame, source: PixelSource, y0: int, y1: int, step: int, plane: int) -> np.ndarray:
    """Rows of a plane of a packed or gzipped file, as they lie in it."""
    from lerar_dask.frames import decode

    unpack = decode.decoded_rows if source.layout == "packed" else decode.unzipped_rows
    return unpack(frame, source, y0, y1, step, plane)


# ------------------------------------------------------------------------------------------------------------ header


def _hdus(file: Any, size: int, *, last: int = _MAX_HDUS) -> Iterator[tuple[dict[str, Any], int, str]]:
    """(cards, offset of the data, text of the header) of each HDU until one with an image was seen."""
    at = 0
    for number in range(_MAX_HDUS):
        text = _read_header(file, first=number == 0)
        if not text:
            return
        cards = _parse(text)
        at += _BLOCK * (-(-len(text) // _BLOCK))
        yield cards, at, text
        if number >= last or _is_image(cards):
            return
        at += _data_bytes(cards)
        if at >= size:
            return
        with _unpacking():
            file.seek(at)


def _read_header(file: Any, *, first: bool) -> str:
    """Header up to its END card, as Latin-1 (every byte is a character); empty at the end of the file."""
    blocks: list[str] = []
    for _ in range(_MAX_BLOCKS):
        with _unpacking():
            block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            if first or blocks:
                raise FrameError("it ends within its header" if blocks or block else "the file is empty")
            return ""
        if first and not blocks and not block.startswith(b"SIMPLE"):
            raise FrameError("it is no FITS file")
        if not first and not blocks and not block.startswith(b"XTENSION"):
            return ""
        text = block.decode("latin-1")
        blocks.append(text)
        if _end_of(text) >= 0:
            whole = "".join(blocks)
            return whole[: len(whole) - len(text) + _end_of(text) + 80]
    raise FrameError("its header has no end within 36,000 cards")


@contextmanager
def _unpacking() -> Iterator[None]:
    """What goes wrong while a file is read or unpacked, as a reason."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FrameError(f"it cannot be unpacked ({_first_line(error)})") from error


def _end_of(text: str) -> int:
    return next((i for i in range(0, len(text), 80) if text[i : i + 8] == "END     "), -1)


def _parse(text: str) -> dict[str, Any]:
    """First value of each keyword; HISTORY and COMMENT as lists; long strings (CONTINUE) joined."""
    cards: dict[str, Any] = {"HISTORY": [], "COMMENT": []}
    last = ""
    parts: dict[str, list[str]] = {}
    for i in range(0, len(text), 80):
        card = text[i : i + 80]
        word = card[:8].rstrip()
        if word in ("HISTORY", "COMMENT"):
            cards[word].append(_as_written(card[8:].strip()))
        elif word == "CONTINUE" and last in parts and parts[last][-1].endswith("&"):
            parts[last][-1] = parts[last][-1][:-1]
            parts[last].append(str(_value(card[8:])))
        elif card[8:10] == "= ":
            last = word if word not in cards else ""
            value = cards.setdefault(word, _value(card[10:]))
            if last and isinstance(value, str):
                parts[word] = [value]
        elif word == "HIERARCH" and "=" in card:
            name, _, value = card[9:].partition("=")
            cards.setdefault(name.strip(), _value(value))
    return cards | {word: "".join(text) for word, text in parts.items() if len(text) > 1}


def _value(text: str) -> Any:
    text = text.strip()
    if text.startswith("'"):
        match = re.match(r"'((?:[^']|'')*)'?", text)
        return _as_written(match[1].replace("''", "'").rstrip()) if match else ""
    text = text.split("/", 1)[0].strip()
    if text in ("T", "F"):
        return text == "T"
    for parse in (int, float):
        try:
            return parse(text.replace("D", "E")) if parse is float else parse(text)
        except ValueError:
            continue
    return text


def _as_written(text: str) -> str:
    """A text whose bytes were read as Latin-1, as UTF-8 where they are that: programs write both, against the standard."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return text


def _axes(cards: dict[str, Any], prefix: str = "") -> list[int]:
    n = cards.get(f"{prefix}NAXIS", 0)
    if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= 999:
        raise FrameError("its header gives no sensible number of axes")
    axes = [cards.get(f"{prefix}NAXIS{i + 1}", -1) for i in range(n)]
    if any(not isinstance(a, int) or isinstance(a, bool) or a < 0 for a in axes):
        raise FrameError("its header gives no sensible size")
    return axes


def _is_image(cards: dict[str, Any]) -> bool:
    if cards.get("ZIMAGE") is True:
        return True
    if "XTENSION" in cards and not str(cards["XTENSION"]).startswith("IMAGE"):
        return False
    try:
        return len([a for a in _axes(cards) if a > 1]) >= 2
    except FrameError:
        return True


def _data_bytes(cards: dict[str, Any]) -> int:
    axes = _axes(cards)
    if not axes:
        return 0
    total = 1
    for a in axes:
        total *= a
    extra = cards.get("PCOUNT", 0)
    bits = cards.get("BITPIX", 8)
    if not isinstance(bits, int) or not isinstance(extra, int) or extra < 0:
        raise FrameError("its header gives no sensible size")
    bytes_ = (total + extra) * abs(bits) // 8
    return -(-bytes_ // _BLOCK) * _BLOCK


def _image_hdu(hdus: list[tuple[dict[str, Any], int, str]]) -> tuple[int, dict[str, Any]]:
    if not hdus or not _is_image(hdus[-1][0]):
        raise FrameError("it holds no image")
    return len(hdus) - 1, hdus[-1][0]


def _describe(cards: dict[str, Any], offset: int, index: int, zipped: bool) -> tuple[tuple[int, int], int, PixelSource]:
    """Shape, number of planes, and where the pixels lie."""
    packed = cards.get("ZIMAGE") is True
    if packed:
        _check_tiles(cards)
    prefix = "Z" if packed else ""
    axes = _axes(cards, prefix)
    bits = cards.get(f"{prefix}BITPIX")
    if bits not in _BITPIX:
        raise FrameError(f"its header gives an unknown pixel type (BITPIX {bits})")
    long = [a for a in axes if a != 1]
    if 0 in axes or len(long) < 2:
        raise FrameError("it holds no image")
    three = len(long) > 2
    shape = (axes[1], axes[0]) if len(axes) >= 2 and not three else (long[1], long[0])
    if three:
        _refuse_cube(long)
    scale, zero = (_float(cards.get(w), d) for w, d in (("BSCALE", 1.0), ("BZERO", 0.0)))
    if scale == 0 or not (math.isfinite(scale) and math.isfinite(zero)):
        raise FrameError(f"its scale makes no pixel values (BSCALE {scale:g}, BZERO {zero:g})")
    blank = cards.get("ZBLANK" if packed and "ZBLANK" in cards else "BLANK")
    lossy = packed and bits < 0 and str(cards.get("ZQUANTIZ", "NONE")) != "NONE"
    source = PixelSource(
        layout="packed" if packed else "gzip" if zipped else "plain",
        hdu=index,
        offset=offset,
        dtype=_BITPIX[bits],
        scale=scale,
        zero=zero,
        blank=blank if isinstance(blank, int) and abs(blank) < 2**63 and bits > 0 else None,
        lossy=lossy,
    )
    return shape, long[2] if three else 1, source


def _check_tiles(cards: dict[str, Any]) -> None:
    """Refuse tiles that do not make up the image: decompressors trust these numbers."""
    axes = _axes(cards, "Z")
    tiles = [cards.get(f"ZTILE{i + 1}", axes[0] if i == 0 else 1) for i in range(len(axes))]
    if any(not isinstance(t, int) or not 0 < t <= max(a, 1) for t, a in zip(tiles, axes, strict=True)):
        raise FrameError("its header gives tiles that are no part of the image")
    count = math.prod(-(-a // t) for a, t in zip(axes, tiles, strict=True))
    if count != cards.get("NAXIS2") or count > _MAX_TILES:
        raise FrameError("its tiles do not make up the image that its header announces")
    fields = cards.get("TFIELDS")
    if not isinstance(fields, int) or not 1 <= fields <= 999:
        raise FrameError("its header gives no sensible number of columns")
    if str(cards.get("ZCMPTYPE", "")).strip() not in _CODECS:
        raise FrameError(f"its pixels are compressed in a way that is not known ({str(cards.get('ZCMPTYPE'))[:20]})")


def _refuse_cube(long: list[int]) -> None:
    """Three planes may be a result of another program and are judged with the header; all else is no sub."""
    if len(long) == 3 and long[2] in (3, 4):
        return
    if len(long) == 3 and long[0] in (3, 4):
        raise FrameError(f"it is a color image with interleaved channels ({long[1]} x {long[2]} x {long[0]}), no sub")
    raise FrameError(f"it is a cube ({' x '.join(map(str, long))}), no single sub")


def _float(value: Any, default: float) -> float:
    if isinstance(value, str):
        value = number_of(value)
    return default if value is None else float(value)


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
