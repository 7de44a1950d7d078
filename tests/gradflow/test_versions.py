"""Versions are compared by their numbers, whatever follows these."""

import pytest

from gradflow.versions import release_of


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("2.18.0rc1", (2, 18, 0)),
        ("2.5.1+cu124", (2, 5, 1)),
        ("3.0.0.dev20270101", (3, 0, 0)),
        ("10", (10,)),
        ("unknown", ()),
    ],
)
def test_the_numbers_of_a_version_are_those_it_begins_with(version, numbers):
    assert release_of(version) == numbers


def test_versions_are_ordered_by_number_not_by_letter():
    assert release_of("2.6") < release_of("2.15.0")
