"""Runs tinyd as it was installed into a folder, as systemd would: `python3 systemd/run_installed.py ROOT`.

The command line and the credentials are those of the unit, and so is the user, where that can be. It must say that it is ready,
make a link with the generated secret, redirect, fetch a destination by its name, back up, import, reload and end. What it asks the kernel for is recorded, and
must be what the unit allows. /proc has what the unit leaves of it.
"""

import contextlib
import http.client
import http.server
import os
import re
import shlex
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading

ROOT = sys.argv[1]
PATIENCE = 60
SETTINGS = os.path.join(ROOT, "etc/tinyd/tinyd.toml")
UNIT = os.path.join(ROOT, "usr/lib/systemd/system/tinyd.service")
TRACE = os.path.join(ROOT, "tmp/trace")
# Looked at by those who do without: the library that reads /proc; the C library's allocator, when it has many threads and
# finds no /sys here, before it asks the kernel how many processors there are; and jemalloc, which gives memory back by
# mapping it anew where it does not know whether the kernel overcommits.
DISPENSABLE = {"/proc/sys/kernel/osrelease", "/proc/stat", "/proc/sys/vm/overcommit_memory"}
# What tinyd knows of its process only from /proc, or tells together with it.
OF_THE_PROCESS = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_threads",
    "process_start_time_seconds",
)


def fail(text):
    sys.exit(f"systemd/check: {text}")


def settings(key):
    """The values of a key of the unit, in their order."""
    with open(UNIT) as unit:
        return [line.split("=", 1)[1].strip() for line in unit if line.startswith(key + "=")]


def system_calls(names):
    """The system calls of a filter: names and groups of names."""
    calls = set()
    for name in names:
        if name.startswith("@"):
            listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, text=True, capture_output=True)
            lines = [line.strip() for line in listed.stdout.splitlines()[1:]]
            calls |= system_calls(line for line in lines if line and not line.startswith("#"))
        else:
            calls.add(name)
    return calls


def allowed_system_calls():
    calls = set()
    for line in settings("SystemCallFilter"):
        if line.startswith("~"):
            calls -= system_calls(line[1:].split())
        else:
            calls |= system_calls(line.split())
    return calls


def check_trace():
    """Compares what was asked of the kernel with the sandbox."""
    with open(TRACE) as trace:
        lines = trace.read().splitlines()
    starts = [number for number, line in enumerate(lines) if 'execve("/usr/bin/tinyd"' in line and line.endswith("= 0")]
    if not starts:
        fail("no system calls were recorded")
    allowed = allowed_system_calls()
    families = set(settings("RestrictAddressFamilies")[0].split())
    folder = "/var/lib/" + settings("StateDirectory")[0]
    wrong, seen = set(), set()
    for line in lines[starts[0] :]:
        called = re.match(r"\d+ +(\w+)\((.*)", line)
        if not called:
            continue
        name, arguments = called.groups()
        seen.add(name)
        if name not in allowed:
            wrong.add(name)
        if name in ("mmap", "mprotect", "pkey_mprotect") and "PROT_EXEC" in arguments and "PROT_WRITE" in arguments:
            wrong.add("MemoryDenyWriteExecute: " + line)
        if name == "socket" and arguments.split(",")[0] not in families:
            wrong.add("RestrictAddressFamilies: " + line)
        if name in ("openat", "open") and re.search(r"O_WRONLY|O_RDWR|O_CREAT", arguments):
            path = re.search(r'"([^"]*)"', arguments)
            if path and not os.path.join(folder, path.group(1)).startswith(folder):
                wrong.add("ProtectSystem: " + line)
        path = re.search(r'"(/proc/[^"]*)"', arguments)
        if path and not re.match(r"/proc/(self|thread-self|\d+)(/|$)", path.group(1)) and path.group(1) not in DISPENSABLE:
            wrong.add("ProcSubset: " + line)
    if wrong:
        fail("the sandbox of the unit does not allow:\n" + "\n".join(sorted(wrong)))
    for needed in ("fdatasync", "pwrite64", "accept4", "epoll_wait"):
        if needed not in seen:
            fail(f"{needed} was never called, so the record of system calls is none")
    print(f"{len(seen)} system calls, all of them allowed")


