"""Spans of OpenTelemetry: what the parts of a call take. Without a provider of spans they cost microseconds.

`opentelemetry-instrument taskcell serve` sets a provider up from the variables OTEL_*; taskcell sets none up itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

_tracer = trace.get_tracer("taskcell")


def are_collected() -> bool:
    """Whether a provider of spans was set up when this process started."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def span(name: str, **attributes: str) -> Iterator[None]:
    """Measure what happens while this is entered, as a part of the call that is being served.

    Of an exception the span has its class alone: messages can hold what a command printed.

    Arguments:
        name: without `taskcell.`.
        attributes: by their names without `taskcell.`; never a command, its input or its output.
    """
    named = {f"taskcell.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(
        f"taskcell.{name}", attributes=named, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(trace.StatusCode.ERROR)
            raise
