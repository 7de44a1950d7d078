"""Steps of wrapped and of several optimizers, beside weights and gradients taken by hand."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import gradflow
from gradflow.errors import TracingError
from gradflow.hooks.updates.known import KnownParameters
from gradflow.hooks.updates.measures.previous_gradients import PreviousGradients
from gradflow.hooks.updates.optimizers import hooked_optimizers
from gradflow.hooks.wrappers import named_parameters


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 4, generator=generator) for _ in range(count)]


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def norms(tensors):
    return {name: float(tensor.double().norm()) for name, tensor in tensors.items()}


class ByHand:
    """What a training's steps did to the parameters of a model, noted beside the tracer."""

    def __init__(self, model):
        self.model = model
        self.gradients, self.updates = [], []
        self._before = weights(model)

    def step_ended(self, gradients):
        after = weights(self.model)
        self.gradients.append(norms(gradients))
        self.updates.append(norms({name: after[name] - self._before[name] for name in after}))
        self._before = after

    def compare(self, folder):
        rows = gradflow.open_run(folder).parameters.set_index(["step", "parameter"])
        assert sorted(set(rows.index.get_level_values("step"))) == list(range(len(self.gradients)))
        for step, (gradients, updates) in enumerate(zip(self.gradients, self.updates, strict=True)):
            for name, value in gradients.items():
                assert rows.gradient_norm[step, name] == pytest.approx(value, rel=1e-5, abs=1e-12)
            for name, value in updates.items():
                assert rows.update_norm[step, name] == pytest.approx(value, rel=1e-4, abs=1e-7)


