"""The version of the package and of its dead letters."""

VERSION = "1.0.0"
