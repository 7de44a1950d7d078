"""The guide for new readers: gradients, verdicts and intervals in short paragraphs."""

from reports.elements import HeadedParagraph

PRIMER = (
    HeadedParagraph(
        "Gradients",
        "The gradient of the loss with respect to a layer's output says in which direction, and "
        "how strongly, the loss changes if that output changes. Backpropagation computes it from "
        "the last layer to the first; gradient flow describes how its size changes on the way. A "
        "gradient that shrinks from layer to layer vanishes; one that grows explodes.",
    ),
    HeadedParagraph(
        "Verdicts",
        "Each claim is tested by a rule that is given with it. The answer is yes (supported) or no "
        "(contradicted) if the evidence lies clearly on one side of the rule's bound. Can't tell "
        "(inconclusive) means that the evidence cannot decide: it is neither a weak yes nor a weak "
        "no. A sign says whether the answer is good news for the training (✓) or bad news (!); a "
        "claim that is neither has no sign.",
    ),
    HeadedParagraph(
        "Intervals",
        "A number comes with an interval: the values that the data are compatible with. In about "
        "95 of 100 such experiments, a 95\u00a0% interval contains the true value; each number "
        "says how it was computed.",
    ),
)
