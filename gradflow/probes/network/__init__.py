"""A network as probes change it: its blocks, rewired, run in part, or normalized anew."""
