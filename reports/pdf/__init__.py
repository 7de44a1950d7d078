"""Renders the report as PDF, with typst."""
