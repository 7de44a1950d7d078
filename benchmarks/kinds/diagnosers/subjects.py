"""Which conditions each complaint of another tool speaks of.

A complaint names a fault if one of its conditions is one of those that the fault's truth expects,
and a symptom of it if it is one of the effects. Each is read as widely as its words allow.
"""

SUBJECTS: dict[str, frozenset[str]] = {
    key: frozenset(value.split())
    for key, value in {
        # https://github.com/RMalkiv/torch-audit, RULES.md
        "torch-audit: TA100": "non-finite",
        "torch-audit: TA102": "exploding exploding-in-time overshooting spiking",
        "torch-audit: TA103": "dead disconnected vanishing",
        "torch-audit: TA104": "disconnected",
        "torch-audit: TA105": "dead collapsed",
        "torch-audit: TA300": "",
        "torch-audit: TA301": "inputs",
        "torch-audit: TA302": "inputs",
        "torch-audit: TA303": "",
        "torch-audit: TA304": "",
        "torch-audit: TA305": "inputs",
        "torch-audit: TA500": "unused disconnected",
        "torch-audit: TA501": "",
        # Titles of torchmortem's findings
        "torchmortem: Vanishing gradients detected": "vanishing vanishing-in-time disconnected",
        "torchmortem: Exploding gradients detected": "exploding exploding-in-time overshooting",
        "torchmortem: Gradient stalling": "vanishing disconnected stalled dead",
        "torchmortem: Dead units": "dead",
        "torchmortem: Activation saturation": "saturated",
        "torchmortem: Update ratio too low": "stalled not-updated lost-to-rounding clipped",
        "torchmortem: Update ratio too high": "overshooting",
        "torchmortem: Weight norm explosion": "overshooting exploding",
        "torchmortem: Stagnant weight norms": "stalled not-updated lost-to-rounding clipped",
        "torchmortem: Inter-layer weight norm imbalance": "exploding vanishing",
        "torchmortem: Training divergence detected": "overshooting not-learning non-finite",
        "torchmortem: Loss plateau detected": "not-learning stalled",
        "torchmortem: Rank collapse": "collapsed",
        "torchmortem: High gradient noise (low SNR)": "noisy",
        # trainscope's spikes, and the signals of `trainscope report`
        "trainscope: spike": "spiking overshooting",
        "trainscope: explosion": "overshooting exploding non-finite spiking",
        "trainscope: signal loss": "spiking overshooting",
        "trainscope: signal grad_norm": "exploding exploding-in-time overshooting spiking",
        "trainscope: signal kurtosis": "overshooting spiking",
        "trainscope: signal concentration": "collapsed",
        # Events of ormas-monitor's record
        "ormas-monitor: alarm no_gradient": "disconnected vanishing dead",
        "ormas-monitor: alarm vanishing": "vanishing vanishing-in-time",
        "ormas-monitor: alarm exploding": "exploding exploding-in-time overshooting spiking",
        "ormas-monitor: channels": "dead",
        "ormas-monitor: certificate": "dead",
        "ormas-monitor: loss_spike": "spiking overshooting",
        "ormas-monitor: nonfinite_loss": "non-finite",
        "ormas-monitor: nonfinite_gradient": "non-finite",
        "ormas-monitor: no_gradients": "disconnected",
        # SageMaker Debugger's rules
        "debugger: VanishingGradient": "vanishing vanishing-in-time disconnected",
        "debugger: ExplodingTensor": "non-finite",
        "debugger: DeadRelu": "dead",
        "debugger: SaturatedActivation": "saturated",
        "debugger: PoorWeightInitialization": "vanishing exploding",
        "debugger: WeightUpdateRatio: large": "overshooting",
        "debugger: WeightUpdateRatio: small": "stalled not-updated lost-to-rounding clipped",
        "debugger: AllZero": "disconnected dead inputs",
        "debugger: UnchangedTensor": "stalled not-updated lost-to-rounding clipped not-learning",
        "debugger: LossNotDecreasing": "not-learning overshooting spiking",
        "debugger: Overfit": "overfitting",
        "debugger: StalledTraining": "",
    }.items()
}


def conditions_of(subject: str) -> frozenset[str]:
    """The conditions of a complaint; those of a gradflow finding are itself."""
    tool, _, condition = subject.partition(": ")
    return frozenset({condition}) if tool == "gradflow" else SUBJECTS[subject]
