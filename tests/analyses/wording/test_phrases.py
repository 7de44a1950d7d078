"""How counts, lists and names read."""

import pytest

from analyses.wording.phrases import listing, plural, with_network, without_network


def test_counts_and_lists():
    assert [plural(1, "seed"), plural(3, "seed"), plural(2, "class")] == [
        "1 seed",
        "3 seeds",
        "2 classes",
    ]
    assert listing([]) == ""
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(["a", "b", "c", "d"], most=3) == "a, b and 2 more"
    names = [f"blocks.{place}" for place in range(2000)]
    assert listing(names[:12]).endswith("blocks.10 and blocks.11")
    assert listing(names).endswith(", blocks.10 and 1,989 more")


@pytest.mark.parametrize("network", ["plain34", "[x]", "{}", "a] b"])
def test_a_hypothesis_reads_with_and_without_its_network(network):
    template = "The skips[ of {}] carry most."
    assert with_network(template, network) == f"The skips of {network} carry most."
    assert without_network(template) == "The skips carry most."
