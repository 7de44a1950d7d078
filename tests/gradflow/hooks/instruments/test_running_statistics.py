"""The statistics of batches, found from the running ones, are those of the layer's inputs."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradflow import Tracer
from gradflow.runs.reading.run import open_run

STEPS, BATCH = 6, 16


def small_model(**options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, **options), nn.ReLU(), nn.Flatten(),
        nn.Linear(3 * 4 * 4, 5), nn.BatchNorm1d(5, **options),
    )  # fmt: skip


def batches(steps: int = STEPS) -> Tensor:
    return torch.randn(steps, BATCH, 2, 6, 6, generator=torch.Generator().manual_seed(1)) + 0.5


class Inputs:
    """Keeps mean and unbiased variance of every input of a batch norm, by name, in float64."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(self._keeping(name))

    def _keeping(self, name: str):
        def keep(module, args):
            x = args[0].detach().double().transpose(0, 1).flatten(1).numpy()
            if module.training:
                self.seen.setdefault(name, []).append((x.mean(1), x.var(1, ddof=1)))

        return keep


def trained(tmp_path, model: nn.Module, *, epochs: int = 1, passes: int = 1, **options):
    """Train `model` with learning rate 0.1; return the frame of running statistics."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Tracer(model, tmp_path, optimizer=optimizer, **options) as tracer:
        for _ in range(epochs):
            for x in batches():
                for part in x.chunk(passes):
                    model(part).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            tracer.end_epoch()
    return open_run(tmp_path).table("running_statistics")


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def expected_row(module, inputs, count: int = STEPS) -> dict[str, float]:
    means = np.array([mean for mean, _ in inputs[-count:]])
    variances = np.array([variance for _, variance in inputs[-count:]])
    scale = variances.mean(0) + module.eps
    running_mean = module.running_mean.double().numpy()
    running_var = module.running_var.double().numpy()
    return {
        "mean_shift": rms((running_mean - means.mean(0)) / np.sqrt(scale)),
        "variance_shift": rms(np.log((running_var + module.eps) / scale)),
        "mean_scatter": np.sqrt(np.mean(means.var(0, ddof=1) / scale)),
        "variance_scatter": np.sqrt(np.mean(variances.var(0, ddof=1) / scale**2)),
    }


@pytest.mark.parametrize("momentum", [0.1, 0.01, 1.0, None])
def test_the_batches_statistics_are_those_of_the_inputs(tmp_path, momentum):
    model = small_model(momentum=momentum)
    inputs = Inputs(model)
    found = trained(tmp_path, model).set_index("layer")
    assert found["batches"].tolist() == [STEPS, STEPS]
    assert found["passes"].tolist() == [STEPS, STEPS]
    for name, row in found.iterrows():
        wanted = expected_row(model.get_submodule(name), inputs.seen[name])
        for quantity, value in wanted.items():
            assert row[quantity] == pytest.approx(
                value, rel=2e-3 if momentum == 0.01 else 2e-4, abs=1e-7
            )


def test_passes_of_one_step_are_weighed_as_the_running_statistics_weigh_them(tmp_path):
    model = small_model(momentum=0.3)
    inputs = Inputs(model)
    row = trained(tmp_path, model, passes=2).set_index("layer").loc["1"]
    pairs = np.array([mean for mean, _ in inputs.seen["1"]]).reshape(STEPS, 2, -1)
    means = (0.7 * pairs[:, 0] + pairs[:, 1]) / 1.7
    spread = means.std(0, ddof=1)
    assert row["passes"] == 2 * STEPS
    assert row["mean_scatter"] > 0
    variances = np.array([v for _, v in inputs.seen["1"]]).reshape(STEPS, 2, -1)
    scale = ((0.7 * variances[:, 0] + variances[:, 1]) / 1.7).mean(0) + model[1].eps
    assert row["mean_scatter"] == pytest.approx(np.sqrt(np.mean(spread**2 / scale)), rel=2e-4)


def test_only_the_last_recorded_batches_count(tmp_path):
    model = small_model()
    inputs = Inputs(model)
    found = trained(tmp_path, model, epochs=3, schedule=2).set_index("layer")
    last = found[found["epoch"] == 3].loc["5"]
    assert last["batches"] == 8
    assert last["passes"] == 3 * STEPS
    recorded = [inputs.seen["5"][step] for step in range(0, 3 * STEPS, 2)]
    wanted = expected_row(model[5], recorded, count=8)
    assert last["mean_shift"] == pytest.approx(wanted["mean_shift"], rel=2e-4)


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_the_shift_that_the_choice_of_batches_makes_is_as_expected(tmp_path, momentum):
    """Without learning the only shift is noise: over many channels its mean square is expected."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4000, momentum=momentum))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for _ in range(60):
            model(torch.randn(8, 4000)).sum().backward()
            optimizer.step()
        tracer.end_epoch()
    row = open_run(tmp_path).table("running_statistics").iloc[0]
    # 4,000 independent channels: the mean of their squares is within 5 % by far.
    assert row["mean_scatter"] == pytest.approx(math.sqrt(1 / 8), rel=0.1)
    assert row["mean_shift"] == pytest.approx(row["expected_mean_shift"], rel=0.05)
    assert row["variance_shift"] == pytest.approx(row["expected_variance_shift"], rel=0.1)


