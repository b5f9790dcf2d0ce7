"""Mutated files, fresh ones and those that once failed: read as a night reads them, each ends in a frame or a reason.

`scripts/fuzz` does the same for as long as one likes, with limits on time and memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.frames.fuzzing import SUFFIX, look, mutated

KEPT = sorted(Path(__file__).with_name("fuzz_seeds").glob("*.fits*"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize(("what", "count"), [("header", 6000), ("bytes", 6000), ("gz", 4000), ("fz", 60)])
def test_fresh_inputs_end_in_a_frame_or_a_reason(what, count, part, tmp_path):
    path = tmp_path / f"light{SUFFIX[what]}"
    ends = set()
    for number in range(part, count, 2):
        path.write_bytes(mutated(what, int(os.environ.get("LERAR_FUZZ_SEED", "1")), number))
        try:
            ends.add(look(path))
        except Exception as error:
            raise AssertionError(f"input {number} of {what}") from error
    assert "frame" in ends
    assert len(ends) > 5


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.name)
def test_inputs_that_once_failed(path):
    assert look(path)
