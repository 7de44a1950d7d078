"""Trains each network with each seed under the tracer, and resumes an interrupted experiment."""
