"""What the callback records of a Learner's training, beside the same training as a plain loop."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import gradflow

fastai = pytest.importorskip("fastai.learner")
optimizers = pytest.importorskip("fastai.optimizer")
pytestmark = pytest.mark.filterwarnings("ignore")


def callback(folder, **options):
    from gradflow.integrations.fastai import GradflowCallback  # noqa: PLC0415

    return GradflowCallback(folder, **options)


def learner(tmp_path, network, examples, cbs, optimizer=None):
    core = pytest.importorskip("fastai.data.core")
    data = core.DataLoaders(DataLoader(examples, 4), DataLoader(examples, 4))

    def by_torch(parameters, lr, **_):
        return optimizers.OptimWrapper(parameters, torch.optim.SGD, lr=lr)

    made = fastai.Learner(
        data, network, loss_func=nn.CrossEntropyLoss(), path=tmp_path, cbs=cbs,
        opt_func=optimizer or by_torch, wd=0.0, train_bn=False,
    )  # fmt: skip
    made.remove_cb(pytest.importorskip("fastai.callback.progress").ProgressCallback)
    return made


@pytest.mark.parametrize("kind", ["torch", "fastai", "accumulated"])
def test_rows_and_weights_are_those_of_a_plain_loop(
    tmp_path, make_network, examples, assert_same_run, assert_same_weights, noting, kind
):
    network, by_hand, untraced = make_network(), make_network(), make_network()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    given = {"optimizer": optimizer} if kind != "fastai" else {}
    accumulate = 2 if kind == "accumulated" else 1
    more = pytest.importorskip("fastai.callback.training")

    def clipped():
        # The first counts examples.
        return [more.GradientAccumulation(8), more.GradientClip(0.05)] if accumulate > 1 else []

    torch.manual_seed(5)
    with gradflow.Tracer(by_hand, tmp_path / "plain", **given) as tracer:
        for _ in range(3):
            by_hand.train()
            for place, (inputs, targets) in enumerate(DataLoader(examples, 4), start=1):
                loss = nn.functional.cross_entropy(by_hand(inputs), targets)
                tracer.log(loss=loss)
                (loss / accumulate).backward()
                if place % accumulate:
                    continue
                if accumulate > 1:
                    nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05)
                optimizer.step()
                if kind == "fastai":
                    tracer.step()
                optimizer.zero_grad()
            by_hand.eval()
            [inputs for inputs, _ in DataLoader(examples, 4)]  # draws a seed, as the evaluation
            tracer.end_epoch()
    made = [
        learner(tmp_path, model, examples, cbs, optimizers.SGD if kind == "fastai" else None)
        for model, cbs in (
            (network, [callback(tmp_path / "run", sinks=[noting]), *clipped()]),
            (untraced, clipped()),
        )
    ]
    for one in made:
        torch.manual_seed(5)
        with one.no_logging():
            one.fit(2, 0.1)
            one.fit(1, 0.1)  # goes on with the run
    assert_same_weights(network, untraced)
    assert_same_weights(network, by_hand)
    assert [("gradflow/step_gradient_norm", step) for step in range(18 // accumulate)] == [
        one for one in noting.seen if one[0] == "gradflow/step_gradient_norm"
    ]
    run = gradflow.open_run(tmp_path / "run")
    assert_same_run(run, gradflow.open_run(tmp_path / "plain"))
    assert (run.steps.clipping_factor < 1).any() == (accumulate > 1)
    assert run.epochs[["train_loss", "val_loss"]].notna().all(axis=None)
    assert run.description["status"] == "complete"


def test_a_search_for_the_learning_rate_is_not_recorded(tmp_path, make_network, examples):
    pytest.importorskip("fastai.callback.schedule")
    ours = callback(tmp_path / "run")
    made = learner(tmp_path, make_network(), examples, [ours])
    with made.no_logging():
        made.lr_find(num_it=5, show_plot=False)
        assert not (tmp_path / "run").exists()
        made.fit(1, 0.1)
    assert len(gradflow.open_run(tmp_path / "run").steps) == 6


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("mine"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_learner_that_fails_keeps_its_error_and_its_rows(
    tmp_path, make_network, examples, error, status
):
    class Fails(fastai.Callback):
        def before_batch(self):
            if self.training and self.train_iter == 8:
                raise error

    ours = callback(tmp_path / "run")
    made = learner(tmp_path, make_network(), examples, [ours, Fails()])
    with pytest.raises(type(error)) as caught, ours, made.no_logging():
        made.fit(2, 0.1)
    assert caught.value is error
    run = gradflow.open_run(tmp_path / "run")
    assert run.description["status"] == status
    assert len(run.steps) == 8


def test_a_restart_goes_on_with_the_run(tmp_path, make_network, examples, assert_same_run):
    def made(ours, network):
        network[1].inner[2].p = 0.0
        return learner(tmp_path, network, examples, [ours])

    whole, first, second = (callback(tmp_path / name) for name in ("whole", "run", "run"))
    network = make_network()
    with (once := made(whole, make_network())).no_logging():
        once.fit(3, 0.1)
    with (stopped := made(first, network)).no_logging():
        stopped.fit(2, 0.1)
    kept = first.state_dict()
    second.load_state_dict(kept)
    with (resumed := made(second, network)).no_logging():
        resumed.fit(1, 0.1)
    run = gradflow.open_run(tmp_path / "run")
    assert_same_run(run, gradflow.open_run(tmp_path / "whole"))
    assert run.description["resumed"][0]["step"] == 12
