"""The example notebook, executed: the widget has the recorded numbers; text is shown without it."""

import base64
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gradflow

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE = ROOT / "examples" / "live.ipynb"
BLOCK = 16

# The same training without a tracer, from the same seed.
PLAIN = """
traced = {name: one.clone() for name, one in model.state_dict().items()}
torch.manual_seed(0)
model = nn.Sequential(
    *[layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Sigmoid())], nn.Linear(64, 10)
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for _ in range(8):
    for batch in torch.randperm(len(images)).split(64):
        loss = nn.functional.cross_entropy(model(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(all(torch.equal(one, traced[name]) for name, one in model.state_dict().items()))
"""
TRAIN_TWO_STEPS = """
    for _ in range(2):
        optimizer.zero_grad()
        model(images[:8]).square().mean().backward()
        optimizer.step()
    tracer.end_epoch(train_loss=0.25)
"""
WITHOUT_ANYWIDGET = f"""
import importlib.metadata, gradflow.sinks.notebook.screen as screen
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
screen.version = version
with gradflow.Tracer(model, "runs/text", optimizer=optimizer) as tracer:
    tracer.live("activation_rms"){TRAIN_TWO_STEPS}
"""
FAILING = f"""
import warnings, gradflow.sinks.notebook.sink as sink
def failing():
    raise RuntimeError("no front end")
sink.screen = failing
tracer = gradflow.Tracer(model, "runs/failing", optimizer=optimizer)
tracer.live()
with warnings.catch_warnings(record=True) as said, tracer:
    warnings.simplefilter("always"){TRAIN_TWO_STEPS}
print(len(said), said[0].message)
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The executed cells, the widgets' states by id, and the folder."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for needed in ("ipykernel", "anywidget"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(EXAMPLE, as_version=4)
    notebook.cells += map(nbformat.v4.new_code_cell, (PLAIN, WITHOUT_ANYWIDGET, FAILING))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("OMP_NUM_THREADS", "1")
        client = nbclient.NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return [one for one in notebook.cells if one.cell_type == "code"], client, folder


def run_in(folder):
    (found,) = (folder / "runs").glob("live-*")
    return gradflow.open_run(found)


def view_of(client):
    (found,) = ((model, state) for model, state in client.widget_state.items() if "names" in state)
    return found


def numbers_of(client):
    """What the widget holds as a frame, moments by row; the row "" is the total."""
    model, state = view_of(client)
    names, columns = ["", *state["names"]], state["columns"]
    buffers = {
        ".".join(one["path"]): base64.b64decode(one["data"])
        for one in client.widget_buffers[model].values()
    }
    logs = np.concatenate(
        [
            np.frombuffer(buffers[f"block{place}"], dtype="<f4").reshape(-1, len(names))
            for place in range(-(-len(columns) // BLOCK))
        ]
    )
    assert len(logs) == len(columns)
    return pd.DataFrame(10.0 ** logs.astype(float), [tuple(one[:2]) for one in columns], names)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestExample:
    def test_the_widget_is_displayed_below_the_cell(self, executed):
        cells, client, _ = executed
        model, _ = view_of(client)
        (output,) = cells[1].outputs
        assert output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == model
        assert "gradient_norm by layer and step" in output["data"]["text/plain"]

    def test_its_numbers_are_those_of_the_run(self, executed):
        _, client, folder = executed
        run = run_in(folder)
        got = numbers_of(client)
        recorded = run.gradients.pivot_table("norm", "step", "layer")
        assert list(got.columns[1:]) == [str(place) for place in range(13)]
        # 232 steps are more than the columns there may be: pairs of them are one.
        expected = recorded.groupby(recorded.index // 2).mean()[got.columns[1:]]
        assert len(got) == len(expected) == 116
        assert [*got.index] == [(step, step + 1) for step in range(0, 232, 2)]
        np.testing.assert_allclose(got[got.columns[1:]], expected, rtol=1e-5)
        total = run.steps.gradient_norm.groupby(run.steps.step // 2).mean()
        np.testing.assert_allclose(got[""], total, rtol=1e-5)

    def test_curve_worst_layer_and_end_are_those_of_the_run(self, executed):
        _, client, folder = executed
        run = run_in(folder)
        _, state = view_of(client)
        assert state["curves"] == {
            "train_loss": [list(one) for one in run.epochs[["step", "train_loss"]].to_numpy()]
        }
        last = run.gradients[run.gradients.step >= 232 - 16].groupby("layer").norm.mean()
        farthest = np.log(last / last.median()).abs().idxmax()
        assert state["worst"][0] == farthest
        assert "the median of all layers" in state["worst"][1]
        assert state["last"] == [231, 8, 1]

    def test_weights_are_bit_for_bit_those_without_the_view(self, executed):
        cells, _, _ = executed
        assert cells[3].outputs[0]["text"] == "True\n"

    def test_run_json_does_not_name_it(self, executed):
        _, _, folder = executed
        assert "sinks" not in run_in(folder).description

    def test_without_anywidget_a_line_of_text_is_renewed(self, executed):
        cells, _, _ = executed
        (output,) = cells[4].outputs
        line, hint = output["data"]["text/plain"].splitlines()
        assert line.startswith("gradflow: step 1, epoch 1 | train_loss 0.25 | activation_rms ")
        assert " | worst layer " in line
        assert "anywidget is not installed" in hint

    def test_a_display_that_fails_is_said_once_and_the_training_goes_on(self, executed):
        cells, _, folder = executed
        (output,) = cells[5].outputs
        assert output["text"].startswith("1 gradflow: nothing more is sent to notebook")
        assert "RuntimeError: no front end" in output["text"]
        run = gradflow.open_run(folder / "runs" / "failing")
        assert len(run.steps) == 2
        assert run.description["status"] == "complete"
