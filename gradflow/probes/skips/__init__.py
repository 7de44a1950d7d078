"""Probes of skips and branches: lesions, path lengths and scaled skips."""
