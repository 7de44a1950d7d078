"""What is noted of a model that changes."""

from gradflow.hooks.observation.changes import ModelChanges


def test_names_that_come_and_go_are_noted_with_the_step():
    changes = ModelChanges(["a", "b"], ["a.weight"])
    assert not changes.note(3, ["a", "b"], ["a.weight"])
    assert changes.note(4, ["c", "b"], ["a.weight", "c.weight"])
    assert changes.note(9, ["c"], ["a.weight", "c.weight"])
    assert changes.entries == [
        {
            "step": 4,
            "layers_added": ["c"],
            "layers_removed": ["a"],
            "parameters_added": ["c.weight"],
        },
        {"step": 9, "layers_removed": ["b"]},
    ]


def test_a_model_that_changes_at_every_step_does_not_fill_the_description():
    changes = ModelChanges([], [])
    noted = [changes.note(step, [str(step)], []) for step in range(300)]
    assert sum(noted) == len(changes.entries) == 100
