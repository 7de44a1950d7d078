"""The Triton kernels: in Triton's interpreter, compiled, and on a GPU if there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow
from gradflow.hooks.reduction.cuda import checked
from gradflow.hooks.reduction.fused import moments
from gradflow.hooks.reduction.statistics.from_moments import to_statistics

INTERPRETED = Path(__file__).with_name("interpreted_kernels.py")
DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_every_test_in_the_interpreter_passes():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", INTERPRETED],
        cwd=INTERPRETED.parents[5],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.parametrize(
    ("dtype", "side_by_side", "histogram"),
    [
        (torch.float64, True, True),
        (torch.float32, False, False),
        (torch.float16, True, False),
        (torch.bfloat16, False, True),
    ],
    ids=str,
)
def test_the_kernels_compile_for_a_gpu(dtype, side_by_side, histogram, tmp_path, monkeypatch):
    pytest.importorskip("triton", "3.3", reason="earlier versions describe a kernel otherwise")
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource, compile  # noqa: PLC0415

    from gradflow.hooks.reduction.cuda import kernels, products  # noqa: PLC0415

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = {"x": "*" + DTYPES[dtype], "table": "*i64", "counts": "*i64"}
    types |= dict.fromkeys(("partials", "result"), "*fp64")
    tile = {"block": 32, "beside": 32} if side_by_side else {"block": 1024, "beside": 1}
    tile |= {"wide": dtype == torch.float64, "histogram": histogram}
    merging = {"rows": 64, "columns": 16}
    for kernel, fixed in [
        (kernels.reduce_one, tile),
        (kernels.merge_one, merging),
        (kernels.reduce_group, {**tile, "dtype": kernels.DTYPES[dtype]}),
        (kernels.merge_group, merging),
        (products.multiply_group, {"dtype": kernels.DTYPES[dtype], "block": 1024, "most": 32}),
        (products.add_up, {"most": 256}),
    ]:
        signature = {
            name: "constexpr" if name in fixed else types.get(name, "i32")
            for name in kernel.arg_names
        }
        # For compute capability 8.0; compiling needs no GPU.
        code = compile(
            ASTSource(kernel, signature=signature, constexprs=fixed),
            target=GPUTarget("cuda", 80, 32),
            options=kernels.OPTIONS,
        ).asm
        assert code["cubin"]
        if not histogram:
            assert "atom." not in code["ptx"]  # sums in no set order would differ between runs


def test_without_a_gpu_no_tensor_goes_to_the_kernels(monkeypatch):
    def unwanted(_):
        raise AssertionError("a tensor in main memory went to the kernels")

    monkeypatch.setattr(checked, "kernels", unwanted)
    assert to_statistics([moments(torch.ones(2, 3), 1)])["norm"][0] == pytest.approx(6**0.5)


def test_if_a_launch_fails_no_kernels_are_used():
    # In main memory, outside the interpreter, Triton cannot launch.
    assert checked.kernels(torch.device("cpu")) is None


def special(shape, dtype, bad=None) -> torch.Tensor:
    x = (3 + torch.randn(shape, generator=torch.Generator().manual_seed(0))).relu().to(dtype)
    if bad is not None:
        x.view(-1)[-1] = bad
    return x


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [None, float("inf"), float("nan")], ids=str)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((), None), ((100_000,), None), ((64, 700), 1), ((8, 5, 133, 131), 1), ((3, 200, 96), -1)],
)
def test_kernel_torch_and_cpu_agree(dtype, bad, shape, axis, monkeypatch):
    x = special(shape, dtype, bad)
    on_gpu = x.cuda()
    assert checked.kernels(on_gpu.device) is not None
    by_kernel = moments(on_gpu, axis)
    again = moments(on_gpu, axis)
    assert torch.equal(by_kernel.values.view(torch.int64), again.values.view(torch.int64))
    monkeypatch.setattr(checked, "kernels", lambda _: None)
    by_torch, on_cpu = moments(on_gpu, axis), moments(x, axis)
    results = [to_statistics([found]) for found in (by_kernel, by_torch, on_cpu)]
    for name, values in results[0].items():
        for other in results[1:]:
            expected = pytest.approx(other[name][0], rel=1e-9, abs=1e-12, nan_ok=True)
            assert values[0] == expected, name


@needs_cuda
def test_channels_last_is_read_in_memory_order():
    x = special((4, 40, 17, 19), torch.float32)
    found = to_statistics([moments(x.cuda().to(memory_format=torch.channels_last), 1)])
    for name, values in to_statistics([moments(x, 1)]).items():
        assert found[name][0] == pytest.approx(values[0], rel=1e-9), name


@needs_cuda
# torch calls the mode a prototype that may miss a wait.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_recorded_step_waits_for_nothing_on_the_gpu(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model.cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(4, 3, 20, 20, device="cuda")
    with gradflow.Tracer(model, tmp_path / "run", optimizer=optimizer, schedule=1):
        for step in range(3):
            before = torch.cuda.get_sync_debug_mode()
            # The first step compiles kernels and allocates; every one after it must not wait.
            torch.cuda.set_sync_debug_mode("error" if step else before)
            try:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode(before)
    assert set(gradflow.open_run(tmp_path / "run").gradients.step) == {0, 1, 2}
