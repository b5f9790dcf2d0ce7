"""What is printed acts on no terminal: control and escape characters are shown as codes, wherever they come from."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.cli.text import clean
from tests.whole.nights import Night, adu, stamp


@given(st.text())
def test_what_comes_out_is_printable(text):
    assert clean(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("M 31 \u2013 \u00fcber", "M 31 \u2013 \u00fcber"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb", "a\\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("x\u202etxt", "x\\u202etxt"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_is_shown(text, shown):
    assert clean(text) == shown


def test_names_of_files_do_not_reach_the_terminal_as_they_are(tmp_path):
    night = Night(tmp_path / os.fsdecode(b"n\xe9\x1b[2J"), 41)
    for i in range(4):
        night.put("light", f"l\x1b]0;{i}\n.fits", adu(night.light()), EXPTIME=60.0, DATE_OBS=stamp(i), OBJECT="...")
    night.put("light", "bad\x1b[31m.fits", adu(night.light() * 0), EXPTIME=60.0, OBJECT="...")
    for words in (["link", str(night.folder)], ["stack", str(night.folder), "-o", str(tmp_path / "out")]):
        done = subprocess.run([sys.executable, "-m", "lerar_dask", *words], capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        for stream in (done.stdout, done.stderr):
            assert b"\x1b" not in stream
            assert all(c >= 32 or c == 10 for c in stream)
    assert b"\x1b" not in (tmp_path / "out" / "lerar.log").read_bytes()
