"""Has redbot look at answers.

Reads requests from standard input, one JSON object a line: method, url, headers (pairs) and body. Writes for each what came, one
JSON object a line: status, error (why there was no answer), and notes, each with name, level, subject and summary. The notes of
redbot's own further requests (content negotiation, ranges, validation) are among them.
"""

import json
import sys
from configparser import ConfigParser

import thor
from redbot.resource import HttpResource

SECONDS = 60


def note_of(note):
    return {
        "name": type(note).__name__,
        "level": note.level.value,
        "subject": note.subject,
        "summary": note.summary,
    }


def main():
    parser = ConfigParser()
    # Loopback is not looked at otherwise.
    parser.read_dict({"redbot": {"enable_local_access": "True"}})
    config = parser["redbot"]
    requests = [json.loads(line) for line in sys.stdin if line.strip()]
    resources = []
    left = len(requests)

    for request in requests:
        resource = HttpResource(config)
        headers = [(name, value) for name, value in request["headers"]]
        resource.set_request(request["url"], request["method"], headers, request["body"].encode())
        # What a preflight is, for one, the linter knows by the request only.
        for fetcher in [resource, *resource.subreqs.values()]:
            fetcher.response.request = fetcher.request

        @thor.events.on(resource)
        def check_done():
            nonlocal left
            left -= 1
            if left == 0:
                thor.stop()

        resources.append(resource)
    for resource in resources:
        resource.check()
    if left:
        thor.schedule(SECONDS, thor.stop)
        thor.run()

    for resource in resources:
        messages = [resource.response] + [check.response for check in resource.subreqs.values()]
        notes = {}
        for message in messages:
            for note in message.notes:
                notes.setdefault((type(note).__name__, note.subject), note_of(note))
        error = resource.fetch_error
        if not resource.check_done:
            error = error or f"not done within {SECONDS} seconds"
        found = {
            "status": resource.response.status_code,
            "error": None if error is None else str(getattr(error, "desc", error)),
            "notes": list(notes.values()),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
