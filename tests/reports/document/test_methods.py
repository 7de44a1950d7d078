"""The methods section: cost, split, device, versions, and the command to train again."""

import shlex

import pytest
import tyro

from gradflow.runs.reading.run import open_experiment
from gradflow.runs.writing.run import RunWriter
from gradflow.training.configuration import Configuration
from reports.document.methods import methods_of


def methods(tmp_path, epochs=(), costs=None, **description):
    writer = RunWriter(tmp_path / "mine", {"network": "plain34", "seed": 3, **description})
    for number, scalars in enumerate(epochs, start=1):
        row = {"epoch": [number], "step": [10 * number - 1]}
        writer.append("epochs", row | {k: [v] for k, v in scalars.items()}, 10 * number - 10, 0)
    if costs:
        columns = {"epoch": [1], "probe": ["lesions"], "seconds": [costs], "skipped": [None]}
        writer.append("probe_costs", columns, 0, 9)
    writer.close("complete")
    return {part.heading: part.text for part in methods_of(open_experiment(tmp_path / "mine"))}


def test_cost_is_the_ratio_of_recorded_to_other_steps_by_epoch(tmp_path):
    epochs = [
        {"seconds": 10.0, "recorded_step_seconds": 0.3, "other_step_seconds": 0.2},
        {"seconds": 10.0, "recorded_step_seconds": 0.25, "other_step_seconds": 0.2},
        {"seconds": 10.0, "recorded_step_seconds": 0.36, "other_step_seconds": 0.2},
    ]
    assert methods(tmp_path, epochs, costs=3.0)["Cost of recording"] == (
        "A recorded step of plain34 took 1.5 times as long as the others "
        "(median over 3 epochs, 1.25 to 1.8) and probes at the ends of epochs took 10.0 % on top."
    )


@pytest.mark.parametrize(
    "scalars", [{}, {"recorded_step_seconds": 0.3, "other_step_seconds": None}]
)
def test_unmeasured_cost_is_reported_as_such(tmp_path, scalars):
    text = methods(tmp_path, [scalars])["Cost of recording"]
    assert text == "How much longer recorded steps took was not measured in these runs."


@pytest.mark.parametrize(
    ("computation", "text"),
    [
        ({"precision": "bf16", "loss_scaling": False}, "Precision bf16."),
        (
            {
                "precision": "fp16",
                "loss_scaling": True,
                "memory_format": "channels_last",
                "compiled": True,
            },
            "Precision fp16 with a scaled loss, images and weights with the channels last in "
            "memory and steps that are not recorded compiled.",
        ),
        ({"precision": "float32", "memory_format": "contiguous", "compiled": False}, None),
        ("damaged", None),
        ({"precision": ["bf16"]}, "Precision bf16."),
    ],
)
def test_how_the_training_computed_is_said_where_it_is_not_the_usual(tmp_path, computation, text):
    assert methods(tmp_path, computation=computation).get("Computation") == text


def test_only_the_command_is_to_be_copied(tmp_path):
    writer = RunWriter(tmp_path / "mine", {"configuration": Configuration().as_json()})
    writer.close("complete")
    parts = methods_of(open_experiment(tmp_path / "mine"))
    assert [part.heading for part in parts if part.is_command] == ["To train this again"]


def test_split_says_how_many_images_are_distinct_and_how_many_contradict(tmp_path):
    images = {"all": 1225, "distinct": 771, "training": 980, "validation": 245}
    conflicts = {"under_several_labels": [["a", "b"]]}
    assert methods(tmp_path, images=images | conflicts)["Images and split"] == (
        "Of 1,225 images, 771 of them distinct, 980 train and 245 validate, drawn class by class "
        "with the run's seed; all copies of an image are in the same subset. "
        "1 image appeared under several labels."
    )


def test_a_split_of_the_data_is_not_said_to_be_drawn(tmp_path):
    images = {"all": 10, "distinct": 10, "training": 8, "validation": 2, "own_split": True}
    assert methods(tmp_path, images=images)["Images and split"] == (
        "Of 10 images, 10 of them distinct, 8 train and 2 validate, as the data themselves are "
        "split."
    )


def test_device_and_versions_are_given(tmp_path):
    told = methods(tmp_path, versions={"torch": "2.6"}, device="cpu", threads=1)
    assert told["Software and device"] == "torch 2.6, device cpu with 1 thread."


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(),
        Configuration(
            data="my images/it's", models=("plain20",), seeds=(1, 2), augment=False, image_size=16,
            shortcut="A", probes=("none",), checkpoints="every", recalibrate=False,
        ),
    ],
)  # fmt: skip
def test_command_gives_the_recorded_configuration_again(tmp_path, configuration):
    recorded = configuration.as_json() | {"optimizer": "Adam"}
    command = methods(tmp_path, configuration=recorded)["To train this again"]
    program = ["python", "-m", "gradflow.train_and_trace"]
    assert shlex.split(command)[:3] == program
    assert tyro.cli(Configuration, args=shlex.split(command)[3:]) == configuration


def test_run_of_a_custom_loop_has_no_command(tmp_path):
    assert "To train this again" not in methods(tmp_path, configuration={"lr": 0.1})
