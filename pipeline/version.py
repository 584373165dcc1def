"""The version of the package and of its dead letters."""

VERSION = "0.2.0"
