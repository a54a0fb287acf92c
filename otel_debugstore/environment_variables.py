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

OTEL_DEBUGSTORE_TARGETS: Final = "OTEL_DEBUGSTORE_TARGETS"
"""
.. envvar:: OTEL_DEBUGSTORE_TARGETS

Functions to record without a change to the program: "pkg.mod:Class.method=tool, pkg.tools.*:*=tool".
Default: none
"""

OTEL_DEBUGSTORE_CHILD: Final = "OTEL_DEBUGSTORE_CHILD"
"""
.. envvar:: OTEL_DEBUGSTORE_CHILD

"full": the process of a node starts with OpenTelemetry. "light": it loads OpenTelemetry when it
imports it, or what is to be recorded.
Default: "full"
"""

OTEL_DEBUGSTORE_HOOKS: Final = "OTEL_DEBUGSTORE_HOOKS"
"""
.. envvar:: OTEL_DEBUGSTORE_HOOKS

What a program's modules are called: "registry=node_registry, node_runner=runner|src.node_runner".
Default: registry, node_runner, node_runtime, tools_manager, workflow_tracker, auto_evolver
"""

OTEL_DEBUGSTORE_THREAD_POOLS: Final = "OTEL_DEBUGSTORE_THREAD_POOLS"
"""
.. envvar:: OTEL_DEBUGSTORE_THREAD_POOLS

Whether OpenTelemetry's context goes along into every ThreadPoolExecutor.
Default: "false"
"""

OTEL_DEBUGSTORE_CAPTURE: Final = "OTEL_DEBUGSTORE_CAPTURE"
"""
.. envvar:: OTEL_DEBUGSTORE_CAPTURE

What is kept of arguments and results: "full", "digest" or "none"; also by layer and component:
"digest, tool=full, shop.pay*=none". A mistake in it keeps nothing.
Default: "full"
"""

OTEL_DEBUGSTORE_OVERHEAD_BUDGET: Final = "OTEL_DEBUGSTORE_OVERHEAD_BUDGET"
"""
.. envvar:: OTEL_DEBUGSTORE_OVERHEAD_BUDGET

Which share of the time recording functions may take; beyond it their calls are sampled, and all are
counted. "off" records every call; also by component: "1%, shop.parse=5%".
Default: 1%
"""

OTEL_DEBUGSTORE_PAYLOAD_BYTES: Final = "OTEL_DEBUGSTORE_PAYLOAD_BYTES"
"""
.. envvar:: OTEL_DEBUGSTORE_PAYLOAD_BYTES

The most that is kept of the arguments, or of the result, of one call: bytes, or a number with a unit
as for the queue, from 256 to 4MiB. One text may have half of it.
Default: 64KiB
"""

OTEL_DEBUGSTORE_PAYLOAD_ITEMS: Final = "OTEL_DEBUGSTORE_PAYLOAD_ITEMS"
"""
.. envvar:: OTEL_DEBUGSTORE_PAYLOAD_ITEMS

The most items that are kept of all lists, maps and other containers in them together, from 1 to 1000000.
Default: 4096
"""

OTEL_DEBUGSTORE_PAYLOAD_DEPTH: Final = "OTEL_DEBUGSTORE_PAYLOAD_DEPTH"
"""
.. envvar:: OTEL_DEBUGSTORE_PAYLOAD_DEPTH

How many containers in one another are kept, from 1 to 60.
Default: 20
"""

OTEL_DEBUGSTORE_EXPORT_PAYLOADS: Final = "OTEL_DEBUGSTORE_EXPORT_PAYLOADS"
"""
.. envvar:: OTEL_DEBUGSTORE_EXPORT_PAYLOADS

Whether other exporters get arguments and results, as attributes.
Default: "false"
"""

OTEL_DEBUGSTORE_MASK_KEYS: Final = "OTEL_DEBUGSTORE_MASK_KEYS"
"""
.. envvar:: OTEL_DEBUGSTORE_MASK_KEYS

Further names whose values are masked, separated by commas.
Default: none
"""

OTEL_DEBUGSTORE_MASK_PATTERNS: Final = "OTEL_DEBUGSTORE_MASK_PATTERNS"
"""
.. envvar:: OTEL_DEBUGSTORE_MASK_PATTERNS

A regular expression; what it matches is masked.
Default: none
"""

OTEL_DEBUGSTORE_MASK_EMAILS: Final = "OTEL_DEBUGSTORE_MASK_EMAILS"
"""
.. envvar:: OTEL_DEBUGSTORE_MASK_EMAILS

Whether e-mail addresses are masked.
Default: "false"
"""

OTEL_DEBUGSTORE_LAYERS: Final = "OTEL_DEBUGSTORE_LAYERS"
"""
.. envvar:: OTEL_DEBUGSTORE_LAYERS

Layers for the spans of other instrumentations: "attribute=value:layer", separated by commas.
Default: none
"""

OTEL_DEBUGSTORE_MEMORY_RESET: Final = "OTEL_DEBUGSTORE_MEMORY_RESET"
"""
.. envvar:: OTEL_DEBUGSTORE_MEMORY_RESET

Whether the kernel's mark of the most memory may be reset, for exact peaks of every call; that lowers
the ru_maxrss that the program sees of itself.
Default: "false"
"""
