"""Reports: one frozen `Document` of the findings, rendered as HTML, PDF, Markdown and JSON."""
