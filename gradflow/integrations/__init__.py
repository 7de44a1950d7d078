"""Callbacks that trace a training run by another library's trainer, each in its conventions.

A module is named after its library, and imports it: `gradflow.integrations.lightning`.
"""
