"""What is true of a training into which a fault was planted."""

from dataclasses import dataclass

# Words by which a cause is recognized in what the check says, by the cause's key.
CAUSES: dict[str, tuple[str, ...]] = {
    "detached": ("detach", "no_grad", "no gradient reaches"),
    "no-optimizer": ("no optimizer",),
    "zero-inputs": ("inputs are all 0", "inputs are 0", "all 0", "all zero"),
    "constant-inputs": ("constant", "the same", "alike", "do not vary"),
    "input-scale": ("scale of the inputs", "inputs' scale", "standardize", "0 to 255", "range"),
    "small-rate": ("learning rate of", "learning rate is", "raise the learning rate"),
    "large-rate": ("learning rate", "steps too large", "updates are too large", "too large"),
    "softmax": ("softmax",),
    "labels": ("labels",),
    "carried-over": ("zero_grad", "carried over"),
    "clipping": ("clip",),
    "float16": ("float16",),
    "rounding": ("bfloat16", "smaller than", "rounding"),
    "recurrent-weights": ("recurrent", "through time", "in time", "position"),
    "evaluation-mode": ("eval", "evaluation mode", "train()"),
    "momentum": ("momentum",),
    "bias": ("bias",),
    "pre-activations": ("pre-activation", "weights", "inputs of"),
    "not-finite": ("log", "division", "divides", "square root", "loss"),
    "warm-up": ("warm-up", "too large", "by layer"),
    "initialization": ("initial", "weights"),
    "ascent": ("rises", "sign", "ascent"),
    "memorized": ("held-out", "validation", "memor", "by heart"),
    "terms": ("term",),
    "alike": ("alike", "the same for"),
    "bad-batch": ("batch", "spike"),
    "zeroed": ("zero_grad", "zeroed"),
    "repeated": ("same batch", "repeat", "again"),
    "never-called": ("never run", "never ran", "never called", "did not run"),
}
# What a finding says if it is wrong about the cause, where two causes look alike.
RIVALS: dict[str, tuple[str, ...]] = {
    "small-rate": ("clipping multiplies", "can hold beside", "gradient is the cause"),
    "clipping": ("learning rate of", "can hold beside", "gradient is the cause"),
    "rounding": (
        "clipping multiplies",
        "gradient is the cause",
        "learning rate of .* is the cause",
    ),
    "detached": ("never run", "never ran"),
    "zeroed": ("zero_grad", "zeroed"),
    "repeated": ("same batch", "repeat", "again"),
    "never-called": ("detached",),
    "no-optimizer": ("learning rate .* is 0 in every",),
    "carried-over": ("learning rate of .* is the cause",),
    "zero-inputs": ("clipping multiplies",),
    "softmax": ("it rises",),
    "labels": ("it rises",),
    "ascent": ("that of guessing", "too large at a learning rate"),
}


@dataclass(frozen=True)
class Truth:
    """What was planted, and what may follow from it.

    Fields:
        expected: conditions, one of which must be found; the first is the one to expect.
        effects: conditions that may be found as well.
        cause: a key of `CAUSES`; "" where the issue names none.
        layers: names of modules, one of which a finding on an expected condition must name; empty
            if the fault has no place.
        step: the first step that has it; None if it is there from the beginning.
    """

    expected: tuple[str, ...]
    effects: frozenset[str] = frozenset()
    cause: str = ""
    layers: tuple[str, ...] = ()
    step: int | None = None
