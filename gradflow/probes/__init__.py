"""Measurements that run the live model again, or change one thing in it for a while."""
