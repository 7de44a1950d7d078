"""What the commands share: exit codes, interrupts, lack of memory."""