def gradients_of(model):
    return {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


class Accelerated(torch.optim.Optimizer):
    """As accelerate's: an Optimizer by class, never set up as one, that passes steps on."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


class Owner:
    """As mmengine's OptimWrapper and Lightning's: no Optimizer, holds one and takes its steps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


class Private:
    """As Opacus' DPOptimizer, which calls it the original one."""

    def __init__(self, optimizer):
        self.original_optimizer = optimizer

    def step(self):
        self.original_optimizer.step()

    def zero_grad(self):
        self.original_optimizer.zero_grad()


class Lookahead(torch.optim.Optimizer):
    """Every second step goes halfway back to where the one before the last ended."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        super().__init__(optimizer.param_groups, {})
        self.param_groups = optimizer.param_groups
        self._slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        self._count = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.optimizer.step()
        self._count += 1
        if self._count % 2 == 0:
            fast = [p for group in self.param_groups for p in group["params"]]
            for slow, parameter in zip(self._slow, fast, strict=True):
                slow.lerp_(parameter, 0.5)
                parameter.copy_(slow)


WRAPPERS = {
    "none": lambda one: one,
    "accelerate": Accelerated,
    "twice": lambda one: Accelerated(Accelerated(one)),
    "mmengine": Owner,
    "opacus": Private,
    "lookahead": Lookahead,
    "list": lambda one: one,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_optimizer_ends_steps_and_its_whole_update_is_recorded(tmp_path, name):
    model = network()
    optimizer = WRAPPERS[name](torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    given = [optimizer] if name == "list" else optimizer
    hand = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=given) as tracer:
        for x in batches(4):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            gradients = gradients_of(model)
            optimizer.step()
            hand.step_ended(gradients)
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization in the two calls that its common implementation has."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        self._away = {}
        for group in self.param_groups:
            for p in group["params"]:
                self._away[p] = 0.05 * p.grad / (p.grad.norm() + 1e-12)
                p.add_(self._away[p])
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for p, away in self._away.items():
            p.sub_(away)
        self.base_optimizer.step()
        self.zero_grad()


def test_steps_in_two_calls_end_with_the_base_optimizers(tmp_path):
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    hand = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer) as tracer:
        for x in batches(3):
            model(x).square().mean().backward()
            optimizer.first_step()
            model(x).square().mean().backward()
            gradients = gradients_of(model)
            optimizer.second_step()
            hand.step_ended(gradients)
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    for step, gradients in enumerate(hand.gradients):
        for name, value in gradients.items():
            assert rows.gradient_norm[step, name] == pytest.approx(value, rel=1e-5)


def two(model):
    first, last = model[0], model[2]
    return (
        torch.optim.SGD(first.parameters(), lr=0.1),
        torch.optim.AdamW([{"params": [last.weight]}, {"params": [last.bias], "lr": 0.5}], lr=0.01),
    )


def test_two_optimizers_that_step_together_end_one_step(tmp_path):
    """Muon beside AdamW, or discriminative learning rates: gradients clipped one by one."""
    model = network()
    optimizers = two(model)
    hand = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers) as tracer:
        for x in batches(3):
            model(x).square().mean().backward()
            nn.utils.clip_grad_norm_(model[0].parameters(), 1e-3)
            gradients = gradients_of(model)
            optimizers[0].step()
            optimizers[0].zero_grad()
            # Clipped after the other has stepped: what this one receives is recorded.
            nn.utils.clip_grad_norm_(model[2].parameters(), 1e-4)
            gradients |= {f"2.{name}": value for name, value in gradients_of(model[2]).items()}
            optimizers[1].step()
            optimizers[1].zero_grad()
            hand.step_ended(gradients)
        tracer.end_epoch()
    hand.compare(tmp_path / "run")


def test_optimizers_that_take_turns_end_a_step_each(tmp_path):
    """As a generator and a discriminator in one model: a forward pass lies between their steps."""
    model = network()
    optimizers = two(model)
    hand = ByHand(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=list(optimizers)) as tracer:
        for place, x in enumerate(batches(6)):
            model.zero_grad()
            model(x).square().mean().backward()
            gradients = gradients_of(model)
            optimizers[place % 2].step()
            hand.step_ended(gradients)
        tracer.end_epoch()
    assert len(gradflow.open_run(tmp_path / "run").steps) == 6
    hand.compare(tmp_path / "run")


@pytest.mark.parametrize("schedule", [1, 2])
def test_one_that_steps_twice_as_often(tmp_path, schedule):
    model = network()
    often, seldom = two(model)
    with gradflow.Tracer(
        model, tmp_path / "run", optimizer={"often": often, "seldom": seldom}, schedule=schedule
    ) as tracer:
        for place, x in enumerate(batches(6)):
            model(x).square().mean().backward()
            often.step()
            if place % 2:
                seldom.step()
            model.zero_grad()
        tracer.end_epoch()
        assert tracer.steps == 6
    rows = gradflow.open_run(tmp_path / "run").parameters
    moved = rows[(rows.parameter == "2.weight")].set_index("step").update_norm > 0
    assert [moved[step] for step in range(0, 6, schedule)] == [
        bool(s % 2) for s in range(0, 6, schedule)
    ]


@pytest.mark.parametrize("unused", [False, True])
def test_optimizers_that_step_as_their_gradients_arrive(tmp_path, unused):
    """One for each parameter, which steps within the backward pass and lets go of the gradient."""
    model = network()
    if unused:
        model.extra = nn.Parameter(torch.ones(3))  # its optimizer never steps
    optimizers = {p: torch.optim.Adam([p], lr=0.01) for p in model.parameters()}
    seen = {}

    def update(parameter):
        seen[parameter] = parameter.grad.detach().clone()
        optimizers[parameter].step()
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    hand, layers = ByHand(model), []
    model[0].register_forward_hook(
        lambda module, args, out: (
            out.register_hook(lambda g: layers.append(float(g.norm()))) and None
        )
    )
    with gradflow.Tracer(model, tmp_path / "run", optimizer=list(optimizers.values())) as tracer:
        for x in batches(3):
            model(x).square().mean().backward()
            gradients = {n: seen[p] for n, p in model.named_parameters() if p in seen}
            hand.step_ended(gradients)
        tracer.end_epoch()
    run = gradflow.open_run(tmp_path / "run")
    assert len(run.steps) == 3
    hand.compare(tmp_path / "run")
    first = run.gradients[run.gradients.layer == "0"].norm.tolist()
    assert first == pytest.approx(layers, rel=1e-5)


def test_next_phase_has_an_optimizer_of_its_own(tmp_path):
    """Gradual unfreezing: first the head alone, then everything."""
    model = network()
    model[0].requires_grad_(False)
    head = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=head) as tracer:
        for phase in range(2):
            for x in batches(2, seed=phase):
                model(x).square().mean().backward()
                head.step()
                head.zero_grad()
            tracer.end_epoch()
            if phase == 0:
                model[0].requires_grad_(True)
                head = torch.optim.Adam(model.parameters(), lr=0.01)
                tracer.use_optimizer(head)
    run = gradflow.open_run(tmp_path / "run")
    assert list(run.epochs.step) == [1, 3]
    rows = run.parameters.set_index(["step", "parameter"])
    assert set(rows.loc[0].index) == {"2.weight", "2.bias"}
    assert set(rows.loc[2].index) == set(dict(model.named_parameters()))
    assert (rows.optimizer[0, "2.weight"], rows.optimizer[2, "2.weight"]) == ("SGD", "Adam")


def test_each_parameter_says_where_it_is_updated_and_how_fast(tmp_path):
    model = network()
    optimizers = (
        torch.optim.SGD([model[0].weight], lr=0.1),
        torch.optim.SGD(
            [{"params": [model[2].weight]}, {"params": [model[2].bias], "lr": 0.5}], 0.2
        ),
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizers[0], 1, gamma=0.5)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers) as tracer:
        for x in batches(2):
            model(x).square().mean().backward()
            for one in optimizers:
                one.step()
            model.zero_grad()
            scheduler.step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters
    places = rows.set_index(["step", "parameter"])[["optimizer", "group", "learning_rate"]]
    assert tuple(places.loc[0, "0.weight"]) == ("SGD", 0, 0.1)
    assert tuple(places.loc[1, "0.weight"]) == ("SGD", 0, 0.05)
    assert tuple(places.loc[1, "2.weight"]) == ("SGD#2", 0, 0.2)
    assert tuple(places.loc[1, "2.bias"]) == ("SGD#2", 1, 0.5)
    # No optimizer has it: it is there with its gradient, and never moves.
    assert places.loc[1, "0.bias"].optimizer == "none"
    assert places.loc[1, "0.bias"][["group", "learning_rate"]].isna().all()
    assert rows[rows.parameter == "0.bias"].update_norm.tolist() == [0, 0]
    assert (rows[rows.parameter == "0.bias"].gradient_norm > 0).all()


@pytest.mark.parametrize("turns", [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 1, 1]])
def test_the_learning_rate_is_that_of_the_step_though_a_scheduler_follows_it(tmp_path, turns):
    """The step of one of two ends at the next forward pass: its scheduler has stepped by then."""
    model = network()
    optimizers = two(model)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(one, 0.5) for one in optimizers]
    used = []
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers) as tracer:
        for turn, x in zip(turns, batches(4), strict=True):
            model.zero_grad()
            model(x).square().mean().backward()
            used.append(optimizers[turn].param_groups[0]["lr"])
            optimizers[turn].step()
            schedulers[turn].step()
        tracer.end_epoch()
    rows = gradflow.open_run(tmp_path / "run").parameters.set_index(["step", "parameter"])
    found = [rows.learning_rate[s, f"{2 * turn}.weight"] for s, turn in enumerate(turns)]
    assert found == used


@pytest.mark.parametrize("fails_in", ["closure", "step"])
def test_after_a_step_that_failed_a_forward_pass_ends_the_next_one(tmp_path, fails_in):
    model = network()
    optimizers = two(model)

    def fail(*_):
        raise ValueError("a bad batch")

    first, second = batches(2)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizers) as tracer:
        model(first).square().mean().backward()
        optimizers[1].step()
        if fails_in == "step":
            hook = optimizers[0].register_step_pre_hook(fail)
        with pytest.raises(ValueError, match="bad batch"):
            optimizers[0].step(fail if fails_in == "closure" else None)
        if fails_in == "step":
            hook.remove()
        assert tracer.steps == 0
        model(second)
        assert tracer.steps == 1


def test_a_forward_pass_in_a_closure_ends_no_step(tmp_path):
    model = network()
    first, last = two(model)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[first, last]) as tracer:
        for x in batches(3):

            def closure(x=x):
                model.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            first.step(closure)
            last.step(closure)
        tracer.end_epoch()
        assert tracer.steps == 3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_steps_far_from_a_recorded_one_look_at_no_parameter(tmp_path, monkeypatch, count):
    """Neither they nor the step after them is recorded: in a large model the looking costs."""
    model, looked = network(), []
    parameters = list(model.parameters())
    optimizers = [torch.optim.SGD(parameters[k::count], lr=0.1) for k in range(count)]
    tracer = gradflow.Tracer(
        model, tmp_path / "run", optimizer=optimizers, schedule=lambda step: step in (0, 1, 5)
    )
    for path, original in (
        ("optimizers.named_parameters", named_parameters),
        ("known.named_parameters", named_parameters),
        ("known.KnownParameters.look_up", KnownParameters.look_up),
        ("parameters.PreviousGradients.measure", PreviousGradients.measure),
    ):

        def looking(*given, original=original, **options):
            looked.append(tracer.steps)
            return original(*given, **options)

        monkeypatch.setattr(f"gradflow.hooks.updates.{path}", looking)
    gradients = []
    with tracer:
        for x in batches(8):
            model.zero_grad()
            model(x).square().mean().backward()
            gradients.append(model[0].weight.grad.clone().flatten())
            for one in optimizers:
                one.step()
        tracer.end_epoch()
    assert set(looked) == {0, 1, 4, 5}
    rows = gradflow.open_run(tmp_path / "run").parameters
    found = rows[rows.parameter == "0.weight"].set_index("step").gradient_cosine
    assert math.isnan(found[0])
    for step in (1, 5):
        expected = torch.cosine_similarity(gradients[step - 1], gradients[step], dim=0)
        assert found[step] == pytest.approx(float(expected), rel=1e-5)


def test_without_an_optimizer_it_is_not_said_where_parameters_are_updated(tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run") as tracer:
        model(batches(1)[0]).square().mean().backward()
        tracer.step()
        tracer.end_epoch()
    places = gradflow.open_run(tmp_path / "run").parameters
    assert places[["optimizer", "group", "learning_rate"]].isna().all(axis=None)


def test_what_leads_to_no_optimizer_is_refused_in_a_sentence(tmp_path):
    for given, said in ((object(), "object is no torch optimizer"), ([], "optimizer= is empty")):
        with pytest.raises(TracingError, match=said):
            gradflow.Tracer(network(), tmp_path / "run", optimizer=given)
    assert not (tmp_path / "run").exists()


def test_a_wrapper_that_wraps_itself_is_looked_into_once():
    wrapper = Owner(None)
    wrapper.optimizer = wrapper
    with pytest.raises(TracingError):
        hooked_optimizers(wrapper)


def test_hooks_come_off_all_of_them(tmp_path):
    model = network()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = Lookahead(inner)
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[outer, other]):
        pass
    for one in (inner, outer, other):
        assert not one._optimizer_step_pre_hooks
        assert not one._optimizer_step_post_hooks
    assert not model._forward_pre_hooks


def test_a_model_with_several_optimizers_can_be_copied_while_it_is_traced(tmp_path):
    model = network()
    with gradflow.Tracer(model, tmp_path / "run", optimizer=two(model)) as tracer:
        twin = copy.deepcopy(model)
        twin(batches(1)[0]).sum().backward()
        pickle.loads(pickle.dumps(model))(batches(1)[0])
        assert tracer.steps == 0


@pytest.mark.parametrize("between", ["paused", "without gradients"])
def test_a_pass_that_is_no_part_of_the_step_does_not_end_it(tmp_path, between):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    both = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]
    x = torch.ones(5, 3)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=both) as tracer:
        for _ in range(4):
            model.zero_grad()
            model(x).square().sum().backward()
            both[0].step()
            with tracer.paused() if between == "paused" else torch.no_grad():
                model(x)
            both[1].step()
        assert tracer.steps == 4
    updates = gradflow.open_run(tmp_path / "run").parameters.update_norm
    assert len(updates) == 16
    assert (updates > 0).all()


def test_a_closure_may_say_that_a_pass_begins(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.LBFGS(model[1].parameters(), max_iter=2)
    with gradflow.Tracer(model, tmp_path / "run", optimizer=[first, second]) as tracer:
        for _ in range(4):
            x = torch.randn(8, 4)

            def closure(x=x):
                model.zero_grad()
                tracer.begin_pass()
                loss = model[1](model[0](x)).square().mean()
                loss.backward()
                return loss

            closure()
            first.step()
            second.step(closure)
        assert tracer.steps == 4
    assert (gradflow.open_run(tmp_path / "run").parameters.update_norm > 0).all()
