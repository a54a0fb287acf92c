"""Errors of this project. A message says what failed, why, and what to do about it.

DebugStoreError
├── ConfigurationError    a setting that can't be used
├── InvalidSessionIdError an id with path parts or characters a file name should not have
├── SessionNotFoundError  no such session below the base path
├── FormatVersionError    data written by a newer version of this project
├── CorruptDataError      a journal, segment or archive that can't be read
│   └── ForeignFileError  because it is none: it is sound, and somebody else's
├── MalformedInputError   an imported file or request that is not what it claims to be
├── NotReplayableError   a payload that does not hold the whole of the value
└── QueryError            SQL that is wrong, or that is not allowed
"""


class DebugStoreError(Exception):
    """Anything this project raises on purpose; the text is one line for a person."""


class ConfigurationError(DebugStoreError, ValueError):
    """A setting has a value that can't be used."""


class InvalidSessionIdError(DebugStoreError, ValueError):
    """A session id has path parts or characters other than letters, digits, `.`, `_` and `-`."""


class SessionNotFoundError(DebugStoreError, LookupError):
    """No session of that id lies below the base path."""


class FormatVersionError(DebugStoreError):
    """The data was written by a newer version of this project."""


class CorruptDataError(DebugStoreError):
    """A journal, a segment or an archive can't be read."""


class ForeignFileError(CorruptDataError):
    """A file that is sound has the name of a journal or a segment, and is none."""


class MalformedInputError(DebugStoreError, ValueError):
    """Input is not in the format it was taken for."""


class NotReplayableError(DebugStoreError, ValueError):
    """A payload is a summary, was cut or masked, or needs a class that is not loaded."""


class QueryError(DebugStoreError):
    """SQL that is wrong, or that tries what a query may not do."""
