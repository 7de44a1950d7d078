"""What a reader new to the subject must know first: one sentence for each analysis."""

from reports.parts import MethodPart

# What the first page tells those who have not read such a report before.
PRIMER = (
    MethodPart(
        "Gradients",
        "The gradient of the loss with respect to a layer's output says which way, and how "
        "strongly, the loss would change if that output did. Backpropagation computes it from the "
        "last layer to the first; gradient flow is what becomes of its size on that way. Where it "
        "shrinks from layer to layer it vanishes, where it grows it explodes.",
    ),
    MethodPart(
        "Verdicts",
        "Each statement is tested by a rule that stands beside it. It is supported or "
        "contradicted where the evidence lies clearly on one side of the rule's bound. "
        "Inconclusive means that the evidence cannot tell: it is no weak form of yes or no.",
    ),
    MethodPart(
        "Intervals",
        "A number comes with a range of values that the data are compatible with. A 95\u00a0% "
        "interval is made by a procedure that would catch the true value in about 95 of 100 such "
        "experiments; what it was computed from stands with each number.",
    ),
)

_EXPLANATIONS = {
    "learning_curves": (
        "Loss and accuracy after each pass over the training images (an epoch) show how far "
        "learning has come; accuracy on validation images, which are not trained on, shows what "
        "carries over to new ones."
    ),
    "matched_comparison": (
        "Two networks trained with the same seed see the same images in the same order, so that "
        "what still differs between them is closer to the effect of the network itself."
    ),
    "jump_explanation": (
        "Accuracy on few images moves from epoch to epoch for several reasons: the luck of which "
        "images there are, running statistics that lag behind the weights, steady learning, and "
        "real jumps of what the network computes."
    ),
    "accuracy_jumps": (
        "An accuracy counted on a limited number of images has sampling noise: only a change "
        "larger than that noise shows that the network itself changed."
    ),
    "batchnorm_recalibration": (
        "Batch normalization uses running averages of each channel's mean and variance at "
        "validation; where these lag behind the weights, accuracy can drop although the weights "
        "are no worse."
    ),
    "health_check": (
        "Training needs gradients that reach every layer at a usable size, units that respond, "
        "and updates in proportion to the weights; each condition found here is one way in which "
        "that can fail."
    ),
    "gradient_profile": (
        "The gradient is passed back through the layers by repeated multiplication: a factor "
        "below 1 at each layer makes it vanish toward the input, one above 1 makes it explode."
    ),
    "network_drawing": (
        "Backpropagation passes the gradient from the loss at the bottom to the input at the top, "
        "through each block's branch and along its skip: where an arrow is wider, more gradient "
        "flows."
    ),
    "magnitudes": (
        "A 16-bit number format cannot hold numbers below some size: gradients that are smaller "
        "become zero, unless the loss is scaled up before backpropagation."
    ),
    "what_changed": (
        "Two trainings are set side by side, layer by layer: what differs by more than the steps "
        "of one of them differ among themselves has changed."
    ),
    "signal_propagation": (
        "On the way forward each layer changes the mean and variance of its activations; a "
        "channel that is zero on every input passes no signal forward and no gradient back."
    ),
    "skip_carry": (
        "At a residual addition the output is the sum of a skip, which leaves its input as it is "
        "or projects it, and a branch of layers; the gradient comes back through both."
    ),
    "path_lengths": (
        "A residual network holds many paths from loss to input, since at each block the gradient "
        "takes the skip or the branch; the length of a path is the number of branches on it."
    ),
    "shortcut_scaling": (
        "Multiplying the skips of a trained network by a factor from 1 down to 0, with its "
        "weights left as they are, shows how far its predictions rest on them."
    ),
    "lesions": (
        "Leaving out the branch of one block of a trained network, with all weights kept, shows "
        "how much accuracy rests on that block."
    ),
    "conductance": (
        "Conductance divides a prediction among the parts of a network: here, at each residual "
        "addition, between what came by the skip and what came by the branch."
    ),
    "better_network": (
        "A difference that goes along with accuracy need not be its cause; only what was changed "
        "on purpose, with accuracy following, is called a cause here."
    ),
    "attribution": (
        "An attribution gives every pixel a share of a prediction; it says what that prediction "
        "rests on, not whether it is right."
    ),
    "loss_slices": (
        "The loss is a surface over all weights; a slice shows its height along a line, and a "
        "barrier between two points is a place on it that is higher than both ends."
    ),
    "classification": (
        "A confusion matrix counts, for the images of each class, which class the network "
        "predicted; recall is the share of a class that was found."
    ),
}


def explanation_of(analysis: str) -> str:
    """The sentence that explains the subject of `analysis`; "" for one of a third party."""
    return _EXPLANATIONS.get(analysis, "")
