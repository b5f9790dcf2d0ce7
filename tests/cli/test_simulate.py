"""`lerar simulate` makes a night that the scanner reads."""

import json

from lerar_dask.cli.app import run
from lerar_dask.frames.scan import scan

WORDS = "--subs 2 --darks 1 --flats 1 --bias 2 --width 96 --height 64 --filter Ha --target M31 --cfa GBRG"


def test_a_night_of_the_asked_kind_and_size(tmp_path, capsys):
    assert run(["simulate", str(tmp_path / "a night"), *WORDS.split()]) == 0
    out = capsys.readouterr().out
    assert "2 lights, 1 darks, 1 flats, 2 bias of 96 x 64 px" in out
    frames = scan([tmp_path / "a night"]).frames
    kinds = [f.header.kind for f in frames if not f.problem]
    assert sorted(kinds) == ["bias", "bias", "dark", "flat", "light", "light"]
    light = next(f for f in frames if f.header.kind == "light")
    assert (light.shape, light.header.filter, light.header.object, light.header.cfa) == ((64, 96), "Ha", "M31", "GBRG")


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert run(["simulate", str(tmp_path)]) == 2
    assert "holds something" in capsys.readouterr().err
    assert run(["simulate", str(tmp_path / "n"), "--kind", "storm"]) == 2


def test_json_says_where_it_is(tmp_path, capsys):
    assert run(["simulate", str(tmp_path / "n"), *WORDS.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": "simulated", "folder": str(tmp_path / "n")}
