"""The story of a run of one's own: never "nothing was found" of what the health check found."""

import pytest

from analyses.result import Estimate, Finding, Verdict
from reports.document.story.own_run import own_run_story
from reports.document.topics import Topic

YES, NO, UNKNOWN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE


def topic(key, verdicts, count=0.0):
    findings = tuple(
        Finding(
            key=f"{key}-{network}",
            network=network,
            hypothesis=f"{network} is {key}.",
            contradicted_by="",
            verdict=verdict,
            estimates=(Estimate("conditions found", count),),
            threshold="",
            meaning=f"In {network} {key} is {verdict.value}.",
            next_step=f"Mend {key} of {network}.",
        )
        for network, verdict in verdicts.items()
    )
    return Topic("health_check", findings, key, "")


def told(*topics):
    networks = [str(one.network) for one in topics[0].findings]
    story = own_run_story(topics, networks)
    return story, [one.text for one in story.answer]


def test_what_the_health_check_alone_has_found_is_told_with_what_to_do():
    story, texts = told(topic("healthy", {"net": NO}, count=1.0))
    assert texts == ["In net healthy is contradicted."]
    assert story.to_do == ("Mend healthy of net.",)
    assert not story.is_whole  # the cards tell which


@pytest.mark.parametrize(("count", "whole"), [(1.0, True), (2.0, False)])
def test_cards_are_needed_where_fewer_are_told_than_were_found(count, whole):
    story, texts = told(topic("healthy", {"net": NO}, count), topic("dead", {"net": YES}))
    assert texts == ["In net dead is supported."]
    assert story.is_whole is whole


def test_a_network_that_is_open_is_told_beside_one_that_is_ill():
    story, texts = told(
        topic("healthy", {"ill": NO, "open": UNKNOWN}, 1.0),
        topic("dead", {"ill": YES, "open": NO}),
        topic("inputs", {"ill": NO, "open": UNKNOWN}),
    )
    assert texts == [
        "In ill dead is supported.",
        "Nothing was found for certain. In open healthy is inconclusive.",
    ]
    assert story.to_do == ("Mend dead of ill.", "Mend inputs of open.")


def test_a_network_that_is_well_needs_nothing_done():
    story, texts = told(topic("healthy", {"net": YES}))
    assert texts == ["Nothing was found. In net healthy is supported."]
    assert story.to_do == ()
