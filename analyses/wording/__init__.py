"""How numbers, lists and verdicts read in sentences."""
