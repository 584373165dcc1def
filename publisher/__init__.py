"""Simulated sensors that publish readings to Pub/Sub, and a plain listener. Needs neither Beam nor `pipeline`."""
