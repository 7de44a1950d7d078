"""Conditions looked at while a model trains, when its numbers come off the device anyway."""
