# Reads an event stream with httpx-sse. Prints each event as {"event", "data", "id"} on one line.
import json
import sys

import httpx
from httpx_sse import connect_sse

with httpx.Client(timeout=None, trust_env=False) as client:
    with connect_sse(client, "GET", sys.argv[1]) as source:
        for event in source.iter_sse():
            line = {"event": event.event, "data": event.data, "id": event.id}
            print(json.dumps(line), flush=True)
