"""Pins fix and forbid links."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerar_dask.errors import UsageError
from lerar_dask.link.pins import Pins, read_pins
from tests.link.test_match import BIAS, DARK, FLAT, light, link, several

LIGHT = Path("/n/light.fits")


def pins(tmp_path, text: str) -> Path:
    path = tmp_path / "pins.toml"
    path.write_text(text)
    return path


def test_no_file_pins_nothing():
    assert read_pins(None) == Pins()
    assert Pins().allows(LIGHT, "dark", [Path("x")])


def test_a_pin_goes_before_what_fits(tmp_path):
    path = pins(tmp_path, '[[pin]]\nlight = "*light*"\ndark = "warm_*"\n')
    warm = several("warm", "dark", exposure_s=300.0, sensor_temp_c=20.0)
    links, one = link(light(), DARK, warm, pins=path)
    assert links.masters[one.dark.master].sample.header.sensor_temp_c == 20.0
    assert one.dark.reason.startswith("pinned; temperature 20 C")


def test_pinned_to_none(tmp_path):
    _, one = link(light(), BIAS, DARK, FLAT, pins=pins(tmp_path, '[[pin]]\ndark = ""\n'))
    assert one.dark is None
    assert one.flat is not None


def test_forbidden(tmp_path):
    path = pins(tmp_path, '[[forbid]]\nflat = "*flat_1*"\n')
    _, one = link(light(), BIAS, DARK, FLAT, pins=path)
    assert one.flat is None
    assert one.dark is not None


def test_only_the_lights_named_are_pinned(tmp_path):
    _, one = link(light(), DARK, pins=pins(tmp_path, '[[pin]]\nlight = "*M42*"\ndark = ""\n'))
    assert one.dark is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[pinn]]\ndark = ""', "did you mean 'pin'"),
        ('[[pin]]\ndarkk = ""', "did you mean 'dark'"),
        ("[[pin", "no TOML"),
        ("pin = 3", "table"),
        ('[pin]\ndark = "x"', "table"),
    ],
)
def test_mistakes_are_told(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        read_pins(pins(tmp_path, text))
    assert words in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_pins(tmp_path / "none.toml")
