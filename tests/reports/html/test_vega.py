"""Vega and the charts come from the installed packages, and are kept for later reports."""

import json
import os
import re

import altair
import pytest

from analyses.showing import keeping
from reports.explorer.charts import charts_json
from reports.html import vega
from reports.html.vega import vega_parts


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache folder in which nothing is kept, in a process that has made nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vega_parts.cache_clear()
    yield tmp_path / "gradflow"
    vega_parts.cache_clear()


@pytest.fixture
def made(monkeypatch):
    """How often the parts were made; in place of Vega a short script is made."""
    calls = []

    def make() -> str:
        calls.append(1)
        return json.dumps({"script": "short", "charts": "{}"})

    monkeypatch.setattr(vega, "_made", make)
    return calls


def test_script_holds_the_vega_lite_of_the_installed_altair():
    version = altair.SCHEMA_VERSION.removeprefix("v")
    major_minor = ".".join(version.split(".")[:2])
    assert re.search(rf'"{re.escape(major_minor)}\.\d+"', vega_parts().script)


def test_charts_are_those_of_the_installed_altair():
    assert vega_parts().charts == charts_json()


def test_script_cannot_end_its_element():
    assert not re.search(r"</script|<!--", vega_parts().script, re.IGNORECASE)


def test_parts_are_made_once_and_kept_for_other_processes(empty_cache, made):
    first = vega_parts()
    assert vega_parts() is first
    vega_parts.cache_clear()  # as another process
    assert vega_parts() == first
    assert len(made) == 1
    (kept,) = empty_cache.iterdir()
    assert re.fullmatch(r"vega-[0-9a-f]{16}\.json", kept.name)


@pytest.mark.parametrize("damage", [lambda old: old[:-1], lambda old: b"", lambda old: old + b"x"])
def test_what_was_kept_and_damaged_is_made_again(empty_cache, made, damage):
    first = vega_parts()
    (kept,) = empty_cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    vega_parts.cache_clear()
    assert vega_parts() == first
    assert len(made) == 2
    assert kept.read_bytes() == whole


def test_where_nothing_can_be_kept_the_parts_are_made(empty_cache, made):
    empty_cache.write_text("a file where the folder would be")
    assert "short" in vega_parts().script


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner by number")
def test_what_another_user_kept_is_not_used(empty_cache, made, monkeypatch):
    keeping.keep("name", "text")
    assert keeping.read_kept("name") == "text"
    monkeypatch.setattr(os, "getuid", lambda: -1)
    assert keeping.read_kept("name") is None
