"""The kernels in Triton's interpreter, on the CPU; `test_kernels.py` runs this file.

Triton reads TRITON_INTERPRET=1 when it is imported, which is why this needs a process of its own.
"""

import math
from fractions import Fraction

import pytest
import torch
from scipy import stats

import gradflow
from gradflow.hooks.reduction import cpu, definition, fused, histograms
from gradflow.hooks.reduction.cuda import checked, groups, launches, products
from gradflow.hooks.reduction.deferred.noted import UsualReductions
from gradflow.hooks.reduction.deferred.reductions import Reductions
from gradflow.hooks.reduction.deferred.waiting import Habit
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics
from gradflow.hooks.reduction.statistics.tables import packed, statistics_of
from gradflow.runs.format.layer_tables import TENSOR_STATISTICS

# The interpreter computes with numpy, which warns where a GPU quietly gives inf or nan.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SPECIAL = (0.0, -0.0, 1.0, -3.0, 1e-40, 1e-45, 6e-8, 65504.0, 1e30, -3e38)
WHOLE = tuple(one.name for one in TENSOR_STATISTICS if not one.by_channel)
BY_CHANNEL = tuple(one.name for one in TENSOR_STATISTICS if one.by_channel)


@pytest.fixture(autouse=True)
def only_the_kernels(monkeypatch):
    """Send tensors on the CPU to the kernels only."""

    def unwanted(*_):
        raise AssertionError("the kernels did not take this tensor")

    assert checked.kernels(torch.device("cpu")) is not None
    monkeypatch.setattr(cpu, "loops_module", lambda: None)
    monkeypatch.setattr(fused, "_on_gpu", lambda x: True)
    monkeypatch.setattr(fused, "_by_torch", unwanted)


def test_kernels_that_give_other_numbers_than_torch_are_not_used(monkeypatch):
    monkeypatch.undo()
    right = launches.reduce
    monkeypatch.setattr(launches, "reduce", lambda *a: (right(*a)[0] * (1 + 1e-6), None))
    assert checked.kernels.__wrapped__(torch.device("cpu")) is None


def test_kernels_that_give_other_fourth_powers_than_torch_are_not_used(monkeypatch):
    monkeypatch.undo()
    right = launches.reduce

    def wrong(*arguments):
        values, counts = right(*arguments)
        values[-4] *= 1 + 1e-6
        return values, counts

    monkeypatch.setattr(launches, "reduce", wrong)
    assert checked.kernels.__wrapped__(torch.device("cpu")) is None


def plain(x: torch.Tensor, axis: int | None) -> dict[str, float]:
    x = x.double()
    found = {name: float(getattr(definition, name)(x)) for name in WHOLE}
    for name in BY_CHANNEL:
        found[name] = math.nan if axis is None else float(getattr(definition, name)(x, axis))
    return found


