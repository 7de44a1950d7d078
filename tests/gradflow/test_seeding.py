import hashlib

import torch

from gradflow.seeding import derived_seed


def test_the_seed_is_the_first_63_bits_of_sha256_over_the_parts():
    digest = hashlib.sha256(b"(7, 'fc.weight')").hexdigest()
    assert derived_seed(7, "fc.weight") == int(digest[:16], 16) // 2


def test_different_parts_give_different_seeds_that_torch_accepts():
    seeds = {derived_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)


def test_parts_are_not_run_together():
    assert derived_seed(1, 23) != derived_seed(12, 3)
    assert derived_seed(1, "2") != derived_seed(1, 2)
