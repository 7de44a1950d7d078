"""Residual networks find their plain counterparts."""

from analyses.reading.pairs import residual_pairs, runs_of_same_seed


def test_networks_pair_by_name(build):
    names = ["plain18", "plain34", "resnet34"]
    experiment = build.experiment(*(build.plan(name) for name in names))
    (pair,) = residual_pairs(experiment)
    assert (pair.plain, pair.residual) == ("plain34", "resnet34")
    assert [run.network for run in runs_of_same_seed(experiment, pair)[0]] == names[1:]


def test_one_network_of_each_kind_is_a_pair_whatever_the_names(build):
    experiment = build.experiment(build.plan("a"), build.plan("b", skip_share=0.5))
    (pair,) = residual_pairs(experiment)
    assert (pair.plain, pair.residual) == ("a", "b")


def test_runs_of_different_seeds_are_not_compared(build):
    experiment = build.experiment(build.plan("plain8", 1), build.plan("resnet8", 2))
    assert runs_of_same_seed(experiment, residual_pairs(experiment)[0]) == []
