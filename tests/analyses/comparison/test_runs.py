"""Two runs of anything: layers aligned, planted changes found, nothing found where nothing is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from analyses.comparison.alignment import align_layers
from analyses.comparison.measure import Margins, adjusted_p_values, run_changes
from analyses.comparison.runs import compare_runs, run_names
from analyses.reading.options import configuration_differences
from analyses.result import Verdict
from gradflow.errors import RunError
from gradflow.runs.format.schema import TABLES
from gradflow.runs.reading.run import Run

STEPS = 120
NAMES = ("encoder.0", "encoder.1", "encoder.2", "head")


def layer_table(names, roles=None):
    return pd.DataFrame(
        {
            "layer": list(names),
            "type": "Linear",
            "depth": range(1, len(names) + 1),
            "stage": 0,
            "role": roles or ["linear"] * len(names),
            "shape": "32",
            "parameters": 100,
        }
    )


def rows(names, key, generator, **quantities):
    """One row per step and name; each quantity exp(noise) times its planted factors by name."""
    frames = []
    for name in names:
        # Lag-one autocorrelation 0.5, as steps of a training may have.
        noise = lfilter([0.75**0.5], [1.0, -0.5], generator.standard_normal(STEPS))
        columns = {
            quantity: np.exp(0.2 * noise) * factors.get(name, 1.0)
            for quantity, factors in quantities.items()
        }
        steps = np.arange(STEPS)
        frames.append(pd.DataFrame({"epoch": 1 + steps // 40, "step": steps, key: name, **columns}))
    return pd.concat(frames, ignore_index=True)


def traced(number, names=NAMES, factors=None, folder="a", roles=None, **description):
    """A run of imported hooks: no seed, no accuracy, no predictions."""
    generator = np.random.default_rng(number)
    factors = factors or {}
    weights = [f"{name}.weight" for name in names]
    parameters = {quantity: {} for quantity in ("weight_norm", "gradient_norm", "update_to_weight")}
    empty = {"nonfinite": 0, "dead_channels": 0, "zero_fraction": 0.5, "batch_size": 16}
    epochs = {"epoch": [1, 2, 3], "step": [39, 79, 119], "train_loss": [3.0, 2.0, 1.0 + number]}
    tables = {
        "layers": layer_table(names, roles),
        "activations": rows(names, "layer", generator, rms={}).assign(**empty),
        "gradients": rows(names, "layer", generator, rms=factors).assign(**empty),
        "parameters": rows(weights, "parameter", generator, **parameters),
        "epochs": pd.DataFrame(epochs),
    }
    nothing = {
        table.name: pd.DataFrame({quantity.name: [] for quantity in table.columns})
        for table in TABLES.values()
    }
    return Run(Path(folder), description, nothing | tables)


def tables_of(result):
    return {table.key: table.frame for table in result.tables}


def test_a_factor_planted_at_one_layer_is_found_and_ranked_first():
    first = traced(1, folder="plain")
    second = traced(2, factors={"encoder.1": 3.0}, folder="changed")
    result = compare_runs(first, second)
    (finding,) = result.findings
    assert finding.verdict is Verdict.SUPPORTED
    assert finding.estimates[0].name.startswith("gradient rms at encoder.1")
    assert finding.estimates[0].low < 3.0 < finding.estimates[0].high
    assert "1 of 20" in finding.meaning
    top = tables_of(result)["ratios"]
    assert top["layer"].tolist() == ["encoder.1"]
    expected = "changed over plain: gradient rms changed at 1 of 4 layers or parameters"
    assert expected in result.figures[0].title
    result.figures[0].draw()


def test_two_runs_of_one_process_fire_at_most_at_the_nominal_rate():
    strictest, fired = Margins(ratio=1.0, fraction=0.0), []
    for trial in range(10):
        first, second = traced(2 * trial), traced(2 * trial + 1)
        alignment = align_layers(first, second)
        assert not run_changes(first, second, alignment)["changed"].any()
        fired.append(bool(run_changes(first, second, alignment, strictest)["changed"].any()))
    # 10 pairs: 0.05 and two standard errors.
    assert np.mean(fired) <= 0.05 + 2 * (0.05 * 0.95 / 10) ** 0.5


def test_alike_runs_are_called_alike_where_their_intervals_say_so():
    (finding,) = compare_runs(traced(1), traced(2)).findings
    assert finding.verdict is Verdict.CONTRADICTED
    narrow = compare_runs(traced(1), traced(2), Margins(ratio=1.001, alpha=0.001))
    assert narrow.findings[0].verdict is Verdict.INCONCLUSIVE


def test_a_run_compared_with_itself_does_not_differ():
    (finding,) = compare_runs(traced(1), traced(1)).findings
    assert finding.verdict is Verdict.CONTRADICTED
    assert "0 of 20" in finding.meaning


def test_layers_of_other_names_are_aligned_by_role_and_depth():
    second = traced(2, ("body.a", "encoder.1", "body.c", "head"), {"body.c": 4.0}, "b")
    alignment = align_layers(traced(1), second)
    assert alignment.partners == {
        "encoder.0": "body.a",
        "encoder.1": "encoder.1",
        "encoder.2": "body.c",
        "head": "head",
    }
    result = compare_runs(traced(1), second)
    assert tables_of(result)["ratios"]["layer"].tolist() == ["encoder.2"]
    assert "2 layers aligned by name, 2 by role and depth" in result.summary
    shown = tables_of(result)["alignment"]
    assert ["encoder.2", "body.c"] in shown[["a", "b"]].to_numpy().tolist()


def test_the_same_name_in_another_role_is_no_partner():
    first = traced(1, ("0", "1"), roles=["linear", "activation"])
    second = traced(2, ("0", "1"), roles=["activation", "linear"])
    alignment = align_layers(first, second)
    assert alignment.partners == {}
    assert alignment.unmatched.groupby("run").size().to_dict() == {"first": 2, "second": 2}


def test_layers_without_partner_are_listed():
    result = compare_runs(traced(1, folder="a"), traced(2, NAMES[:3], folder="b"))
    assert "without a partner: 1 of the first run, 0 of the second" in result.summary
    alone = tables_of(result)["alignment"].query("`aligned by` == 'no partner'")
    assert alone["a"].tolist() == ["head"]


def test_many_layers_without_partner_are_listed_by_group():
    names = [f"blocks.{place}.{part}" for place in range(50) for part in ("q", "k")]
    result = compare_runs(
        traced(1, (*NAMES, *names), roles=["linear"] * (len(NAMES) + 100), folder="a"),
        traced(2, NAMES, roles=["linear"] * len(NAMES), folder="b"),
    )
    assert "without a partner: 100 of the first run" in result.summary
    alone = tables_of(result)["alignment"].query("`aligned by` == 'no partner'")
    assert alone["a"].tolist() == ["blocks.*.q (50 layers)", "blocks.*.k (50 layers)"]
    assert alone["b"].tolist() == ["", ""]


def test_many_renamed_layers_are_listed_by_group():
    names = [[f"{model}.{place}" for place in range(70)] for model in ("body", "trunk")]
    roles = ["linear"] * 70
    result = compare_runs(
        traced(1, names[0], roles=roles, folder="a"), traced(2, names[1], roles=roles, folder="b")
    )
    (row,) = tables_of(result)["alignment"].to_dict("records")
    assert (row["a"], row["b"]) == ("body.* (70 layers)", "trunk.* (70 layers)")
    assert row["aligned by"] == "role and depth"


def test_a_quantity_that_vanishes_in_one_run_is_reported():
    first, second = traced(1, folder="a"), traced(2, folder="b")
    dead = second.gradients["layer"] == "encoder.0"
    second._tables["gradients"].loc[dead, "rms"] = 0.0
    result = compare_runs(first, second)
    lost = tables_of(result)["lost"]
    assert lost["layer"].tolist() == ["encoder.0"]
    assert lost["share of steps, b"].tolist() == [1.0]
    assert any("too few usable steps" in caveat for caveat in result.findings[0].caveats)


def test_differences_of_fractions_are_in_points():
    first, second = (traced(number, roles=["activation"] * 4) for number in (1, 2))
    second._tables["activations"]["zero_fraction"] += 0.2
    result = compare_runs(first, second)
    assert tables_of(result)["fractions"]["difference"].tolist() == pytest.approx([20.0] * 4)
    assert "+20.0 points" in result.summary


def test_dead_channels_count_as_a_fraction_of_the_channels():
    first, second = (traced(number, roles=["activation"] * 4) for number in (1, 2))
    second._tables["activations"]["dead_channels"] = 8
    changes = run_changes(first, second, align_layers(first, second))
    dead = changes[changes["quantity"] == "dead channels"]
    assert dead["effect"].tolist() == pytest.approx([8 / 32] * 4)


def test_options_and_scalars_stand_side_by_side():
    options = {"lr": 0.1, "optimizer": {"name": "SGD", "momentum": 0.9}, "out": "x"}
    first = traced(1, folder="a", seed=1, configuration=options)
    other = {"lr": 0.2, "optimizer": {"name": "SGD", "momentum": 0.0}, "out": "y"}
    second = traced(2, folder="b", configuration=other)
    result = compare_runs(first, second)
    assert result.tables[0].key == "options"
    listed = result.tables[0].frame.set_index("option")
    assert listed.loc["lr"].tolist() == ["0.1", "0.2"]
    assert listed.loc["optimizer.momentum"].tolist() == ["0.9", "0.0"]
    assert listed.loc["seed"].tolist() == ["1", "not recorded"]
    assert "out" not in listed.index
    scalars = tables_of(result)["scalars"]
    assert scalars["epoch"].tolist() == [1, 2, 3]
    assert scalars["difference"].tolist() == [0.0, 0.0, 1.0]


def test_runs_made_alike_differ_in_no_option():
    assert configuration_differences(traced(1), traced(2)).empty


def test_only_steps_that_both_recorded_are_compared():
    first, second = traced(1), traced(2)
    for name in ("activations", "gradients", "parameters"):
        table = second._tables[name]
        second._tables[name] = table[table["step"] % 3 == 0]
    changes = run_changes(first, second, align_layers(first, second))
    assert set(changes["steps"]) == {STEPS // 3}


def test_runs_without_a_common_step_are_refused():
    first, second = traced(1), traced(2)
    for name in ("activations", "gradients", "parameters"):
        second._tables[name] = second._tables[name].assign(step=lambda frame: frame["step"] + 1000)
    with pytest.raises(RunError, match="same step"):
        compare_runs(first, second)


def test_adjusted_p_values_are_benjamini_and_hochbergs():
    p_values = pd.Series([0.01, np.nan, 0.04, 0.03, 0.5])
    adjusted = adjusted_p_values(p_values)
    # By hand: sorted .01 .03 .04 .5, times 4 over their rank, smallest from the right.
    wanted = [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    assert adjusted.dropna().tolist() == pytest.approx(wanted)
    assert np.isnan(adjusted[1])


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / parent / "run" for parent in ("a", "b")]
    first, second = (Run(folder, {}) for folder in folders)
    assert run_names(first, second) == ("a/run", "b/run")
    assert run_names(first, first) == ("run (first)", "run (second)")
