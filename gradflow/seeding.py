"""Seeds derived from names: every random draw has a generator of its own, whatever came before."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """The seed, 0 to 2**63 - 1, that belongs to `parts`, the same on every machine and version.

    Different parts give unrelated seeds: the first 63 bits of SHA-256 over their `repr`.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
