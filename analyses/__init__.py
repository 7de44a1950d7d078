"""What explains the recorded runs: one question a file, each answer a frozen finding.

Works on pandas frames alone; never loads torch.
"""
