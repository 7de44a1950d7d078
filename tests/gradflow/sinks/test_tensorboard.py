"""Event files, read back by TensorBoard itself."""

import subprocess
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import gradflow
from gradflow.errors import ConfigurationError
from gradflow.sinks import TensorBoard, libraries
from gradflow.sinks.sink import SinkRun


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder):
    found = read(folder)
    return {
        (tag, event.step): event.value
        for tag in found.Tags()["scalars"]
        for event in found.Scalars(tag)
    }


def test_scalars_are_those_of_the_run_in_single_precision(train, expected, tmp_path):
    run, _ = train(TensorBoard(tmp_path / "logs", quantities=["gradient_norm", "step_skipped"]))
    known = expected(run, "gradients", "norm", "gradient_norm")
    known |= expected(run, "steps", "skipped", "step_skipped", "")
    assert scalars(tmp_path / "logs") == pytest.approx(known, rel=1e-6)
    assert run.description["sinks"][0]["place"] == str(tmp_path / "logs")


def test_histograms_have_the_counts_of_the_run_over_powers_of_two(train):
    run, _ = train(TensorBoard(quantities="*_magnitudes"), histograms=2)
    found = read(run.folder / "tensorboard")
    frame = run.gradient_histograms
    checked = 0
    for layer in frame.layer.unique():
        events = {
            one.step: one for one in found.Histograms(f"gradflow/gradient_magnitudes/{layer}")
        }
        for row in frame[frame.layer == layer].itertuples():
            if not len(row.counts):
                continue
            drawn = events[row.step].histogram_value
            lowest = int(row.lowest_exponent)
            assert list(drawn.bucket) == [0, *row.counts]
            assert list(drawn.bucket_limit) == list(range(lowest, lowest + len(row.counts) + 1))
            assert drawn.num == sum(row.counts)
            checked += 1
    assert checked >= 6


def test_a_run_that_goes_on_takes_the_place_of_the_steps_recorded_again(tmp_path):
    for first, value in ((0, 1.0), (3, 2.0)):
        sink = TensorBoard(tmp_path / "logs")
        sink.open(SinkRun(tmp_path, first_step=first))
        for step in range(first, first + 5):
            sink.write(step, {"gradflow/a": value}, {})
        sink.close()
    assert scalars(tmp_path / "logs") == {
        ("gradflow/a", step): 1.0 if step < 3 else 2.0 for step in range(8)
    }


def test_a_file_begun_in_the_second_of_another_has_the_later_name(tmp_path):
    other = tmp_path / f"events.out.tfevents.{int(time.time()):010d}.zebra.9.9.gradflow"
    other.touch()
    sink = TensorBoard(tmp_path)
    sink.open(SinkRun(tmp_path))
    sink.close()
    assert sorted(tmp_path.iterdir())[0] == other


def test_a_training_that_was_interrupted_and_goes_on_has_each_step_once(tmp_path):
    def trained(epochs, state=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sinks = [TensorBoard(quantities="step_gradient_norm")]
        with gradflow.Tracer(
            model, tmp_path / "run", optimizer=optimizer, sinks=sinks, resume=state
        ) as tracer:
            for _ in range(epochs):
                for _ in range(3):
                    optimizer.zero_grad()
                    model(torch.randn(3, 4)).square().sum().backward()
                    optimizer.step()
                tracer.end_epoch()
                state = state or tracer.state_dict()
        return state

    # Steps 3 to 5 are recorded again from the state after the first epoch.
    state = trained(2)
    trained(2, state)
    run = gradflow.open_run(tmp_path / "run")
    events = read(run.folder / "tensorboard").Scalars("gradflow/step_gradient_norm")
    assert [one.step for one in events] == list(run.steps.step) == list(range(9))
    assert [one.value for one in events] == pytest.approx(list(run.steps.gradient_norm), rel=1e-6)


def test_a_folder_that_cannot_be_made_is_reported_and_the_training_goes_on(train, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="file/logs cannot be made: Not a directory"):
        run, _ = train(TensorBoard(tmp_path / "file" / "logs"))
    assert run.description["status"] == "complete"


def test_event_files_are_written_without_torch(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom gradflow.sinks import TensorBoard\n"
        "from gradflow.sinks.sink import SinkRun\n"
        f"sink = TensorBoard()\nsink.open(SinkRun(Path({str(tmp_path)!r})))\n"
        "sink.write(3, {'a': 0.5}, {})\nsink.close()\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "False\n", done.stderr
    assert scalars(tmp_path / "tensorboard") == {("a", 3): 0.5}


def test_a_library_that_is_missing_or_too_old_is_named_with_the_version_needed(monkeypatch):
    monkeypatch.setattr(libraries, "version", lambda name: "2.9.1")
    with pytest.raises(ConfigurationError, match=r"tensorboard 2\.9\.1 is installed, and 2\.18"):
        TensorBoard()
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"not installed, and 2\.18 or newer is needed"):
        TensorBoard()
