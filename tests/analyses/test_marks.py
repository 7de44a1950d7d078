"""What a verdict means to whoever trains the network: good news, bad news, or neither."""

from dataclasses import replace

import pytest

from analyses.health.overall import Unasked, overall_finding
from analyses.result import Finding, Mark, Verdict

YES, NO, OPEN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE
FINDING = Finding("x-a", "a", "X.", "Not X.", YES, (), "a rule", "X is so.", "Try it.")


@pytest.mark.parametrize(
    ("bad_if", "verdict", "mark", "sign"),
    [
        (YES, YES, Mark.BAD, "!"), (YES, NO, Mark.GOOD, "✓"), (YES, OPEN, Mark.OPEN, "?"),
        (NO, YES, Mark.GOOD, "✓"), (NO, NO, Mark.BAD, "!"), (NO, OPEN, Mark.OPEN, "?"),
        (None, YES, Mark.NEITHER, ""), (None, NO, Mark.NEITHER, ""), (None, OPEN, Mark.OPEN, "?"),
    ],
)  # fmt: skip
def test_the_mark_follows_from_the_verdict_and_what_would_be_bad(bad_if, verdict, mark, sign):
    found = replace(FINDING, verdict=verdict, bad_if=bad_if)
    assert (found.mark, found.mark.sign) == (mark, sign)


def test_a_network_without_conditions_is_good_news_and_one_with_a_condition_bad():
    ill, well = (
        overall_finding("a", {"dead": replace(FINDING, verdict=verdict)}, Unasked())
        for verdict in (YES, NO)
    )
    assert (ill.verdict, ill.mark) == (NO, Mark.BAD)
    assert (well.verdict, well.mark) == (YES, Mark.GOOD)
