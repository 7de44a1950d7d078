"""Named groups: their totals, beside sums by hand over tensors."""

import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out((q @ k.transpose(-1, -2) / 2).softmax(-1) @ v)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = Attention()
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


def network():
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.LayerNorm(4)).double()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)


def root(tensors):
    return math.sqrt(sum(float(one.norm()) ** 2 for one in tensors))


def train(model, folder, groups, steps=3, **options):
    """Train with clipping; the tensors of each step, by the parameter's or layer's name."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs, seen = {}, []

    def keep(name):
        def hook(_, __, out):
            out.retain_grad()
            outputs[name] = out

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in model.named_modules()]
    with gradflow.Tracer(model, folder, optimizer=optimizer, groups=groups, **options) as tracer:
        for step in range(steps):
            optimizer.zero_grad()
            model(batch(step)).pow(3).mean().backward()
            named = dict(model.named_parameters())
            one = {"left": {name: p.grad.clone() for name, p in named.items()}}
            nn.utils.clip_grad_norm_([p for n, p in named.items() if "attn" in n], 1e-3)
            one["received"] = {name: p.grad.clone() for name, p in named.items()}
            one["weights"] = {name: p.detach().clone() for name, p in named.items()}
            optimizer.step()
            one["updates"] = {n: p.detach() - one["weights"][n] for n, p in named.items()}
            one["outputs"] = {name: out.detach() for name, out in outputs.items()}
            one["slopes"] = {name: out.grad for name, out in outputs.items()}
            seen.append(one)
        tracer.end_epoch()
    for handle in handles:
        handle.remove()
    return gradflow.open_run(folder), seen


def inside(name, part):
    return f".{part}." in f".{name}."


def test_totals_of_each_group_beside_those_by_hand(tmp_path):
    groups = {"attention": "*.attn.*", "mlp": ["0.mlp", "1.mlp"], "norm": nn.LayerNorm}
    model = network()
    run, seen = train(model, tmp_path / "run", groups)
    rows = run.groups.set_index(["step", "group"])
    assert len(rows) == 9
    parameters = {
        "attention": [n for n, _ in model.named_parameters() if inside(n, "attn")],
        "mlp": [n for n, _ in model.named_parameters() if inside(n, "mlp")],
        "norm": ["2.weight", "2.bias"],
    }
    layers = {
        # The pattern has a dot behind it: it does not select the module attn itself.
        "attention": ["0.attn.qkv", "0.attn.out", "1.attn.qkv", "1.attn.out"],
        # A list has no role, and is not observed.
        "mlp": [f"{block}.mlp.{place}" for block in (0, 1) for place in (0, 1, 2)],
        "norm": ["2"],
    }
    for step, one in enumerate(seen):
        for group, names in parameters.items():
            row = rows.loc[step, group]
            assert row.parameters == len(names)
            assert row.layers == len(layers[group])
            left, received = (root(one[k][n] for n in names) for k in ("left", "received"))
            weight, update = (root(one[k][n] for n in names) for k in ("weights", "updates"))
            expected = {
                "backward_gradient_norm": left,
                "gradient_norm": received,
                "clipping_factor": received / left,
                "weight_norm": weight,
                "update_norm": update,
                "update_to_weight": update / weight,
                "output_norm": root(one["outputs"][name] for name in layers[group]),
                "output_gradient_norm": root(one["slopes"][name] for name in layers[group]),
                "nonfinite": 0,
            }
            assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-6), (step, group)
    assert (rows.xs("attention", level="group").clipping_factor < 0.9).all()
    assert rows.xs("mlp", level="group").clipping_factor.tolist() == pytest.approx([1] * 3)
    named = run.description["groups"]
    assert named["attention"] == {
        "layers": layers["attention"],
        "parameters": parameters["attention"],
    }


@pytest.mark.parametrize(
    ("selector", "parameters", "layers"),
    [
        ("0.attn.qkv.bias", 1, 0),
        ("*.bias", 9, 0),
        ("0", 8, 7),
        ("?.attn", 8, 6),
        (lambda name, module: name.endswith("out"), 4, 2),
        ([nn.LayerNorm, "0.mlp.1"], 2, 2),
        (nn.GELU, 0, 2),
    ],
)
def test_selectors_choose_parameters_and_layers(tmp_path, selector, parameters, layers):
    run, _ = train(network(), tmp_path / "run", {"one": selector}, steps=1)
    (row,) = run.groups.itertuples()
    assert (row.parameters, row.layers) == (parameters, layers)
    for value in (row.weight_norm, row.update_norm, row.gradient_norm, row.clipping_factor):
        assert math.isnan(value) == (parameters == 0)
    for value in (row.output_norm, row.output_gradient_norm, row.nonfinite):
        assert math.isnan(value) == (layers == 0)


def test_calls_of_a_layer_belong_to_its_group_and_their_nonfinite_values_are_counted(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(self.layer(x))

    model = Twice()
    with gradflow.Tracer(model, tmp_path / "run", groups={"one": "layer"}) as tracer:
        out = model(torch.tensor([[1.0, math.inf]]))
        out.sum().backward()
        tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    (row,) = run.groups.itertuples()
    assert row.layers == 2
    assert row.nonfinite == run.activations.nonfinite.sum() + run.gradients.nonfinite.sum() > 0


@pytest.mark.parametrize(("outputs", "tensors"), [("first", 1), ("all", 3)])
def test_further_tensors_of_outputs_belong_to_the_group_of_their_layer(tmp_path, outputs, tensors):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.lstm_head = nn.LSTM(4, 4), nn.Linear(4, 2)
            self.seen = []

        def forward(self, x):
            for _ in range(2):
                x, (hidden, cell) = self.lstm(x)
                self.seen.append((x, hidden, cell))
            return self.lstm_head(hidden + cell)

    torch.manual_seed(0)
    model = Twice().double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    with gradflow.Tracer(
        model, tmp_path / "run", groups={"one": "lstm"}, outputs=outputs
    ) as tracer:
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        tracer.step()
    chosen = [tensor for call in model.seen for tensor in call[:tensors]]
    gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
    (row,) = gradflow.open_run(tmp_path / "run").groups.itertuples()
    assert row.layers == len(chosen)
    assert row.output_norm == pytest.approx(root(one.detach() for one in chosen), rel=1e-6)
    used = [one for one in gradients if one is not None]
    assert row.output_gradient_norm == pytest.approx(root(used), rel=1e-6)


def test_a_model_that_is_a_single_layer(tmp_path):
    model = nn.Linear(2, 2)
    with gradflow.Tracer(model, tmp_path / "run", groups={"one": nn.Linear}) as tracer:
        model(torch.ones(1, 2)).sum().backward()
        tracer.step()
    (row,) = gradflow.open_run(tmp_path / "run").groups.itertuples()
    assert (row.parameters, row.layers) == (2, 1)


def test_what_is_added_later_joins_its_group(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, groups={"attention": "*.attn"}
    ) as tracer:
        for _ in range(2):
            model(batch(0)).square().mean().backward()
            optimizer.step()
            model.append(Block().double())
            optimizer.add_param_group({"params": model[-1].parameters()})
    run = gradflow.open_run(tmp_path / "run")
    assert run.groups.parameters.tolist() == [8, 12]
    assert "3.attn.qkv.weight" in run.description["groups"]["attention"]["parameters"]
    assert tracer.steps == 2


def test_scaled_losses_give_unscaled_totals(tmp_path):
    model = network().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizer, scaler=scaler, groups={"all": "*"}
    ):
        scaler.scale(model(batch(0).float()).square().mean()).backward()
        expected = root(one.grad for one in model.parameters()) / 1024
        scaler.step(optimizer)
    run = gradflow.open_run(tmp_path / "run")
    assert run.groups.gradient_norm[0] == pytest.approx(expected, rel=1e-5)
    assert run.groups.backward_gradient_norm[0] == pytest.approx(expected, rel=1e-5)
    assert run.groups.output_gradient_norm[0] == pytest.approx(
        float((run.gradients.norm**2).sum() ** 0.5), rel=1e-9
    )


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"attention": "*.attn.*", "none": "*.atn.*"}, r"the group 'none' .*gradflow\.layers"),
        ({"none": []}, "the group 'none'"),
        ({"number": 3}, "not 3"),
        (["*.attn.*"], "groups= is a mapping"),
    ],
)
def test_groups_that_cannot_be_are_refused_in_a_sentence(tmp_path, groups, said):
    with pytest.raises(TracingError, match=said):
        gradflow.Tracer(network(), tmp_path / "run", groups=groups)
    assert not (tmp_path / "run").exists()


def test_without_groups_there_is_no_such_table(tmp_path):
    run, _ = train(network(), tmp_path / "run", None, steps=1)
    assert len(run.groups) == 0
    assert not (tmp_path / "run" / "groups").exists()
    assert "groups" not in run.description
