"""Tools for probes: find and rewire blocks, run parts of a network, re-estimate batch norms."""
