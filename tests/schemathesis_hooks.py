"""What schemathesis does not bring: how to send JSON lines."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
def send_lines(ctx: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()
