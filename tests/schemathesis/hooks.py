"""An extension of Schemathesis: bodies with one JSON object in each line."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: schemathesis.SerializationContext, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (json.dumps(value) + "\n").encode()
