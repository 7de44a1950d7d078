"""What explains the jumps: sampling noise, stale batch-norm statistics, or real change?"""
