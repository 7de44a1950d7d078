"""The record of a step on the device, and how it becomes rows."""
