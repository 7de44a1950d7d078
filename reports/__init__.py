"""What shows the findings: one frozen `Document`, rendered as HTML and as PDF."""