class Manager:
    """The service manager's end of the socket."""

    def __init__(self):
        self.path = os.path.join(ROOT, "run/notify")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o777)
        self.socket.settimeout(PATIENCE)

    def wait_for(self, line):
        try:
            while line not in self.socket.recv(4096).decode().splitlines():
                pass
        except TimeoutError:
            fail(f"the service manager did not hear {line}")


class Destination(http.server.BaseHTTPRequestHandler):
    """What is fetched."""

    CONTENT = b"the content of the destination"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.CONTENT)))
        self.end_headers()
        self.wfile.write(self.CONTENT)

    def log_message(self, *arguments):
        pass


def answer_names(server):
    """Says of every name that it has the address 127.0.0.1, and no other."""
    while True:
        query, client = server.recvfrom(512)
        end = query.index(0, 12) + 5
        is_v4 = query[end - 4 : end - 2] == b"\0\1"
        head = query[:2] + struct.pack("!5H", 0x8180, 1, int(is_v4), 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH4B", 1, 1, 60, 4, 127, 0, 0, 1)
        server.sendto(head + query[12:end] + (record if is_v4 else b""), client)


@contextlib.contextmanager
def destination():
    """A destination on this machine, from which tinyd may fetch by the settings for as long as this lasts; its URL."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Destination)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 0))
    for serve in (server.serve_forever, lambda: answer_names(names)):
        threading.Thread(target=serve, daemon=True).start()
    with open(SETTINGS) as file:
        installed = file.read()
    # HTTPS, with a key that only the service manager can read.
    tls = '[public.tls]\nlisten = "127.0.0.1:0"\ncertificates = { cert_credential = "cert", key_credential = "key" }\n'
    more = f'allow = "127.0.0.1"\nports = {server.server_port}\nname_servers = "127.0.0.1:{names.getsockname()[1]}"\n'
    with open(SETTINGS, "w") as file:
        file.write(installed.replace("[fetch]\n", tls + "[fetch]\n" + more))
    try:
        yield f"http://destination.example:{server.server_port}/"
    finally:
        with open(SETTINGS, "w") as file:
            file.write(installed)


def own_user():
    """The user and group of the unit by number; None in a namespace that has no users but root."""
    with open("/proc/self/uid_map") as mapped:
        if int(mapped.read().split()[2]) < 65536:
            return None
    with open(os.path.join(ROOT, "etc/passwd")) as users:
        fields = next(line.split(":") for line in users if line.startswith(settings("User")[0] + ":"))
    return int(fields[2]), int(fields[3])


def with_proc():
    """The command before one that gets a /proc as the unit has it, in a place of its own."""
    options = f"subset={settings('ProcSubset')[0]},hidepid={settings('ProtectProc')[0]}"
    folder = os.path.join(ROOT, "proc")
    os.makedirs(folder, exist_ok=True)
    mount = f'mount -t proc -o {options} proc {shlex.quote(folder)} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh"]


def make_certificate(folder):
    """A certificate for this machine and its key, as the credentials of a drop-in."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", os.path.join(folder, "key"), "-out", os.path.join(folder, "cert")]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command.split() + files + names, check=True, capture_output=True)


