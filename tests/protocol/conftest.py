"""Hypothesis draws the same examples every time, and measures no time: a slow machine is no failure."""

from hypothesis import settings

settings.register_profile("stcp", deadline=None, derandomize=True)
settings.load_profile("stcp")
