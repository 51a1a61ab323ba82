"""Publishes events and issues tickets with a downlink server. Needs no package."""

import json
import os
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

URL = os.environ.get("DOWNLINK_URL", "http://127.0.0.1:8080")
KEY = Path(os.environ.get("DOWNLINK_KEY_FILE", "downlink-publish.key")).read_text().strip()
TIMEOUT_S = 5


def publish(topic, event, data):
    """Publishes one event. Returns when the event is on the disk of the server."""
    return _post("/events", [("topic", topic), ("event", event)], json.dumps(data).encode())


def ticket(topics, client):
    """Returns the URL with which the page of this user subscribes to these topics."""
    topics = [("topic", topic) for topic in topics]
    return _post("/tickets", [*topics, ("client", client)])["url"]


def revoke(client):
    """Ends the tickets and streams of a user. First end the session of the user."""
    _post("/revoke", [("client", client)])


def _post(path, parameters, body=b""):
    request = Request(f"{URL}{path}?{urlencode(parameters)}", data=body, method="POST")
    request.add_header("Authorization", f"Bearer {KEY}")
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)
