import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradflow
from gradflow.data import Batch
from gradflow.errors import ConfigurationError
from gradflow.probes.execution import run_probes
from gradflow.probes.probe import NotMeasurableError, Probe, Subject, When, is_due
from gradflow.probes.registry import find_probes


def subject(model, **changes):
    batch = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.arange(2))
    plain = Subject(
        model=model,
        epoch=2,
        is_last_epoch=False,
        accuracy_changed=False,
        previous_state=None,
        batch=batch,
        training_batches=lambda: iter([batch]),
        validation_batches=lambda: iter([batch]),
        seed=0,
    )
    return replace(plain, **changes)


def probe(measure, when=When.EVERY_EPOCH):
    return Probe("spoiler", ("sharpness",), when, measure)


class Written(dict):
    def __call__(self, name, columns):
        self[name] = columns


def test_a_probe_may_change_its_copy_without_changing_the_network():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    model[0].weight.grad = torch.ones(4, 3)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)

    def spoil(given):
        assert not any(module.training for module in given.model.modules())
        assert all(parameter.grad is None for parameter in given.model.parameters())
        with torch.no_grad():
            for value in given.model.state_dict().values():
                value.zero_()
        given.model.train()
        torch.randn(100)
        return {"sharpness": {"curvature": [1.0]}}

    written = Written()
    run_probes([probe(spoil)], subject(model), written)
    assert written["sharpness"] == {"curvature": [1.0]}
    assert torch.equal(torch.randn(3), wanted)
    assert all(module.training for module in model.modules())
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_traced_network_is_probed_without_being_traced(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def run_it(given):
        given.model.train()(torch.ones(2, 3)).sum().backward()
        return {}

    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        run_probes([probe(run_it)], subject(model), tracer.write_table)
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert set(run.gradients["step"]) == {0}
    assert len(run.gradients) == 3
    assert len(run.table("probe_costs")) == 1


def test_all_costs_are_written_and_the_reason_if_a_probe_cannot_measure():
    def cannot(given):
        raise NotMeasurableError("no residual blocks")

    written = Written()
    run_probes([probe(cannot)], subject(nn.Linear(3, 1)), written, {"other": 2.5})
    costs = written["probe_costs"]
    assert costs["probe"] == ["other", "spoiler"]
    assert costs["seconds"][0] == 2.5
    assert costs["seconds"][1] >= 0
    assert costs["skipped"] == [None, "no residual blocks"]
    assert list(written) == ["probe_costs"]


@pytest.mark.parametrize(
    ("when", "due"),
    [
        (When.EVERY_EPOCH, [True, True, True, True]),
        (When.FIRST_AND_LAST, [True, False, False, True]),
        (When.LAST, [False, False, False, True]),
        (When.ACCURACY_JUMP, [False, False, True, False]),
    ],
)
def test_each_probe_runs_at_its_epochs(when, due):
    model = nn.Linear(3, 1)
    kinds = [
        {"epoch": 1, "accuracy_changed": True},
        {"epoch": 2, "previous_state": {}},
        {"epoch": 3, "accuracy_changed": True, "previous_state": {}},
        {"epoch": 4, "is_last_epoch": True, "previous_state": {}},
    ]
    found = [is_due(probe(lambda given: {}, when), subject(model, **kind)) for kind in kinds]
    assert found == due


def test_an_unknown_probe_is_refused_with_the_names_of_all():
    with pytest.raises(ConfigurationError, match=r"no probe called 'lesion'; there are .*lesions"):
        find_probes(("lesion",))
