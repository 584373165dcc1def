"""Simulated sensors that publish readings to Pub/Sub, and a plain listener; imports neither Beam nor `pipeline`."""
