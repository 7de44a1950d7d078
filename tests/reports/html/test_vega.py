"""The Vega script comes from the installed packages."""

import re

import altair

from reports.html.vega import vega_script


def test_script_holds_the_vega_lite_of_the_installed_altair():
    version = altair.SCHEMA_VERSION.removeprefix("v")
    major_minor = ".".join(version.split(".")[:2])
    assert re.search(rf'"{re.escape(major_minor)}\.\d+"', vega_script())


def test_script_is_made_once():
    assert vega_script() is vega_script()


def test_script_cannot_end_its_element():
    assert not re.search(r"</script|<!--", vega_script(), re.IGNORECASE)
