"""A setting's value: flag before environment before --config before default."""

import pytest

from lerar_dask.cli.app import run
from lerar_dask.settings import Picture, Run, Settings
from lerar_dask.settings_toml import to_toml


@pytest.fixture
def stacked(monkeypatch, tmp_path):
    """Calls of the pipeline: (nights, out, settings)."""
    import lerar_dask.pipeline

    calls = []

    def stack(nights, out, settings, *, bus, dry_run):
        calls.append((nights, out, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(lerar_dask.pipeline, "stack", stack, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night").mkdir()
    return calls


def settings_after(stacked, *words):
    assert run(["stack", "night", "-o", "out", *words]) == 130
    return stacked[-1][2]


def test_without_anything_the_defaults_hold(stacked):
    assert settings_after(stacked) == Settings()


def test_flag_before_environment_before_file_before_default(stacked, tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text(
        "[integrate]\nreject = 'mad'\ntrails = false\nsigma_low = 4\n[run]\nthreads = 3\n"
    )
    config = ("--config", "my.toml")
    found = settings_after(stacked, *config)
    assert (found.integrate.reject, found.integrate.trails, found.run.threads) == ("mad", False, 3)
    monkeypatch.setenv("LERAR_REJECT", "sigma")
    monkeypatch.setenv("LERAR_TRAILS", "true")
    found = settings_after(stacked, *config)
    assert (found.integrate.reject, found.integrate.trails, found.integrate.sigma_low) == ("sigma", True, 4.0)
    found = settings_after(stacked, *config, "--reject", "none", "--no-trails", "--sigma-low", "5")
    assert (found.integrate.reject, found.integrate.trails, found.integrate.sigma_low) == ("none", False, 5.0)
    assert found.run.threads == 3


def flags_of(tables):
    """Words of the command line with another value for every setting, and those values."""
    from dataclasses import fields

    words, values = [], {}
    for table in tables:
        for field in fields(table):
            default = getattr(table(), field.name)
            flag = "--" + field.name.replace("_", "-")
            if isinstance(default, bool):
                values[field.name] = not default
                words.append("--no-" + flag[2:] if default else flag)
            elif isinstance(default, int | float):
                values[field.name] = default / 2 if isinstance(default, float) else default + 1
                words += [flag, str(values[field.name])]
    return words, values


def test_every_setting_has_a_flag(stacked, monkeypatch, tmp_path):
    from dataclasses import fields

    from lerar_dask.pipeline import picture

    tables = [table.default_factory for table in fields(Settings)]
    words, values = flags_of([t for t in tables if t is not Picture])
    assert settings_after(stacked, *words) == Settings.of(**values)

    def make_pictures(out, settings, *, bus, files):
        stacked.append((out, None, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "make_pictures", make_pictures)
    words, values = flags_of([Picture, Run])
    (tmp_path / "out").mkdir()
    assert run(["picture", "out", *words]) == 130
    assert stacked[-1][2] == Settings.of(**values)


def test_a_picture_takes_what_the_run_keeps(stacked, monkeypatch, tmp_path):
    from lerar_dask.pipeline import picture

    def make_pictures(out, settings, *, bus, files):
        stacked.append((out, None, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(picture, "make_pictures", make_pictures)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lerar.toml").write_text("[picture]\nsky_shade = 0.3\nred = 'Ha'\n[run]\nthreads = 1\n")
    assert run(["picture", "out", "--red", "R"]) == 130
    found = stacked[-1][2]
    assert (found.picture.sky_shade, found.picture.red, found.run.threads) == (0.3, "R", 1)


def test_the_file_of_a_run_repeats_it(stacked, tmp_path):
    settings = Settings.of(reject="winsorized", memory="1GiB", align_to=tmp_path / "grid.fits")
    (tmp_path / "lerar.toml").write_text(to_toml(settings, nights=[tmp_path / "night"], out=tmp_path / "out"))
    assert run(["stack", "--config", "lerar.toml"]) == 130
    assert stacked[-1] == ([tmp_path / "night"], tmp_path / "out", settings)


def test_paths_become_absolute(stacked, tmp_path):
    assert settings_after(stacked, "--align-to", "grid.fits").register.align_to == tmp_path / "grid.fits"


def test_a_slip_in_the_environment_is_told(stacked, monkeypatch, capsys):
    monkeypatch.setenv("LERAR_REJCT", "mad")
    settings_after(stacked)
    assert "LERAR_REJCT names no setting; did you mean LERAR_REJECT?" in capsys.readouterr().err


def test_a_slip_in_the_file_is_told(stacked, tmp_path, capsys):
    (tmp_path / "my.toml").write_text("[integrate]\nrejct = 'mad'\n")
    assert run(["stack", "night", "-o", "out", "--config", "my.toml"]) == 2
    assert "did you mean 'reject'" in capsys.readouterr().err
    assert not stacked


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--threads", "1.5"], "--threads must be a whole number"),
        (["--threads", "100000000"], "threads must be between"),
        (["--max-stars", "2e9"], "--max-stars must be a whole number"),
        (["--max-stars", "9" * 5000], "--max-stars is too large"),
        (["--tile-px", "1000000000000"], "tile_px must be between"),
        (["--sigma-low", "1e300"], "sigma_low must be between"),
        (["--store", "gs://bucket/x"], "store 'gs://bucket/x'"),
        (["--memory", "9" * 400], "is more memory than any machine has"),
    ],
)
def test_values_out_of_range_get_one_line(flags, words, tmp_path, capsys):
    (tmp_path / "night").mkdir()
    assert run(["stack", str(tmp_path / "night"), "-o", str(tmp_path / "out"), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len([line for line in said.splitlines() if not line.startswith("hint:")]) == 1
    assert len(said) < 300
