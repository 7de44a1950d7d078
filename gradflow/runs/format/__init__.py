"""What stands in a run folder: tables, quantities, files, their list and their limits."""
