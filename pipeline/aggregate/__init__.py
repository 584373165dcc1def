"""Readings to sums per interval and device, inside each bundle."""
