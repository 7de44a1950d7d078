"""The format of a run folder: tables, quantities, files, their manifest and their limits."""
