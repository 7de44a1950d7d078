"""What `run.json` says of residual additions."""

import pytest

from gradflow.hooks.observation.junctions.summary import (
    LOOKED_FOR,
    NOT_LOOKED_FOR,
    JunctionSummary,
)


def summary(names=(), **counts):
    made = JunctionSummary()
    made.names.update(names)
    made.add_pass(**{"concatenations": 0, "other_sums": 0, "changes_of_views": 0} | counts)
    return made


@pytest.mark.parametrize(
    ("made", "beginning"),
    [
        (summary(), "none found; "),
        (summary(concatenations=1), "none found; 1 concatenation; "),
        (summary(other_sums=2), "none found; 2 other sums not taken for residual; "),
        (summary(changes_of_views=1), "none found; 1 operation in place on a view not told; "),
    ],
)
def test_where_none_is_found_it_says_what_was_looked_for(made, beginning):
    assert made.entry()["sentence"] == f"{beginning}{LOOKED_FOR}; {NOT_LOOKED_FOR}"


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (JunctionSummary(), "no forward pass was recorded"),
        (summary("ab"), "2 found"),
        (summary("ab", concatenations=3), "2 found"),
        (summary("ab", other_sums=1), "2 found; 1 other sum not taken for residual"),
    ],
)
def test_sums_that_are_not_taken_are_counted_beside_those_found(made, sentence):
    assert made.entry()["sentence"] == sentence


def test_counts_are_the_largest_of_one_pass():
    made = summary(other_sums=2)
    made.add_pass(concatenations=1, other_sums=1, changes_of_views=0)
    entry = made.entry()
    assert (entry["passes"], entry["other_sums"], entry["concatenations"]) == (2, 2, 1)


def test_a_state_restores_the_entry_and_one_of_an_earlier_version_lacks_counts():
    made, restored, earlier = summary("ab", other_sums=2), JunctionSummary(), JunctionSummary()
    restored.load_state_dict(made.state_dict())
    assert restored.entry() == made.entry()
    earlier.load_state_dict({"passes": 3, "names": ["a"], "concatenations": 1})
    assert earlier.entry() == {
        "found": 1,
        "sentence": "1 found",
        "passes": 3,
        "concatenations": 1,
        "other_sums": 0,
        "other_changes_of_views": 0,
    }
