"""A run says by which means its numbers were computed."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction import cpu, fused, means
from gradflow.hooks.reduction.cuda import checked

ON_CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch):
    monkeypatch.setattr(means, "_noted", {})


@pytest.mark.parametrize("numba_works", [True, False])
def test_a_run_on_the_cpu_says_whether_numbas_loops_were_used(tmp_path, monkeypatch, numba_works):
    if not numba_works:
        monkeypatch.setattr(cpu, "loops_module", lambda: None)
    with gradflow.Tracer(nn.Linear(3, 2), tmp_path / "run"):
        pass
    words = gradflow.open_run(tmp_path / "run").description["means"]["layers"]
    assert words.startswith("numba's loops, in one read" if numba_works else "torch, in several")


@pytest.mark.parametrize(
    ("kernels", "groups", "expected"),
    [
        (object(), True, "Triton's kernels, in one read, in groups"),
        (object(), False, "Triton's kernels, in one read, one by one"),
        (None, True, "torch, in several reads: Triton is missing, has no C compiler"),
    ],
)
def test_a_run_on_cuda_says_whether_tritons_kernels_were_used(
    monkeypatch, kernels, groups, expected
):
    monkeypatch.setattr(checked, "kernels", lambda _: kernels)
    monkeypatch.setattr(checked, "work_in_groups", lambda _: groups)
    monkeypatch.setattr(checked, "counts_magnitudes", lambda _: True)
    fused.prepare_device(ON_CUDA)
    assert means.noted()["layers"].startswith(expected)


def test_of_each_kind_the_last_words_count():
    means.note("layers", "slowly")
    means.note("parameters", "one by one")
    means.note("layers", "fast")
    assert means.noted() == {"layers": "fast", "parameters": "one by one"}
