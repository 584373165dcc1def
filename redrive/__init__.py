"""Sends dead letters back to the topic or the output table: `python -m redrive`."""
