"""The bounds of conditions that are looked at both while a model trains and afterwards.

Those that only the health check knows are declared beside its conditions.
"""

# The largest number of recorded steps that decides, and the smallest that can.
LAST_STEPS, MIN_WINDOW = 20, 6
# So many steps in a row on the other side of a bound do not interrupt a condition.
OVERLOOKED = 2

# The factor of the gradient norm over the whole depth, toward the input.
VANISHING, EXPLODING = 1e-2, 1e2

# The share of channels of one activation layer that are always zero, and the largest chance, over
# all layers, that so many are zero by themselves.
DEAD, MAX_CHANCE = 0.5, 0.01

# The factor that clipping multiplies the gradient with.
CLIPPED = 1e-3

# The update-to-weight ratio: a thousandth of the rule of thumb for health (0.001, CS231n). MOVING
# is that of a usual training. A ratio that grows by RISING from the first to the last steps looks
# like a warm-up.
STALLED, MOVING, RISING = 1e-6, 1e-4, 3.0

# The norm of a step's whole update over that of all weights. The rule of thumb is 0.001 (CS231n);
# Adam's first steps in small networks reach 0.04.
OVERSHOOTING = 0.1

# The loss of the last steps over that of the first; and how near to log(classes), as a share, a
# loss is that of guessing.
FLAT, NEAR_CHANCE = 0.98, 0.1
# Times the loss of the first steps. Objectives that move raise it by less while all is well: that
# of a generator as its adversary learns, a contrastive one as its queue of negatives fills.
RISEN = 5.0
