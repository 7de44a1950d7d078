"""What is recorded: which modules, in which steps, and which groups have totals."""
