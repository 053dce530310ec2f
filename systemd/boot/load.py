"""Clients of tinyd, in the network of a container: `python3 load.py KIND [ARGUMENT ...]`.

Prints a line of JSON when it has begun and whenever it gets a line, and ends with its input. It tries nothing again:
any answer but the right one is a failure.
"""

import contextlib
import http.server
import json
import os
import pathlib
import socket
import sys
import threading
import time
import urllib.parse

PUBLIC, ADMIN = ("127.0.0.1", 8080), ("127.0.0.1", 8081)
ACTION = "/api_v3/service/shortlink_shortlink/action/"
TIMEOUT_SECONDS = 60
# What the slow destination sends at first, and after the pause.
HALF = 1_000_000
DESTINATION_PORT = 9000
# A failure has many like it.
FAILURES_SHOWN = 5


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.answered, self.failures, self.slowest_ms = 0, [], 0

    def add(self, seconds):
        with self.lock:
            self.answered += 1
            self.slowest_ms = max(self.slowest_ms, round(seconds * 1000))

    def fail(self, error):
        with self.lock:
            self.failures.append(f"{type(error).__name__}: {error}")

    def shown(self):
        with self.lock:
            return {
                "answered": self.answered,
                "failed": len(self.failures),
                "failures": self.failures[:FAILURES_SHOWN],
                "slowest_ms": self.slowest_ms,
            }


def ask(connection, request):
    """The status, head and body of an answer."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"closed after {received!r}")
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    head = head.decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed within a body")
        body += part
    return int(head.split()[1]), head, body


def get(target, more=""):
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def redirects(status, head):
    if status != 302:
        raise ConnectionError(f"answered {status}")
    return "connection: close" in head


def redirect(counts, target, stop, keep):
    """Redirects one after the other, each on a connection of its own or on a kept one."""
    connection = None
    while not stop.is_set():
        try:
            began = time.monotonic()
            connection = connection or socket.create_connection(PUBLIC, TIMEOUT_SECONDS)
            status, head, _ = ask(connection, get(target, "" if keep else "Connection: close\r\n"))
            is_last = redirects(status, head)
            counts.add(time.monotonic() - began)
        except OSError as error:
            counts.fail(error)
            is_last = True
        if (is_last or not keep) and connection:
            connection.close()
            connection = None


def hold(number, target):
    """Idle connections that have had an answer each."""
    connections = []
    for _ in range(number):
        connection = socket.create_connection(PUBLIC, TIMEOUT_SECONDS)
        redirects(*ask(connection, get(target))[:2])
        connections.append(connection)
    return connections


def follow_input(shown):
    print(json.dumps(shown()), flush=True)
    for _ in sys.stdin:
        print(json.dumps(shown()), flush=True)


def load(target, new, kept, idle):
    """So many threads with new connections, so many with kept ones, and idle connections."""
    connections = hold(int(idle), target)
    stop, counts = threading.Event(), {"new": Counts(), "kept": Counts()}
    threads = [threading.Thread(target=redirect, args=(counts["new"], target, stop, False)) for _ in range(int(new))]
    threads += [threading.Thread(target=redirect, args=(counts["kept"], target, stop, True)) for _ in range(int(kept))]
    for thread in threads:
        thread.start()
    shown = lambda: {kind: count.shown() for kind, count in counts.items()}
    follow_input(shown)
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(shown()), flush=True)
    for connection in connections:
        connection.close()


def add_links(counts, session, file, number, stop):
    """Adds links, and writes down each that is acknowledged."""
    connection = None
    for count in range(10**9):
        if stop.is_set():
            return
        destination = f"https://example.com/{number}/{count}"
        fields = {"ks": session, "format": 1, "shortLink[systemName]": "WRITE", "shortLink[fullUrl]": destination}
        body = urllib.parse.urlencode(fields)
        head = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        request = f"POST {ACTION}add HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{body}".encode()
        try:
            began = time.monotonic()
            connection = connection or socket.create_connection(ADMIN, TIMEOUT_SECONDS)
            status, head, answer = ask(connection, request)
            link = json.loads(answer)
            if status != 200 or "id" not in link:
                raise ConnectionError(f"answered {status}: {answer[:200]!r}")
            counts.add(time.monotonic() - began)
            with counts.lock:
                file.write(f"{link['id']} {destination}\n")
        except (OSError, ValueError) as error:
            counts.fail(error)
            head = "connection: close"
        if "connection: close" in head and connection:
            connection.close()
            connection = None


def write(path, threads):
    """Adds links until the end of the input; those that are acknowledged are in the file."""
    session, stop, counts = os.environ["KS"], threading.Event(), Counts()
    with open(path, "a") as file:
        writers = [
            threading.Thread(target=add_links, args=(counts, session, file, n, stop)) for n in range(int(threads))
        ]
        for writer in writers:
            writer.start()
        follow_input(counts.shown)
        stop.set()
        for writer in writers:
            writer.join()
    print(json.dumps(counts.shown()), flush=True)


def verify(path):
    """Each link of a file must redirect as it was acknowledged."""
    counts, connection = Counts(), None
    for line in pathlib.Path(path).read_text().splitlines():
        link, destination = line.split()
        connection = connection or socket.create_connection(PUBLIC, TIMEOUT_SECONDS)
        status, head, _ = ask(connection, get(f"{ACTION}goto/id/{link}"))
        if status == 302 and f"location: {destination}\r\n" in head + "\r\n":
            counts.add(0)
        else:
            counts.fail(ConnectionError(f"{link} answers {status}"))
        if "connection: close" in head:
            connection.close()
            connection = None
    print(json.dumps(counts.shown()), flush=True)


class SlowDestination(http.server.BaseHTTPRequestHandler):
    """Sends half, and the rest once it may."""

    may_end = threading.Event()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(2 * HALF))
        self.end_headers()
        self.wfile.write(b"1" * HALF)
        self.may_end.wait()
        with contextlib.suppress(OSError):
            self.wfile.write(b"2" * HALF)

    def log_message(self, *arguments):
        pass


def download(target):
    """A download whose destination pauses until the end of the input; how much of it arrives."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", DESTINATION_PORT), SlowDestination)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    counts, received = Counts(), 0
    with socket.create_connection(PUBLIC, TIMEOUT_SECONDS) as connection:
        connection.sendall(get(target, "Connection: close\r\n"))
        try:
            while (part := connection.recv(65536)) and (received := received + len(part)) < HALF:
                pass
            follow_input(counts.shown)
            SlowDestination.may_end.set()
            while part := connection.recv(65536):
                received += len(part)
        except OSError as error:
            counts.fail(error)
    if received < 2 * HALF:
        counts.fail(ConnectionError(f"{received} bytes of more than {2 * HALF}"))
    print(json.dumps(counts.shown()), flush=True)
    server.shutdown()


KINDS = {"load": load, "write": write, "verify": verify, "download": download}
KINDS[sys.argv[1]](*sys.argv[2:])