def get(address, target, certificate=None):
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(address, timeout=PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request("GET", target)
    return connection.getresponse()


def main():
    owner = own_user()
    state, credentials = (os.path.join(ROOT, folder) for folder in ("var/lib/tinyd", "run/credentials/tinyd.service"))
    for folder in (state, credentials):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    for setting in settings("LoadCredential"):
        name, path = setting.split(":", 1)
        shutil.copyfile(ROOT + path, os.path.join(credentials, name))
        os.chmod(os.path.join(credentials, name), 0o400)
    make_certificate(credentials)
    if owner:
        for path in (state, credentials, *(entry.path for entry in os.scandir(credentials))):
            os.chown(path, *owner)

    manager = Manager()
    environment = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "1000000",
        "CREDENTIALS_DIRECTORY": "/run/credentials/tinyd.service",
        "STATE_DIRECTORY": "/var/lib/tinyd",
        "CONFIGURATION_DIRECTORY": "/etc/tinyd",
        # Ports of this machine that nobody has.
        "TINYD_PUBLIC": "127.0.0.1:0",
        "TINYD_ADMIN": "127.0.0.1:0",
    }
    user = [f"--userspec={owner[0]}:{owner[1]}"] if owner else []
    command = shlex.split(settings("ExecStart")[0])
    # -D: the process that is waited for and gets signals is tinyd.
    trace = ["strace", "-D", "-f", "-qq", "-o", TRACE]
    with destination() as url, open(os.path.join(ROOT, "tmp/log"), "w+") as log:
        process = subprocess.Popen(
            [*trace, *with_proc(), "chroot", *user, ROOT, *command],
            env=environment | {"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            exercise(process, manager, url, os.path.join(credentials, "cert"))
        except BaseException:
            process.kill()
            log.seek(0)
            print(log.read(), file=sys.stderr)
            raise
        log.seek(0)
        text = log.read()
    for name in os.listdir(credentials):
        with open(os.path.join(credentials, name)) as secret:
            if secret.read().strip() in text:
                fail(f"{name} stands in the log")
    check_trace()


def exercise(process, manager, url, certificate):
    lines = [process.stdout.readline().split() for _ in range(3)]
    addresses = {name: address.removeprefix("http://") for name, address in lines if address.startswith("http://")}
    secure = next(address.removeprefix("https://") for _, address in lines if address.startswith("https://"))
    manager.wait_for("READY=1")

    def tinyd_admin(*arguments):
        command = ["chroot", ROOT, "/usr/sbin/tinyd-admin", *arguments]
        environment = {"TINYD_URL": "http://" + addresses["admin"]}
        done = subprocess.run(command, env=environment | {"PATH": os.environ["PATH"]}, text=True, capture_output=True)
        if done.returncode != 0:
            fail(f"tinyd-admin {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    added = tinyd_admin("link", "add", "https://example.com/video", "--system-name", "CHECK")
    link = re.search(r"^id +(\w+)$", added, re.M).group(1)
    for address, trusted in ((addresses["public"], None), (secure, certificate)):
        answer = get(address, f"/api_v3/service/shortlink_shortlink/action/goto/id/{link}", trusted)
        if (answer.status, answer.getheader("location")) != (302, "https://example.com/video"):
            fail(f"the link answers {answer.status}")
    added = tinyd_admin("link", "add", url, "--system-name", "FETCH")
    fetched = re.search(r"^id +(\w+)$", added, re.M).group(1)
    answer = get(addresses["public"], f"/api_v3/service/shortlink_shortlink/action/goto/id/{fetched}/proxy/true")
    content = answer.read()
    if (answer.status, content) != (200, Destination.CONTENT):
        fail(f"a fetch answers {answer.status}: {content}")
    scrape = get(addresses["admin"], "/metrics").read().decode()
    samples = dict(line.rsplit(" ", 1) for line in scrape.splitlines() if not line.startswith("#"))
    unknown = [name for name in OF_THE_PROCESS if name not in samples]
    if unknown:
        fail("tinyd does not know of itself: " + ", ".join(unknown))
    tinyd_admin("export", "/tmp/links.jsonl")
    tinyd_admin("import", "/tmp/links.jsonl", "--on-conflict", "update")
    tinyd_admin("backup", "/tmp/backup.redb")
    tinyd_admin("link", "list")
    manager.wait_for("WATCHDOG=1")
    process.send_signal(1)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")
    process.terminate()
    manager.wait_for("STOPPING=1")
    if process.wait(PATIENCE) != 0:
        fail(f"it ended with {process.returncode}")
    print(f"runs as its unit says: link {link} redirects, {fetched} is fetched")


main()
