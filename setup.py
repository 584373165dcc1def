"""The `pipeline` package, as the template image installs it.

Dependencies are not repeated here: the image installs requirements.txt, hash-pinned, before this package.
"""

from setuptools import find_packages, setup

setup(
    name="sensor-stream",
    version="0.2.0",
    description="Live sensor readings in Pub/Sub to one tidy row per interval in BigQuery",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    packages=find_packages(include=["pipeline", "pipeline.*"]),
)