def test_a_layer_in_evaluation_mode_has_a_row_without_numbers(tmp_path):
    model = small_model()
    model[1].eval()
    rows = trained(tmp_path, model).set_index("layer")
    assert rows["mode"].tolist() == ["evaluation", "training"]
    assert rows.loc["1", ["batches", "passes"]].tolist() == [0, 0]
    assert np.isnan(rows.loc["1", "mean_shift"])


def test_statistics_reset_within_the_epoch_leave_that_step_out(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for step, x in enumerate(batches()):
            model(x).square().mean().backward()
            if step == 3:
                model[1].reset_running_stats()
            optimizer.step()
        tracer.end_epoch()
    rows = open_run(tmp_path).table("running_statistics").set_index("layer")
    assert rows["batches"].to_dict() == {"1": STEPS - 1, "5": STEPS}


class Shared(nn.Module):
    """One batch norm in two places, and a lazy one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.again = self.norm
        self.lazy = nn.LazyBatchNorm1d()

    def forward(self, x: Tensor) -> Tensor:
        return self.lazy(self.again(self.norm(x) * 2))


def test_shared_and_lazy_batch_norms_are_followed_once_they_have_a_size(tmp_path):
    model = Shared()
    with Tracer(model, tmp_path) as tracer:
        for _ in range(3):
            model(torch.randn(8, 4)).square().sum().backward()
            tracer.step()
        tracer.end_epoch()
    rows = open_run(tmp_path).table("running_statistics").set_index("layer")
    assert rows["passes"].to_dict() == {"norm": 6, "lazy": 3}
    assert rows["batches"].to_dict() == {"norm": 2, "lazy": 2}


def test_a_model_without_running_statistics_has_no_rows(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with Tracer(model, tmp_path) as tracer:
        model(torch.randn(4, 3)).sum().backward()
        tracer.step()
        tracer.end_epoch()
    assert open_run(tmp_path).table("running_statistics").empty


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_continued_has_the_rows_of_one_that_was_not(tmp_path, times):
    def train(folder, interrupt: int):
        model = small_model()
        tracer = Tracer(model, folder)
        tracer.__enter__()
        for step, x in enumerate(batches(10)):
            model(x).square().mean().backward()
            tracer.step()
            for _ in range(interrupt if step == 4 else 0):  # perhaps again before the next step
                state, weights = tracer.state_dict(), copy.deepcopy(model.state_dict())
                tracer.__exit__(None, None, None)
                model = small_model()
                model.load_state_dict(weights)
                tracer = Tracer(model, folder, resume=state)
                tracer.__enter__()
            model.zero_grad()
        tracer.end_epoch()
        tracer.__exit__(None, None, None)
        return open_run(folder).table("running_statistics")

    whole, continued = train(tmp_path / "a", 0), train(tmp_path / "b", times)
    assert whole.equals(continued)
    assert whole["batches"].tolist() == [8, 8]


@pytest.mark.parametrize("at", [1, STEPS - 1])
@pytest.mark.parametrize("within", [False, True], ids=["between steps", "within a step"])
def test_a_batch_norm_that_is_told_to_keep_none_leaves_the_table(tmp_path, at, within):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Tracer(model, tmp_path, optimizer=optimizer) as tracer:
        for step, x in enumerate(batches()):
            loss = model(x).square().mean() if within else None
            if step == at:
                model[1].track_running_stats = False
                model[1].running_mean = model[1].running_var = None
            loss = model(x).square().mean() if loss is None else loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        tracer.end_epoch()
    table = open_run(tmp_path).table("running_statistics")
    assert table["layer"].tolist() == ["5"]
    # The batches of the others are counted anew.
    assert table["batches"].tolist() == [STEPS - at - within]
