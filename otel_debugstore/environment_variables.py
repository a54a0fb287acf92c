"""The variables this project reads; `opentelemetry-instrument --help` lists them as flags.

The flag of a variable is its name without `OTEL_`, in lower case: `--debugstore_path`.
"""

from typing import Final

OTEL_DEBUGSTORE_PATH: Final = "OTEL_DEBUGSTORE_PATH"
"""
.. envvar:: OTEL_DEBUGSTORE_PATH

The directory in which sessions are kept.
Default: "debug_data" below the working directory
"""

OTEL_DEBUGSTORE_SESSION: Final = "OTEL_DEBUGSTORE_SESSION"
"""
.. envvar:: OTEL_DEBUGSTORE_SESSION

The session to record into: letters, digits, ".", "_" and "-". A process that chooses a session
itself sets this variable for its children.
Default: the name of the service or script, "_" and the UTC time
"""

OTEL_DEBUGSTORE_DURABILITY: Final = "OTEL_DEBUGSTORE_DURABILITY"
"""
.. envvar:: OTEL_DEBUGSTORE_DURABILITY

"sync": a batch is on the disk when it was acknowledged. "interval": it survives the death of the
process at once, and that of the machine after a few seconds.
Default: "sync"
"""

OTEL_DEBUGSTORE_SCHEDULE_DELAY: Final = "OTEL_DEBUGSTORE_SCHEDULE_DELAY"
"""
.. envvar:: OTEL_DEBUGSTORE_SCHEDULE_DELAY

The longest time an ended span waits before it is written, in milliseconds.
Default: 1000
"""

OTEL_DEBUGSTORE_QUEUE_SIZE: Final = "OTEL_DEBUGSTORE_QUEUE_SIZE"
"""
.. envvar:: OTEL_DEBUGSTORE_QUEUE_SIZE

The memory that ended spans may take until they are written: bytes, or a number with KB, MB, GB,
KiB, MiB or GiB.
Default: 64MiB
"""

OTEL_DEBUGSTORE_SEGMENT_SPANS: Final = "OTEL_DEBUGSTORE_SEGMENT_SPANS"
"""
.. envvar:: OTEL_DEBUGSTORE_SEGMENT_SPANS

The number of spans after which the journal is sealed into a segment.
Default: 122880
"""

OTEL_DEBUGSTORE_RETENTION_AGE: Final = "OTEL_DEBUGSTORE_RETENTION_AGE"
"""
.. envvar:: OTEL_DEBUGSTORE_RETENTION_AGE

Sealed data older than this is deleted: a number with s, m, h, d or w (seconds to weeks).
Default: nothing is deleted
"""

OTEL_DEBUGSTORE_RETENTION_SIZE: Final = "OTEL_DEBUGSTORE_RETENTION_SIZE"
"""
.. envvar:: OTEL_DEBUGSTORE_RETENTION_SIZE

The oldest sealed data is deleted when all of it takes more than this: bytes, or a number with a
unit as for the queue.
Default: nothing is deleted
"""
