"""The one exception that users are meant to read."""


class InputError(Exception):
    """Something the user gave (a slide, an outline file, a sheet, a key) cannot be used.

    The message names the file, the row or key, what was found and what to do.
    """


class DamagedRegion(Exception):
    """A region of a slide cannot be decoded; the rest of the slide may still be good."""
