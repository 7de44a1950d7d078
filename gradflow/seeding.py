"""Seeds derived from names, so that each use of randomness has its own independent generator."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return the seed, 0 to 2**63 - 1, for `parts`; the same on every machine and in every version.

    It is the first 63 bits of SHA-256 over the `repr` of `parts`: different parts give unrelated
    seeds.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
