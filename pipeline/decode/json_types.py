"""Names of JSON types."""


def json_type(value: object) -> str:
    """Return the name of a value's JSON type, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
