"""Checks that every value that was published is in exactly one place."""
