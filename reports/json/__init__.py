"""Renders the findings as JSON that follows `report.schema.json`."""
