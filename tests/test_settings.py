"""Settings go to TOML and back; every slip is refused with a word that helps."""

import ast
import re
import sys
import tomllib
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lerar_dask
from lerar_dask.errors import UsageError
from lerar_dask.identity import digest
from lerar_dask.settings import Integrate, Settings, field_texts
from lerar_dask.settings_toml import from_toml, places_from_toml, to_toml


def test_defaults_survive_toml():
    assert from_toml(to_toml(Settings())) == Settings()


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["auto", "sigma", "mad"]),
    st.floats(0.1, 1000),
    st.integers(10, 10**5),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(lambda text: "://" not in text),
)
def test_any_value_survives_toml(reject, sigma, stars, trails, store):
    settings = Settings.of(reject=reject, sigma_low=sigma, max_stars=stars, trails=trails, store=store)
    assert from_toml(to_toml(settings)) == settings


def test_every_field_has_a_text_and_stands_in_the_toml_once():
    text = to_toml(Settings())
    names = []
    for table in fields(Settings):
        texts = field_texts(table.default_factory)
        assert set(texts) == {f.name for f in fields(table.default_factory)}
        assert all(texts.values())
        names += list(texts)
    assert len(names) == len(set(names))
    for name in names:
        assert sum(line.removeprefix("# ").startswith(f"{name} =") for line in text.splitlines()) == 1


def test_field_texts_are_the_words_under_the_fields():
    assert field_texts(Integrate)["sigma_low"] == "Low limit, in sigma."


def test_places_are_kept_and_absolute(tmp_path):
    text = to_toml(Settings(), nights=[Path("a night")], out=tmp_path / "out")
    nights, out = places_from_toml(text)
    assert nights == [Path("a night").resolve()]
    assert out == tmp_path / "out"
    assert from_toml(text) == Settings()
    assert places_from_toml("") == ([], None)


def test_relative_paths_in_a_file_start_at_the_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[register]\nalign_to = "grid.fits"\n')
    assert from_toml(file).register.align_to == tmp_path / "grid.fits"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[integrat]\nreject = 'auto'", ["[integrat]", "did you mean 'integrate'?"]),
        ("[integrate]\nrejct = 'auto'", ["'rejct'", "did you mean 'reject'?"]),
        ("[integrate]\nreject = 'kappa'", ["'kappa'", "'winsorized'"]),
        ("[link]\nreject = 'auto'", ["it belongs into [integrate]"]),
        ("reject = 'auto'", ["put it under [integrate]"]),
        ("[integrate]\ntrails = 1", ["trails must be true or false, not 1"]),
        ("[integrate]\nsigma_low = true", ["sigma_low must be a number"]),
        ("[integrate]\nsigma_low = nan", ["sigma_low must be a number"]),
        ("[integrate]\nsigma_low = -1", ["between 0.1 and 1000"]),
        ("[normalize]\ntile_px = 4", ["between 32 and"]),
        ("[ingest]\nmax_stars = 1.5", ["whole number"]),
        ("[run]\nnights = 3", ["list of folders"]),
        ("[run", ["not valid TOML"]),
    ],
)
def test_slips_are_refused_with_a_hint(text, words):
    with pytest.raises(UsageError) as caught:
        [read(text) for read in (places_from_toml, from_toml)]
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


def test_unreadable_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        from_toml(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        from_toml(tmp_path / "binary.toml")


def test_whole_numbers_serve_as_numbers_and_do_not_change_the_digest():
    assert digest(from_toml("[integrate]\nsigma_low = 3").integrate) == digest(Integrate())
    assert digest(Settings.of(sigma_low=3).integrate) == digest(Integrate())


def test_of_refuses_what_toml_refuses():
    with pytest.raises(UsageError, match="did you mean 'reject'"):
        Settings.of(rejct="auto")
    with pytest.raises(UsageError, match="choose from"):
        Settings.of(reject="kappa")


def test_every_number_has_a_range_and_its_default_lies_in_it():
    from lerar_dask.settings import _RANGES

    numbers = {
        f.name: getattr(getattr(Settings(), table.name), f.name)
        for table in fields(Settings)
        for f in fields(getattr(Settings(), table.name))
        if type(getattr(getattr(Settings(), table.name), f.name)) in (int, float)
    }
    assert set(numbers) == set(_RANGES)
    for name, default in numbers.items():
        least, most = _RANGES[name]
        assert least <= default <= most, name
        for wrong in (least - 1, most + 1):
            with pytest.raises(UsageError, match=f"{name} must be between"):
                Settings.of(**{name: type(default)(wrong)})


@pytest.mark.parametrize("store", ["gs://b", "file:///x", "a\nb", "a\0b"])
def test_a_store_that_is_no_folder_is_refused(store):
    with pytest.raises(UsageError, match="store"):
        Settings.of(store=store)


def test_every_setting_is_read_somewhere():
    root = Path(lerar_dask.__file__).parent
    text = "".join(p.read_text() for p in root.rglob("*.py") if p.name != "settings.py")
    text += (root / "settings.py").read_text().partition("def limits")[2]
    for table in fields(Settings):
        for field in fields(table.default_factory):
            assert re.search(rf"\.{field.name}\b|\"{field.name}\"\]", text), field.name


def test_all_that_is_imported_is_declared():
    """What an extra brings is imported by functions only."""
    root = Path(lerar_dask.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    more = [line for extra, lines in project["optional-dependencies"].items() if extra != "dev" for line in lines]
    declared, extras = ({_distribution(line) for line in lines} for lines in (project["dependencies"], more))
    homes = packages_distributions()
    for path in (root / "lerar_dask").rglob("*.py"):
        tree = ast.parse(path.read_text())
        in_functions = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            allowed = declared | extras if node in in_functions else declared
            for name in {n.partition(".")[0] for n in names} - set(sys.stdlib_module_names) - {"lerar_dask", ""}:
                assert {d.lower().replace("_", "-") for d in homes[name]} & allowed, f"{path}: {name}"


def _distribution(line: str) -> str:
    return re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-")
