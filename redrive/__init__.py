"""Sends dead letters back, beside the dataflow: `python -m redrive`."""
