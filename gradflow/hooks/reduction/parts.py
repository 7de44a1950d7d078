"""Which part of a tensor a process observed, if several share the work on it."""

from enum import Enum


class Part(Enum):
    """The part of a tensor that a process has, along the axis of tensor parallelism."""

    WHOLE = "all of it, as every other process"
    CHANNELS = "some of its channels"
    BATCH = "some elements of its batch"
    POSITIONS = "some of its positions"
    UNKNOWN = "an unknown part"
