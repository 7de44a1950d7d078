"""Which skips through gates and mixing matrices are those of residual additions."""

from gradflow.hooks.residual.graph import Edge, Structure, Value
from gradflow.hooks.residual.operations import MULTILINEAR, PRODUCTS, REARRANGEMENTS
from gradflow.hooks.residual.paths import Branch, Paths, Skip

# Of a formula made of products; a deeper one is a branch.
_DEPTH = 8


class GatedSkips:
    """Tells the gated and mixed skips of one `Structure` from other products; see `additions`."""

    def __init__(self, structure: Structure, paths: Paths) -> None:
        self.kinds, self.inputs = structure.kinds, structure.inputs
        self.paths = paths

    def is_gated(self, skip: Skip) -> bool:
        """Whether the gated path `skip` and what is added to it make a residual addition."""
        branch = self.paths.branch(skip)
        if not branch.edges or not branch.dominated or self.paths.is_elementary(branch):
            return False
        # In a coupling layer, the gate reads x through a constant mask.
        if all(self._is_constant_factor(edge) for edge in branch.edges):
            return False
        if any(self._is_attention(edge, branch) for edge in skip.gates):
            return False
        added = [value for edge, value in skip.terms if edge not in skip.gates]
        return not any(self._is_product_of_x(value, skip) for value in added)

    def is_mixed(self, skip: Skip, branch: Branch) -> bool:
        """Whether x is the product of streams with a matrix, one for the branch, others to pass on.

        A coupling layer gives each of its paths a slice.
        """
        if (
            self.kinds[skip.last.node] != "Slice"
            or any(self.kinds[edge.node] != "Select" for edge in branch.edges)
            or self.paths.weights(skip.operations)
            or not self.paths.weights(branch.nodes)
        ):
            return False
        x = skip.x
        while (
            self.kinds[x.node] in REARRANGEMENTS and len(given := self.paths.computed(x.node)) == 1
        ):
            x = given[0][1]
        # What enters the branch besides x are its factors, computed from the streams too.
        sources = self.paths.ancestry_of(skip.terms) & self.paths.sources
        return self.kinds[x.node] in PRODUCTS and not sources & ~self.paths.ancestry[x.node]

    def _is_attention(self, gate: Edge, branch: Branch) -> bool:
        """Whether the gate is a matrix made of products of data, such as queries and keys."""
        if self.kinds[gate.node] not in PRODUCTS:
            return False
        matrix = self.inputs[gate.node][gate.position]
        assert matrix is not None
        before = self.paths.ancestry[matrix.node]
        return any(before >> node & 1 and self._is_data_product(node) for node in branch.nodes)

    def _is_data_product(self, node: int) -> bool:
        given = [value for _, value in self.paths.computed(node) if self.paths.has_data(value)]
        return self.kinds[node] in PRODUCTS and len(given) > 1

    def _is_constant_factor(self, edge: Edge) -> bool:
        return self.kinds[edge.node] == "Mul" and len(self.paths.computed(edge.node)) == 1

    def _is_product_of_x(self, value: Value, skip: Skip, depth: int = _DEPTH) -> bool:
        """Whether `value` is x, or made of products with parts of x, and of no layer of it.

        So it is in rotary embeddings and products of complex numbers.
        """
        if value == skip.x or value in skip.reshaped:
            return True
        kind = self.kinds[value.node]
        given = self.paths.computed(value.node)
        if not given or not depth or kind not in MULTILINEAR:
            return False
        parts = (self._is_product_of_x(part, skip, depth - 1) for _, part in given)
        return any(parts) if kind == "Mul" else all(parts)
