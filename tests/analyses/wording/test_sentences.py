"""One sentence is true of one network and of several, of one verdict and of several."""

import pytest

from analyses.wording.sentences import UNKNOWN, Told, sentence

LEAD = "the share is {}"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ([Told("a", "x holds", "1")], "In a x holds: the share is 1."),
        (
            [Told("a", "x holds", "1"), Told("b", "x holds", "2")],
            "In both networks x holds: the share is 1 in a and 2 in b.",
        ),
        (
            [Told("a", "x holds", "1"), Told("b", "y holds", "2"), Told("c", "x holds", "3")],
            "In a and c x holds; in b y holds: the share is 1 in a, 2 in b and 3 in c.",
        ),
        (
            [Told(name, "x holds") for name in "abc"],
            "In all 3 networks x holds.",
        ),
        (
            [
                Told("a", "x holds", "1"),
                Told("b", f"{UNKNOWN} x holds", detail="none was recorded"),
            ],
            "In a x holds; in b this cannot be told: the share is 1 in a; in b none was recorded.",
        ),
        (
            [Told(name, f"{UNKNOWN} x holds", detail="none was recorded") for name in "ab"],
            "In both networks it cannot be told whether x holds: in both networks none was "
            "recorded.",
        ),
        (
            [Told("a", f"{UNKNOWN} x holds"), Told("b", "x holds")],
            "In b x holds; in a this cannot be told.",
        ),
        (
            [Told("{}", "x holds", "1"), Told("B", f"{UNKNOWN} x"), Told("C", f"{UNKNOWN} y")],
            "In {} x holds; in B it cannot be told whether x; in C it cannot be told whether y: "
            "the share is 1 in {}.",
        ),
    ],
)
def test_networks_of_one_clause_are_told_together(told, text):
    assert sentence(told, LEAD) == text
