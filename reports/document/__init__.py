"""Builds the `Document` that all formats render: its texts, numbers and figures."""
