"""Names of the attributes this project sets or reads: its own, and the conventions it follows.

The OpenTelemetry gen_ai names are still moving, so they are owned here and nowhere else.
"""

from typing import Final

LAYER: Final = "debugstore.layer"
COMPONENT: Final = "debugstore.component"
VARIANT: Final = "debugstore.variant"
INPUT_DIGEST: Final = "debugstore.input.digest"
OUTPUT_DIGEST: Final = "debugstore.output.digest"
CPU_TIME_NS: Final = "debugstore.cpu.time_ns"
MEMORY_PEAK_BYTES: Final = "debugstore.memory.peak_bytes"
MEMORY_NET_BYTES: Final = "debugstore.memory.net_bytes"
IO_READ_BYTES: Final = "debugstore.io.read_bytes"
IO_WRITE_BYTES: Final = "debugstore.io.write_bytes"

RECORD_CONTEXT_ID: Final = "debugstore.record.context_id"
RECORD_PARENT_CONTEXT: Final = "debugstore.record.parent_context"
RECORD_REQUEST: Final = "debugstore.record.request_data"
RECORD_RESPONSE: Final = "debugstore.record.response_data"
RECORD_METADATA: Final = "debugstore.record.metadata"
RECORD_MEMORY_MB: Final = "debugstore.record.memory_mb"
RECORD_CPU_PERCENT: Final = "debugstore.record.cpu_percent"
RECORD_STATUS: Final = "debugstore.record.status"
RECORD_CODE: Final = "debugstore.record.code_snapshot"

ORIGINAL_TRACE_ID: Final = "debugstore.original.trace_id"
ORIGINAL_SPAN_ID: Final = "debugstore.original.span_id"
ORIGINAL_PARENT_ID: Final = "debugstore.original.parent_id"

SERVICE_NAME: Final = "service.name"
SESSION_ID: Final = "session.id"
PROCESS_PID: Final = "process.pid"
THREAD_ID: Final = "thread.id"
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_FILE_PATH: Final = "code.file.path"
CODE_LINE_NUMBER: Final = "code.line.number"
ERROR_TYPE: Final = "error.type"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
