"""Writes the metadata and the spec of the Flex Template. Not in the template's image."""
