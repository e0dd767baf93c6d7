"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something the user can fix. The message is one line: what is wrong, where, and the knob to turn."""
