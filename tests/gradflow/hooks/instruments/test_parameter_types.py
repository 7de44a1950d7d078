"""Each trained parameter's type and size are written once, and again if they change."""

import torch
from torch import nn

from gradflow import Tracer
from gradflow.runs.reading.run import open_run


def epoch(model, tracer):
    for module in (model[0].double(), model[1].double()):
        assert module
    model(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    tracer.step()
    tracer.end_epoch()


def test_rows_are_written_once_and_after_a_change(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].bias.requires_grad_(False)
    with Tracer(model, tmp_path) as tracer:
        epoch(model, tracer)
        epoch(model, tracer)
        model.append(nn.Linear(2, 1, bias=False, dtype=torch.float64))
        epoch(model, tracer)
    table = open_run(tmp_path).table("parameter_types")
    assert table.groupby("epoch")["parameter"].agg(list).to_dict() == {
        1: ["0.weight", "0.bias", "1.weight"],
        3: ["0.weight", "0.bias", "1.weight", "2.weight"],
    }
    assert set(table["type"]) == {"float64"}
    assert set(table["resolution"]) == {2.0**-52}
    assert table.loc[table["epoch"] == 3, "elements"].tolist() == [6, 2, 4, 2]


def test_half_precision_has_its_resolution(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).to(torch.bfloat16)
    with Tracer(model, tmp_path) as tracer:
        model(torch.ones(2, 3, dtype=torch.bfloat16)).sum().backward()
        tracer.step()
        tracer.end_epoch()
    table = open_run(tmp_path).table("parameter_types")
    assert set(table["type"]) == {"bfloat16"}
    assert set(table["resolution"]) == {2.0**-7}
