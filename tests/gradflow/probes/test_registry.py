"""How probes are found by name, and what is said if one cannot run here."""

import sys

import pytest

from gradflow.errors import ConfigurationError
from gradflow.probes.registry import PROBE_NAMES, find_probes


def test_probes_come_in_the_order_in_which_they_run():
    found = find_probes(("lesions", "shattering"))
    assert [one.name for one in found] == [n for n in PROBE_NAMES if n in {"lesions", "shattering"}]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"no probe called 'lesion'; there are .*lesions"):
        find_probes(("lesion",))


def test_a_missing_library_is_named_and_the_other_probes_are_found(monkeypatch):
    for name in list(sys.modules):
        if name == "captum" or name.startswith(("captum.", "gradflow.probes.attribution")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    others = tuple(name for name in PROBE_NAMES if name != "attribution")
    with pytest.raises(ConfigurationError, match=r"attribution needs captum.*, of gradient_coher"):
        find_probes(PROBE_NAMES)
    assert [one.name for one in find_probes(others)] == list(others)
