"""The guide for new readers: gradients, verdicts and intervals in short paragraphs."""

from reports.elements import HeadedParagraph

PRIMER = (
    HeadedParagraph(
        "Gradients",
        "The gradient of the loss with respect to a layer's output says which way, and how "
        "strongly, the loss would change if that output did. Backpropagation computes it from the "
        "last layer to the first; gradient flow is what becomes of its size on that way. Where it "
        "shrinks from layer to layer it vanishes, where it grows it explodes.",
    ),
    HeadedParagraph(
        "Verdicts",
        "Each statement is tested by a rule that stands beside it. It is supported or "
        "contradicted where the evidence lies clearly on one side of the rule's bound. "
        "Inconclusive means that the evidence cannot tell: it is no weak form of yes or no.",
    ),
    HeadedParagraph(
        "Intervals",
        "A number comes with a range of values that the data are compatible with. A 95\u00a0% "
        "interval is made by a procedure that would catch the true value in about 95 of 100 such "
        "experiments; what it was computed from stands with each number.",
    ),
)
