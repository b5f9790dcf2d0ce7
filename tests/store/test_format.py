"""The written format and the table of the program tell the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerar_dask.constants import PLANES
from lerar_dask.store.layout import ARRAYS, FORMAT, FORMAT_VERSION, spec_of

TEXT = (Path(__file__).parents[2] / "stores" / f"format-{FORMAT_VERSION}.md").read_text(encoding="utf-8")


def table() -> list[tuple[str, ...]]:
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]


def test_every_array_is_written_down():
    wanted = [(f"`{s.path}`", ", ".join(s.dims), s.dtype, s.unit, s.packed, s.meaning) for s in ARRAYS]
    assert table() == wanted


def test_name_and_planes_are_written_down():
    assert f'format: "{FORMAT}"`, `format_version: {FORMAT_VERSION}`' in TEXT
    assert ", ".join(PLANES) in TEXT


def test_paths_are_told_apart():
    assert len({s.path for s in ARRAYS}) == len(ARRAYS)
    for spec in ARRAYS:
        path = spec.path.replace("<", "").replace(">", "")
        assert spec_of(path).meaning == spec.meaning
    assert spec_of("raw/g/else") is None
    assert spec_of("normalization/k/trails/7").dims == ("trail_7", "trail_column")


@pytest.mark.parametrize("spec", ARRAYS, ids=lambda s: s.path)
def test_entries_are_complete(spec):
    assert spec.meaning
    assert len(set(spec.dims)) == len(spec.dims)
    assert spec.dtype in {"as stored", "float32", "float64", "int32", "int64", "uint8"}
