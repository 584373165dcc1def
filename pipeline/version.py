"""The version of the package; dead letters record it as `pipeline_version`."""

VERSION = "1.0.0"
