"""Sums to intervals: fixed, hopping and session windows, and what is late."""
