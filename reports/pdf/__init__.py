"""The report as PDF, laid out by typst."""
