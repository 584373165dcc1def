"""Name of the step that holds open intervals.

When a job is updated, Dataflow hands a step's state to the step of the same name in the new job. If the new step
divided event time in another way, its open intervals would get wrong timestamps. Every parameter that must not change
is therefore part of the name: with another value, the service refuses the update and the old job keeps running.
"""


def emit_label(**held: tuple[int | str, int | str]) -> str:
    """Return "EmitIntervals", followed by each parameter that differs from the value that the plain name stands for.

    For example, emit_label(interval=(60, 15)) returns "EmitIntervals(interval 1m)".

    Args:
      held: (value, value that the plain name stands for) by parameter; numbers are seconds. The latter never
        changes, even if the parameter's default does.
    """
    differing = [f"{name} {_text(value)}" for name, (value, plain) in held.items() if value != plain]
    return f"EmitIntervals({', '.join(differing)})" if differing else "EmitIntervals"


def _text(value: int | str) -> str:
    if isinstance(value, str):
        return value
    if value and value % 3600 == 0:
        return f"{value // 3600}h"
    return f"{value // 60}m" if value and value % 60 == 0 else f"{value}s"
