"""The steps of a training: how they are computed, timed, and checked for values not finite."""
