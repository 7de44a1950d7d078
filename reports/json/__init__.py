"""The findings as JSON, after `report.schema.json`."""
