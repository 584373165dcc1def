"""The name of the step that holds what is not yet in a row.

An update carries what a step holds over to the step of the same name. If that one cuts event time in another way, it
stamps open intervals wrongly; with another name the service refuses the update, and the old job runs on. So whatever
must not change is in the name.
"""


def emit_label(**held: tuple[int | str, int | str]) -> str:
    """Return "EmitIntervals", with each parameter that differs: emit_label(interval=(60, 15)) adds "(interval 1m)".

    Args:
      held: by parameter, its value and that of the plain name; numbers are seconds. The plain values are what the name
        meant when it said nothing more, whatever defaults may become.
    """
    told = [f"{name} {_text(value)}" for name, (value, plain) in held.items() if value != plain]
    return f"EmitIntervals({', '.join(told)})" if told else "EmitIntervals"


def _text(value: int | str) -> str:
    if isinstance(value, str):
        return value
    length, unit = next(
        (n, unit) for n, unit in ((3600, "h"), (60, "m"), (1, "s")) if n == 1 or value and value % n == 0
    )
    return f"{value // length}{unit}"
