"""One file for each published result that `benchmarks/published_results.py` reproduces."""
