"""Every sentence that the story of an experiment can say.

Each is a whole sentence with named places, so that a catalogue can hold it in other languages.
"""

from analyses.result import Verdict

YES, NO, UNKNOWN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE

# The question, as the reader asks it.
JUMPS_IN_SOME = "Why does the accuracy of {jumping} jump, and that of {steady} hardly?"
JUMPS_IN_ALL = "Why does the accuracy of {jumping} jump?"
BETTER = "Why is {better} more accurate than {worse} {when}?"

# What the jumps are, by the verdict on stale statistics; `gap` where both accuracies were recorded.
STALE_WITH_GAP = {
    YES: (
        "The jumps of {network} are mostly stale batch-norm statistics, not worse weights: at "
        "{where} it classifies {measured} of the validation images, and {fresh} with the "
        "same weights once these statistics are computed anew."
    ),
    UNKNOWN: (
        "Whether the jumps of {network} are mostly stale batch-norm statistics cannot be told: "
        "at {where} it classifies {measured} of the validation images, and {fresh} with "
        "the same weights once these statistics are computed anew."
    ),
}
AT_EPOCH, AT_EPOCH_OF_SEED = "epoch {epoch}", "epoch {epoch} of seed {seed}"
STALE = {
    YES: (
        "The jumps of {network} are mostly stale batch-norm statistics, not worse weights: "
        "computing these anew, with the same weights, takes away {part}."
    ),
    NO: (
        "The jumps of {network} are not mostly stale batch-norm statistics: computing these anew, "
        "with the same weights, takes away {part}."
    ),
    UNKNOWN: (
        "Whether the jumps of {network} are mostly stale batch-norm statistics cannot be told: "
        "computing these anew, with the same weights, takes away {part}."
    ),
}
# What the jumps are, where statistics were not computed anew.
REAL = {
    YES: (
        "Most of the movement of {network}'s accuracy is real: {part} is neither sampling noise "
        "nor steady learning."
    ),
    NO: ("Most of the movement of {network}'s accuracy is not real jumps: these are {part}."),
    UNKNOWN: (
        "How much of the movement of {network}'s accuracy is real jumps cannot be told: the "
        "estimate is {part}."
    ),
}
JUMPS_ALONE = (
    "Between epochs the accuracy of {network} falls by as much as {points} percentage points, "
    "which is more than chance gives."
)

# Which of two networks is more accurate.
DIFFERENCE = {
    YES: (
        "{better} is more accurate than {worse} {when}, by {points} percentage points{interval}."
    ),
    NO: (
        "{better} is not more accurate than {worse} {when}: it is {points} percentage points "
        "{side}{interval}."
    ),
    UNKNOWN: (
        "Which of {better} and {worse} is more accurate {when} cannot be told: the difference is "
        "{points} percentage points{interval}."
    ),
}
AHEAD, BEHIND = "ahead", "behind"
AT_THE_LAST_EPOCH, OVER_EPOCHS = "at the last epoch", "averaged over epochs"

# What the gradients do, by what was found of vanishing and exploding.
VANISH = (
    "The gradients of {network} vanish: from the last layer back to the first, between layers of "
    "equal shape, their norm shrinks {times} times{interval}."
)
EXPLODE = (
    "The gradients of {network} do not vanish but explode: from the last layer back to the "
    "first, between layers of equal shape, their norm grows {times} times{interval}."
)
GROW = (
    "The gradients of {network} do not vanish: from the last layer back to the first, between "
    "layers of equal shape, their norm grows {times} times{interval}."
)
KEEP = (
    "The gradients of {network} do not vanish: from the last layer back to the first, between "
    "layers of equal shape, their norm keeps its size (factor {factor})."
)
SHRINK = (
    "The gradients of {network} do not vanish: from the last layer back to the first, between "
    "layers of equal shape, their norm shrinks {times} times{interval}, which is too little to be "
    "called that."
)
GRADIENTS_UNKNOWN = (
    "Whether the gradients of {network} vanish cannot be told: from the last layer back to the "
    "first, between layers of equal shape, their norm is multiplied by {factor}."
)
GRADIENTS_UNMEASURED = "Whether the gradients of {network} vanish cannot be told."

# Why one is more accurate: the analysis says it of a reason; else this is said.
NO_REASON_SHOWN = (
    "Why cannot be told yet: {count} possible reasons were compared, and no intervention showed "
    "that one of them explains it."
)
# What stale statistics cost the network that hardly jumps.
STEADY = "They cost {network} at most {points} percentage points."
INTERVAL = " (95\u00a0% interval {low} to {high})"
# What the words of the answer mean.
WORDS_OF_STALENESS = (
    "Stale statistics: batch normalization validates with running averages of each channel's mean "
    "and variance; if these lag behind the weights, accuracy drops although the weights are no "
    "worse."
)
WORDS_OF_SKIPS = "Skip: the path that carries a block's input around it, to be added to its output."

# What the skips carry.
SKIPS = {
    YES: "In {network} the skips carry most of each block's gradient: {share} of it{interval}.",
    NO: (
        "In {network} the branches, not the skips, carry most of the gradient: the skips "
        "{share}{interval}."
    ),
    UNKNOWN: (
        "Whether the skips of {network} carry most of the gradient cannot be told: their share is "
        "{share}{interval}."
    ),
}

# How sure that is, and what would settle what is open.
ONE_SEED = (
    "Each network was trained once. The intervals say what other validation images would give; "
    "another training may differ."
)
SEVERAL_SEEDS = (
    "Each network was trained {seeds} times; what other trainings would give is judged from these "
    "alone."
)
DIFFERENT_SEEDS = "The networks were trained {fewest} to {most} times."
ONE_TRAINING = "This is one training; another may differ."
STILL_OPEN = "This claim could be neither confirmed nor refuted: “{claim}” To settle it: {step}"

# Amounts that noise drives out of what is possible.
NONE = "nothing that can be told from noise"
ALL = "all of the movement, as far as noise lets one tell"
PART = "{share} of the movement"

# A run in its owner's loop.
OWN_QUESTION = "Is something wrong in the training of {networks}: what, where, and since when?"
NOTHING_FOUND = "Nothing was found. {meaning}"
NOTHING_CERTAIN = "Nothing was found for certain. {meaning}"
OWN_FURTHER = "{count} more conditions were found; the sections below tell them all."
