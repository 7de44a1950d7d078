import threading

import numpy as np
import pytest
import torch

from gradflow.hooks.reduction import cpu

pytestmark = pytest.mark.skipif(
    cpu.threads_module() is None, reason="no OpenMP runtime to be had here"
)

ELEMENTS = 100_003  # prime: no number of threads divides it


@pytest.fixture(autouse=True)
def three_threads():
    """Use three threads, whatever the machine or environment sets."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared_out(monkeypatch):
    """The number of threads of each task that was run."""
    module, threads = cpu.threads_module(), []
    run = module.run_task

    def counted(dtype, count, **fields):
        threads.append(count)
        run(dtype, count, **fields)

    monkeypatch.setattr(module, "run_task", counted)
    return threads


def vectors(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(ELEMENTS, generator=generator, dtype=dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_loop_gives_what_numpy_gives_in_float64(dtype, shared_out):
    x, y, z = vectors(dtype)
    a, b, c = (vector.numpy().astype(np.float64) for vector in (x, y, z))
    assert cpu.square_sum(x) == pytest.approx(a @ a, rel=1e-12)
    assert cpu.inner_products(x, y) == pytest.approx((a @ a, a @ b, b @ b), rel=1e-12)
    assert cpu.square_distance(x, y) == pytest.approx((a - b) @ (a - b), rel=1e-12)
    kept = torch.empty_like(x)
    assert cpu.copy_and_square_sum(x, kept) == pytest.approx(a @ a, rel=1e-12)
    assert torch.equal(kept, x)
    g, r = b + c, a - (b + c)
    wanted = (g @ g, b @ b, c @ c, b @ c, b @ g, a @ a, r @ r)
    assert cpu.junction_products(x, y, z) == pytest.approx(wanted, rel=1e-12)
    assert shared_out == [3] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(7, 48, 13, 13), (37, 101, 3, 3)], ids=["", "short runs"])
def test_moments_are_those_of_one_thread(dtype, channels_last, shape, shared_out, monkeypatch):
    """Of short runs, the threads share whole rows and what is left of them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    x[2] = 0.0
    x[-1, -1, -1, -1] = -50.0
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    values, exponents = cpu.reduce(x, 1, exponents=True)
    assert shared_out == [3]
    monkeypatch.setattr(cpu, "MIN_SHARED_ELEMENTS", 1 << 60)
    wanted, wanted_exponents = cpu.reduce(x, 1, exponents=True)
    assert shared_out == [3]
    np.testing.assert_allclose(values, wanted, rtol=1e-12, atol=1e-10)
    assert values[-3] == 50.0
    assert values[-2] == int((x == 0).sum())
    np.testing.assert_array_equal(exponents, wanted_exponents)


def test_the_same_sum_has_the_same_bits_each_time():
    x = vectors(torch.float32)[0]
    assert len({cpu.square_sum(x) for _ in range(50)}) == 1


def test_concurrent_tasks_do_not_interfere():
    numbers = [torch.full((ELEMENTS,), float(value)) for value in range(4)]
    found = {}

    def work(value):
        torch.set_num_threads(3)
        found[value] = {cpu.square_sum(numbers[value]) for _ in range(50)}

    workers = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == {value: {float(value**2 * ELEMENTS)} for value in range(4)}


def test_without_the_runtime_one_thread_is_used(monkeypatch):
    monkeypatch.setattr(cpu, "threads_module", lambda: None)
    x = torch.full((ELEMENTS,), 2.0)
    assert cpu.square_sum(x) == 4.0 * ELEMENTS
