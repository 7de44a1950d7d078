"""Operations that add: which of their inputs may be a skip, and what they add to it.

Besides `x + y` these are additions onto some rows (`index_add`, `scatter_add`, `index_put`), fused
ones (`lerp`, `addcmul`, `addmm`, a GRU cell on a GPU), and additions in place onto a view.

An operation in place on a view has a node `CopySlices`, whose inputs are the base of the view and
the other operands. It does not tell which operation it was. If that was an addition, the gradient
of the base equals that of the result, and only then; this is known in the backward pass.
"""

from typing import NamedTuple

# The node of an operation in place on a view.
ON_VIEW = "torch::autograd::CopySlices"
# The name given here to `index_put` that accumulates; without, it replaces.
INDEX_PUT_ADDING = "IndexPutAdding"


class Way(NamedTuple):
    """A way to read an operation as skip + terms, by positions of its inputs.

    `gates` multiply the skip, and the terms as well where the operation is a weighted mean.
    """

    skip: int
    terms: tuple[int, ...]
    gates: tuple[int, ...] = ()


_EITHER = (Way(0, (1,)), Way(1, (0,)))
_FIRST = (Way(0, (1, 2)),)
WAYS = {
    "Add": _EITHER,
    "Addcdiv": _FIRST,
    "Addcmul": (*_FIRST, Way(1, (0,), (2,)), Way(2, (0,), (1,))),
    "Addmm": _FIRST,
    "Baddbmm": _FIRST,
    "IndexAdd": _EITHER,
    INDEX_PUT_ADDING: _EITHER,
    "Lerp": (Way(0, (1,), (2,)), Way(1, (0,), (2,))),
    "ScatterAdd": _EITHER,
    # Gates of the input, gates of the state, state.
    "ThnnFusedGruCell": (Way(2, (), (0, 1)),),
    ON_VIEW: _EITHER,
}
# Within a gated skip, as in the state h of a GRU cell: n + z (h - n).
WAYS_WITHIN_GATED = {**WAYS, "Sub": (Way(0, (1,)),)}
# Sums whose first input is a summand as it is, without a factor.
FIRST_IS_SUMMAND = frozenset({"Addcdiv", "Addcmul", "IndexAdd", INDEX_PUT_ADDING, "ScatterAdd"})
