"""Draws figures: the common theme, and the kinds of panel."""
