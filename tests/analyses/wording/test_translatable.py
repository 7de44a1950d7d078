"""Texts that know what they were made of: they are ordinary texts to everybody else."""

import copy
import pickle

import pytest

from analyses.wording.numbers import number, with_interval
from analyses.wording.phrases import listing, plural, with_network
from analyses.wording.translatable import Joined, Numeral, Said, message


@pytest.mark.parametrize(
    "text",
    [
        Said("In {network} it is {amount}.", network="a", amount=Numeral("1,234.5")),
        Joined(("One.", "", Said("Two."))),
        Numeral("43.3 %"),
    ],
)
def test_a_text_stays_what_it_is_when_copied_sent_or_turned_into_a_text(text):
    for again in (copy.deepcopy(text), pickle.loads(pickle.dumps(text)), str(text)):
        assert again == text
        assert type(again) is type(text)
        assert vars(again) == vars(text)


def test_a_text_is_equal_to_the_ordinary_one_and_found_by_it():
    said = Said("In {network} it holds.", network="resnet")
    assert said == "In resnet it holds."
    assert {said: 1}["In resnet it holds."] == 1
    assert said.template == "In {network} it holds."


def test_braces_of_a_name_are_no_places():
    assert Said("In {network}.", network="{x}") == "In {x}."
    assert with_network("The skips[ of {}] carry most.", "{network}") == (
        "The skips of {network} carry most."
    )
    assert plural(2, "{x}") == "2 {x}s"
    assert message("{x} stays") == "{x} stays"


def test_what_is_written_by_the_wording_functions_knows_its_parts():
    assert isinstance(number(1234.5), Numeral)
    said = with_interval(54.3, 51.2, 57.9, "%")
    assert isinstance(said, Said)
    assert said.places["low"] == "51.2"
    names = listing(["a", "b", "c"])
    assert names == "a, b and c"
    assert isinstance(names, Said)
    assert names.places["last"] == "c"
