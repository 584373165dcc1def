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
    if value and value % 3600 == 0:
        return f"{value // 3600}h"
    return f"{value // 60}m" if value and value % 60 == 0 else f"{value}s"
