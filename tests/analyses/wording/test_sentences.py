"""One sentence is true of one network and of several, of one verdict and of several."""

import pytest

from analyses.wording.sentences import UNKNOWN, NetworkStatement, sentence

LEAD = "the share is {}"


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ([NetworkStatement("a", "x holds", "1")], "In a x holds: the share is 1."),
        (
            [NetworkStatement("a", "x holds", "1"), NetworkStatement("b", "x holds", "2")],
            "In both networks x holds: the share is 1 in a and 2 in b.",
        ),
        (
            [
                NetworkStatement("a", "x holds", "1"),
                NetworkStatement("b", "y holds", "2"),
                NetworkStatement("c", "x holds", "3"),
            ],
            "In a and c x holds; in b y holds: the share is 1 in a, 2 in b and 3 in c.",
        ),
        (
            [NetworkStatement(name, "x holds") for name in "abc"],
            "In all 3 networks x holds.",
        ),
        (
            [
                NetworkStatement("a", "x holds", "1"),
                NetworkStatement("b", f"{UNKNOWN} x holds", detail="none was recorded"),
            ],
            "In a x holds; in b this cannot be told: the share is 1 in a; in b none was recorded.",
        ),
        (
            [
                NetworkStatement(name, f"{UNKNOWN} x holds", detail="none was recorded")
                for name in "ab"
            ],
            "In both networks it cannot be told whether x holds: in both networks none was "
            "recorded.",
        ),
        (
            [NetworkStatement("a", f"{UNKNOWN} x holds"), NetworkStatement("b", "x holds")],
            "In b x holds; in a this cannot be told.",
        ),
        (
            [
                NetworkStatement("{}", "x holds", "1"),
                NetworkStatement("B", f"{UNKNOWN} x"),
                NetworkStatement("C", f"{UNKNOWN} y"),
            ],
            "In {} x holds; in B it cannot be told whether x; in C it cannot be told whether y: "
            "the share is 1 in {}.",
        ),
    ],
)
def test_networks_of_one_clause_are_told_together(told, text):
    assert sentence(told, LEAD) == text