def assert_plain(x: torch.Tensor, axis: int | None) -> None:
    result = to_statistics([moments(x, axis)])
    finite = x.double()[torch.isfinite(x)]
    unit = float(finite.abs().max()) if finite.numel() else 0.0
    for name, expected in plain(x, axis).items():
        smallest = 1e-12 * (unit**2 if name.startswith("channel_") else unit)
        assert result[name][0] == pytest.approx(expected, rel=1e-9, abs=smallest, nan_ok=True), name


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = [(), (1,), (7,), (5, 1), (1, 5), (3, 35), (2, 3, 4), (3, 1, 5), (2, 4, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_layout_and_axis_agrees_with_the_plain_definitions(shape):
    x = normal(*shape).relu()
    if x.dim() > 1:
        x[:, 0] = 0
    for axis in (None, *range(x.dim())):
        assert_plain(x, axis)
    if x.dim() > 1:
        assert_plain(x, -1)
        assert_plain(x.transpose(0, -1).contiguous().transpose(0, -1), 1)
        assert_plain(x[:1].expand(3, *x.shape[1:]), 1)
    if x.dim() == 4:
        assert_plain(x.to(memory_format=torch.channels_last), 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf], ids=str)
def test_any_dtype_and_value_agrees_with_the_plain_definitions(dtype, bad):
    special = SPECIAL if bad is None else (*SPECIAL, bad)
    choice = torch.randint(len(special), (3, 4, 5), generator=torch.Generator().manual_seed(1))
    x = torch.tensor(special, dtype=torch.float64)[choice].to(dtype)
    for axis in (None, 1, 2):
        assert_plain(x, axis)
        assert moments(x, axis).values[-2] == (x == 0).sum()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_one_non_finite_value_is_counted_and_shows_in_its_channel_alone(dtype, bad):
    x = torch.ones(2, 3, 4, dtype=dtype)
    x[1, 2, 3] = bad
    found = moments(x, 1).values
    assert found[-1] == 1
    assert found[:2].tolist() == [8, 8]
    assert not torch.isfinite(found[[2, 5, 8]]).any()
    assert found[-3].item() == pytest.approx(abs(bad), nan_ok=True)


def test_nan_is_a_larger_magnitude_than_infinity():
    assert moments(torch.tensor([math.inf, math.nan, 1.0]), None).values[-3].isnan()


@pytest.mark.parametrize(("tile", "programs"), [(32, 4096), (32, 4), (16, 1), (64, 12)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("axis", [None, 1])
def test_statistics_do_not_depend_on_tiles_and_programs(tile, programs, layout, axis, monkeypatch):
    monkeypatch.setattr(launches, "_TILE", tile)
    monkeypatch.setattr(launches, "_PROGRAMS", programs)
    monkeypatch.setattr(launches, "_SIDE_BY_SIDE", 4)
    monkeypatch.setattr(launches, "_PARTS", 2)
    monkeypatch.setattr(launches, "_CHANNELS", 2)
    monkeypatch.setattr(launches, "layout", launches.layout.__wrapped__)
    x = normal(2, 5, 7, 9).relu()
    x[1, 4, 6, 8] = 50  # the last element lies in the last part
    assert_plain(x.to(memory_format=layout), axis)


def exact_variance(x: torch.Tensor) -> float:
    """The mean over channels (axis 1) of the variance, in rational arithmetic."""
    variances = []
    for channel in x.double().movedim(1, 0).reshape(x.shape[1], -1).tolist():
        values = [Fraction(value) for value in channel]
        mean = sum(values) / len(values)
        variances.append(sum((value - mean) ** 2 for value in values) / len(values))
    return float(sum(variances) / len(variances))


@pytest.mark.parametrize(("first", "rel"), [(1e6, 1e-13), (-1e6, 1e-10)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_mean_far_larger_than_the_deviations_costs_no_digits(first, rel, layout):
    x = (1e6 + normal(4, 2, 20, 20)).float().to(memory_format=layout)
    x[0, :, 0, 0] = first  # sums are taken about the first element: it may lie far off
    assert to_statistics([moments(x, 1)])["channel_variance"][0] == pytest.approx(
        exact_variance(x), rel=rel
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_kurtosis_beside_a_large_mean_is_that_of_scipy(layout):
    x = (1e4 + normal(4, 6, 20, 20).pow(3)).to(memory_format=layout)
    found = to_statistics([moments(x, 1)])["kurtosis"][0]
    assert found == pytest.approx(stats.kurtosis(x.numpy().ravel() - 1e4, fisher=False), rel=1e-9)


def test_equal_elements_have_no_kurtosis():
    assert math.isnan(to_statistics([moments(torch.full((3, 40, 5), 0.1), 1)])["kurtosis"][0])


def test_the_same_tensor_gives_the_same_bits():
    x = normal(3, 5, 30, 30).float()
    assert torch.equal(moments(x, 1).values, moments(x, 1).values)


def in_groups(monkeypatch, items):
    """The moments of the items, by groups alone."""
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: x.layout is torch.strided)
    monkeypatch.setattr(groups, "moments_if_any", None)
    return groups.reduce_on_device(items)


def of_every_kind() -> list[tuple[torch.Tensor, int | None, bool]]:
    """More tensors than fit in one group, of all types, layouts and axes, some with histograms."""
    items = [(torch.tensor(0.5), 0, False)]
    for number, (shape, axis) in enumerate(
        [((2, 3, 4), 1), ((2, 3, 4), -1), ((7,), None), ((5, 1), 1), ((1, 40), 1), ((6, 4), None)]
    ):
        x = (normal(*shape, seed=number) * 3).relu()
        items += [(x.to(dtype), axis, number % 2 == 0) for dtype in DTYPES]
    image = normal(2, 5, 7, 9).float()
    items += [(image.to(memory_format=torch.channels_last), 1, True), (image[:, 1:], 1, False)]
    return items + [(normal(3, seed=number), None, False) for number in range(6)]


def test_a_group_has_the_numbers_of_the_plain_definitions_in_order(monkeypatch):
    items = of_every_kind()
    assert len(items) == 33
    found = in_groups(monkeypatch, items)
    statistics = to_statistics(found)
    for index, ((x, axis, histogram), seen) in enumerate(zip(items, found, strict=True)):
        expected = plain(x, axis if x.dim() else None)
        for name, value in expected.items():
            smallest = 1e-12 * (1 + float(x.abs().max())) ** 2
            assert statistics[name][index] == pytest.approx(
                value, rel=1e-9, abs=smallest, nan_ok=True
            ), (name, index)
        assert (seen.magnitudes is not None) == histogram
        if histogram:
            assert torch.equal(seen.magnitudes, histograms.count(x))
        assert seen.batch_size == (len(x) if x.dim() else 1)
        if index % 4 == 1:  # a tensor has the same bits alone
            assert torch.equal(seen.values, launches.reduce(x, axis)[0])


def test_what_is_no_ordinary_tensor_is_reduced_beside_the_group(monkeypatch):
    x = normal(3, 4)
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: x.layout is torch.strided)
    items = [(x, 1, False), (x.to(torch.int64), 1, False), (torch.complex(x, x), 1, True)]
    found = groups.reduce_on_device([*items, (x, None, True)])
    assert found[1] is None
    norms = to_statistics([found[0], found[2], found[3]])["norm"]
    assert list(norms) == pytest.approx(
        [float(x.norm()), 2**0.5 * float(x.norm()), float(x.norm())]
    )
    assert found[2].magnitudes.sum() == 12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_magnitudes_are_counted_in_the_same_read(dtype, monkeypatch):
    monkeypatch.setattr(histograms, "count", None)
    special = torch.tensor([*SPECIAL, math.inf, -math.inf, math.nan], dtype=torch.float64)
    x = torch.cat([special, normal(300).pow(9), torch.tensor([2.0**-127, 1e300, 1e-300])]).to(dtype)
    found = moments(x, None, histogram=True).magnitudes
    monkeypatch.undo()
    assert torch.equal(found, histograms.count(x))


def test_kernels_that_count_otherwise_than_torch_do_not_count(monkeypatch):
    right = histograms.count
    monkeypatch.setattr(histograms, "count", lambda x: right(x) + 1)
    assert checked.counts_magnitudes.__wrapped__(torch.device("cpu")) is False


def products_of(whole, skip, branch):
    w, s, b = (one.double() for one in (whole, skip, branch))
    g = s + b
    pairs = ((g, g), (s, s), (b, b), (s, b), (s, g), (w, w), (w - g, w - g))
    return torch.stack([(one * other).sum() for one, other in pairs])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_of_gradients_are_those_of_torch(dtype, monkeypatch):
    monkeypatch.setattr(products, "_PROGRAMS", 4)  # of which each reads several tiles
    shapes = [(7,), (3, 35), (2, 5, 40, 30), ()] + 16 * [(7,), ()]  # more than a table has rows
    items = [
        tuple(normal(*shape, seed=3 * number + i).to(dtype) for i in range(3))
        for number, shape in enumerate(shapes)
    ]
    found = products.multiply(items)
    assert found.shape == (36, 7)
    for one, gradients in zip(found, items, strict=True):
        assert one.tolist() == pytest.approx(products_of(*gradients).tolist(), rel=1e-10, abs=1e-10)
    assert torch.equal(products.multiply(items[2:3])[0], found[2])  # alone, the same bits


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_products_of_gradients_that_are_not_finite_are_not_finite(bad):
    whole, skip, branch = (normal(2, 700, seed=seed) for seed in range(3))
    skip[1, 699] = bad
    gg, ss, bb, _, _, ww, _ = products.multiply([(whole, skip, branch)])[0]
    assert not torch.isfinite(torch.stack([gg, ss])).any()
    assert float(bb) == pytest.approx(float(branch.square().sum()), rel=1e-12)
    assert float(ww) == pytest.approx(float(whole.square().sum()), rel=1e-12)


def test_a_kernel_for_products_that_gives_other_numbers_is_not_used(monkeypatch):
    device, right = torch.device("cpu"), products.multiply
    assert checked.products.__wrapped__(device) is products
    monkeypatch.setattr(products, "multiply", lambda items: right(items) * (1 + 1e-6))
    assert checked.products.__wrapped__(device) is None


def test_gradients_at_additions_are_multiplied_in_groups_as_one_by_one(monkeypatch):
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(groups, "is_in_order", lambda x: True)
    layouts = [lambda x: x, lambda x: x.to(memory_format=torch.channels_last)]
    waiting, reductions = [], Reductions()
    for number in range(4):
        gradients = [normal(2, 3, 4, 5, seed=3 * number + i).float() for i in range(3)]
        gradients = [layouts[number % 2](one) for one in gradients]
        if number == 3:
            gradients[1] = gradients[1].contiguous()  # another order in memory: alone
        habit = Habit("addition")
        habit.tried = True
        expected = products_of(*gradients)
        one = reductions.multiply(tuple(gradients), habit, lambda *_: torch.full((7,), -1.0))
        waiting.append((one, expected))
    assert [one.products is None for one, _ in waiting] == [True, True, True, False]
    reductions.flush()
    for one, expected in waiting[:3]:
        assert one.products.tolist() == pytest.approx(expected.tolist(), rel=1e-10)
    assert waiting[3][0].products.tolist() == [-1.0] * 7


def test_groups_that_give_other_bits_than_one_tensor_are_not_used(monkeypatch):
    right = launches.reduce_group
    wrong = lambda items: [(values * (1 + 1e-15), counts) for values, counts in right(items)]  # noqa: E731
    monkeypatch.setattr(launches, "reduce_group", wrong)
    assert checked.work_in_groups.__wrapped__(torch.device("cpu")) is False


def test_if_a_group_fails_its_tensors_are_reduced_one_by_one(monkeypatch):
    def failing(items):
        raise RuntimeError("no launch")

    monkeypatch.setattr(groups, "_without_groups", set())
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(launches, "reduce_group", failing)
    x = normal(3, 4)
    for _ in range(2):
        (found,) = groups.reduce_on_device([(x, 1, False)])
        assert to_statistics([found])["norm"][0] == pytest.approx(float(x.norm()), rel=1e-12)
    assert not groups.can_be_grouped(x)


def learnt(monkeypatch, items):
    """Reductions that know what tensors usually are that seem to be on a device; and their habits.

    `items` are tensors and channel axes.
    """
    monkeypatch.setattr(groups, "_without_groups", set())
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: x.layout is torch.strided)
    monkeypatch.setattr(groups, "is_in_order", lambda x: True)
    reductions, habits = Reductions(), [Habit(f"number {place}") for place in range(len(items))]
    for _ in range(2):  # at first alone and in a group, then it is learnt
        for (x, axis), habit in zip(items, habits, strict=True):
            reductions.reduce(x, axis, False, habit)
        reductions.flush()
        reductions.settle_doubts()
    assert all(habit.usual is not None for habit in habits)
    return reductions, [(*one, habit) for one, habit in zip(items, habits, strict=True)]


@pytest.fixture
def as_usual(monkeypatch):
    """What `learnt` returns for two small tensors."""
    return learnt(monkeypatch, [(normal(3, 4).float(), 1), (normal(7), None)])


def test_what_is_as_usual_has_the_numbers_of_the_plain_definitions(monkeypatch):
    images = normal(2, 5, 3, 2).float()
    items = [
        (torch.tensor(0.5), None),
        (normal(2, 3, 4).relu(), 1),
        (normal(2, 3, 4).bfloat16(), -1),
        (normal(5, 1).float(), 1),
        (normal(1, 40).half(), 1),
        (images, 1),
        (images.to(memory_format=torch.channels_last), 1),
    ]
    reductions, known = learnt(monkeypatch, items)
    monkeypatch.setattr(Reductions, "reduce", None)
    noted = []
    for number in range(2):  # the second group is that of before
        changed = [(x * (number + 2), axis, habit) for x, axis, habit in known]
        noted = [reductions.note_usual(x, habit.usual) for x, _, habit in changed]
        assert all(one.found is None for one in noted)
        reductions.flush()
    found = to_statistics([one.moments for one in noted])
    for index, (x, axis, _) in enumerate(changed):
        for name, value in plain(x, axis).items():
            smallest = 1e-12 * (1 + float(x.abs().max())) ** 2
            assert found[name][index] == pytest.approx(
                value, rel=1e-9, abs=smallest, nan_ok=True
            ), (name, index)
        assert torch.equal(noted[index].moments.values, launches.reduce(x, axis)[0])
        assert noted[index].moments.batch_size == (len(x) if x.dim() else 1)
    table = packed({str(place): one for place, one in enumerate(noted)})
    in_columns, *_ = statistics_of([table])
    for name, values in found.items():
        assert in_columns[name].tolist() == pytest.approx(values.tolist(), nan_ok=True)


def test_what_is_overwritten_while_it_waits_is_missing_and_said(as_usual):
    reductions, known = as_usual
    noted = [reductions.note_usual(x, habit.usual) for x, _, habit in known]
    known[1][0].mul_(2)
    reductions.flush()
    assert [one.found is None for one in noted] == [place == 1 for place in range(len(known))]
    assert reductions.overwritten == [known[1][2].name]
    assert known[1][2].usual is None


def test_what_looks_otherwise_is_reduced_alone(as_usual):
    reductions, known = as_usual
    (x, _, habit), rest = known[0], known[1:]
    other = torch.stack([x, x], -1)[..., 0]  # with gaps in memory
    noted = [reductions.note_usual(other, habit.usual)]
    noted += [reductions.note_usual(one, kind.usual) for one, _, kind in rest]
    reductions.flush()
    assert to_statistics([noted[0].moments])["norm"][0] == pytest.approx(float(x.norm()))
    assert all(one.found is not None for one in noted)


def test_what_was_made_on_another_stream_does_not_wait(as_usual, monkeypatch):
    reductions, known = as_usual
    monkeypatch.setattr(groups, "is_in_order", lambda x: False)
    with pytest.raises(RuntimeError, match="cannot wait"):
        reductions.note_usual(known[0][0], known[0][2].usual)


def test_if_the_launch_of_a_usual_group_fails_each_is_reduced_alone(as_usual, monkeypatch):
    def failing(*_):
        raise RuntimeError("no launch")

    reductions, known = as_usual
    noted = [reductions.note_usual(x, habit.usual) for x, _, habit in known]
    monkeypatch.setattr(launches.GroupPlan, "run", failing)
    reductions.flush()
    norms = to_statistics([one.moments for one in noted])["norm"]
    wanted = [float(x.double().norm()) for x, _, _ in known]
    assert norms.tolist() == pytest.approx(wanted, rel=1e-9)
    assert not groups.can_be_grouped(known[0][0])


def test_a_traced_model_has_the_numbers_of_autograd_at_every_step(monkeypatch, tmp_path):
    monkeypatch.setattr(groups, "_without_groups", set())
    monkeypatch.setattr(groups, "_is_on_gpu", lambda x: x.layout is torch.strided)
    monkeypatch.setattr(groups, "is_in_order", lambda x: True)
    torch.manual_seed(0)
    model = Residual()
    wanted = {"activations": [], "gradients": []}

    def keep(module, args, output):
        wanted["activations"].append(output.detach().double().norm().item())
        output.register_hook(lambda g: wanted["gradients"].append(g.double().norm().item()))

    model.convolution.register_forward_hook(keep)
    at_input, noted = [], []
    original = Reductions().note_usual.__func__
    monkeypatch.setattr(
        UsualReductions, "note", lambda *a: noted.append(a[1].shape) or original(*a)
    )
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        for _ in range(4):
            x = torch.randn(2, 3, 3, 2).to(memory_format=torch.channels_last)
            model(x, at_input).square().mean().backward()
            tracer.step()
    run = gradflow.open_run(tmp_path / "run")
    for table, norms in wanted.items():
        rows = getattr(run, table)
        found = rows[rows.layer == "convolution"]["norm"].tolist()
        assert found == pytest.approx(norms, rel=1e-6), table
    found = run.junctions["input_gradient_norm"].tolist()
    assert found == pytest.approx([g.norm().item() for g in at_input], rel=1e-6)
    assert (run.junctions["residual_error"] < 1e-6).all()
    # From the third step on two outputs, and the second gradient of each pass.
    assert len(noted) >= 2 * 3


class Residual(torch.nn.Module):
    """A convolution with a skip, after another."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.convolution = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x, at_input):
        x = self.first(x)
        x.register_hook(at_input.append)
        return x + self.convolution(x)
