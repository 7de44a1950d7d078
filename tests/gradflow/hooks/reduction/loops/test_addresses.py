"""A loop over a table of addresses gives each tensor the bits that it has if it is read alone."""

import numpy as np
import pytest
import torch

from gradflow.hooks.reduction import cpu
from gradflow.hooks.updates.measures.many import Loop, Seen

ALONE = {
    "square_sum": cpu.square_sum,
    "inner_products": cpu.inner_products,
    "copy_and_square_sum": cpu.copy_and_square_sum,
    "square_distance": cpu.square_distance,
}
# Around the lengths at which vector instructions and the sharing over threads begin.
SIZES = [*range(1, 70), 127, 1000, 4097, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 100_003]


@pytest.fixture(params=[1, 2, 3, 9])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tensors(dtype, seed):
    """Tensors that begin at every place of a vector; two orders of a sum differ in their bits."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index, size in enumerate(SIZES):
        memory = torch.randn(size + 8, generator=generator, dtype=torch.float64).pow(3)
        found.append(memory.to(dtype)[index % 8 : index % 8 + size])
    return found


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_sum_has_the_bits_of_the_loop_over_one_tensor(name, dtype, threads):
    first, second = tensors(dtype, 0), tensors(dtype, 1)
    lists = [first] if name == "square_sum" else [first, second]
    # Where a copy lies within 128 bytes of what is copied, the compiled loop adds in another order:
    # both have the same tensors.
    expected = [ALONE[name](*pair) for pair in zip(*lists, strict=True)]
    if name == "copy_and_square_sum":
        for copy in second:
            copy.zero_()
    assert expected[0] is not None
    sums, read, rest = Loop(name)(*map(Seen, lists))
    assert rest == []
    assert list(read) == list(range(len(SIZES)))
    width = 3 if name == "inner_products" else 1
    assert np.array_equal(sums[:, :width], np.array(expected).reshape(-1, width))
    if name == "copy_and_square_sum":
        assert all(torch.equal(one, copy) for one, copy in zip(first, second, strict=True))


def test_both_dtypes_and_what_is_left_out_keep_their_places():
    given = [
        torch.full((2,), 3.0),
        torch.full((2,), 3.0).half(),
        torch.full((4,), 2.0).double(),
        torch.empty(0),
        torch.ones(3, dtype=torch.complex64),
        torch.arange(12.0).reshape(3, 4)[:, ::2],
        torch.arange(12.0).reshape(3, 4).t(),
        torch.eye(3).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2, dtype=torch.complex64).conj().imag,
    ]
    sums, read, rest = Loop("square_sum")(Seen(given))
    assert list(read) == [0, 2, 6]
    assert rest == [1, 3, 4, 5, 7, 8, 9]
    assert sums[[0, 2, 6], 0].tolist() == [18.0, 16.0, 506.0]


def test_pairs_of_different_order_in_memory_are_left_out():
    x = torch.randn(2, 3, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    _, read, rest = Loop("square_distance")(Seen([x, last, x]), Seen([x, last.clone(), last]))
    assert list(read) == [0, 1]
    assert rest == [2]
