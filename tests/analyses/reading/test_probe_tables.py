"""Reading tables of probes: their last epoch, and means over epochs."""

import pandas as pd
import pytest

from analyses.reading.probe_tables import last_epoch, mean_over_epochs


def test_the_last_epoch_is_the_largest_recorded():
    frame = pd.DataFrame({"epoch": [10, 1, 10], "share": [0.1, 0.2, 0.3]})
    assert last_epoch(frame)["share"].tolist() == [0.1, 0.3]


def test_the_method_speaks_of_epochs():
    assert mean_over_epochs([range(10)]).method == "moving-block bootstrap over 10 epochs"
    assert mean_over_epochs([[0.5]]).method == "no interval: only 1 epoch, 8 needed"
    assert mean_over_epochs([[0.5], [0.7], [0.6]]).value == pytest.approx(0.6)
