"""For tools that look for a setup.py, as those of Dataflow templates do; pyproject.toml holds everything."""

from setuptools import setup

setup()
