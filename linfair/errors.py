"""Errors shared across floors."""


class GateError(ValueError):
    """A network, shape or mask that gates cannot work with; the message says what to change."""
