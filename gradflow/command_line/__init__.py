"""Shared by all commands: exit codes, interrupts, running out of memory."""
