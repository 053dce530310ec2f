"""Runs what systemd/packaging/dist made: `python3 systemd/packaging/run_packages.py DIST ARCHIVE IMAGE CONFIG`, in namespaces of its own
for mounts, network and processes.

DIST has the packages, ARCHIVE is the unpacked archive, IMAGE the unpacked root of the container image, CONFIG its
configuration. Each is started, gets a link, redirects and ends. The image runs as a container does: its root is read-only, its process is the
first, and its user is any.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

DIST, ARCHIVE, IMAGE = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
CONFIG = json.loads(pathlib.Path(sys.argv[4]).read_text())
MANUAL = pathlib.Path(__file__).resolve().parents[2] / "docs/operating.md"
PATIENCE = 60
POLL = 0.02
# The ports of the image, and of the archive by its defaults.
PUBLIC, ADMIN = 8080, 8081
DESTINATION = "https://example.com/video"
# What only the resolver here knows.
NAME = "tinyd.test"
# A service whose library ends the program that loads it, as others do that are built for the machine's C library.
NSSWITCH = "hosts: files trap [!UNAVAIL=return] dns\n"
TRAP = "__attribute__((constructor)) static void trap(void) { __builtin_trap(); }\n"
OTHER_USER = 54321
# Those that every engine provides (OCI runtime specification, default devices).
DEVICES = ("full", "null", "random", "urandom", "zero")


def fail(text):
    sys.exit(f"systemd/packaging/run_packages.py: {text}")


def resolver():
    """Answers that NAME has the loopback address; it has no IPv6 address."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, client = server.recvfrom(512)
        labels = question[12 : question.index(0, 12) + 5]
        is_known = labels.startswith(b"\x05tinyd\x04test\x00\x00\x01")
        record = b"\xc0\x0c\x00\x01\x00\x01" + struct.pack(">IH", 60, 4) + bytes([127, 0, 0, 1]) if is_known else b""
        server.sendto(question[:2] + struct.pack(">HHHHH", 0x8580, 1, is_known, 0, 0) + labels + record, client)


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path, headers={"User-Agent": "Mozilla/5.0"})
    response = connection.getresponse()
    response.read()
    return response


def wait_until_ready(process):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            if get(ADMIN, "/readyz").status == 200:
                return
        time.sleep(POLL)
    process.kill()
    fail(f"tinyd is not ready: {process.communicate()[1]}")


def click(said):
    """Follows the short URL that `tinyd link add` has printed."""
    found = re.search(rf"^short URL +http://127.0.0.1:{PUBLIC}(/tiny/(\w+))$", said, re.M)
    if not found:
        fail(f"tinyd link add says {said}")
    hop = get(PUBLIC, found[1])
    redirect = get(PUBLIC, hop.getheader("location") or fail(f"{found[1]} answers {hop.status}"))
    if (hop.status, redirect.status, redirect.getheader("location")) != (301, 302, DESTINATION):
        fail(f"the link leads to {redirect.status} {redirect.getheader('location')}")
    return found[2]


def exercise(tinyd):
    """Adds a link, clicks it, and has it counted."""
    link = click(tinyd("link", "add", DESTINATION, "--system-name", "FIRST-LINK"))
    shown = json.loads(tinyd("link", "get", link, "--json"))
    if shown["clicks"] != 1:
        fail(f"the click is not counted: {shown}")
    # By the resolver of the C library.
    if "healthy" not in tinyd("status", "--url", f"http://{NAME}:{ADMIN}"):
        fail(f"{NAME} is not looked up")
    return link


def finish(process, pid):
    os.kill(pid, signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)[1]
    if process.returncode != 0:
        fail(f"tinyd ends with {process.returncode}: {said}")
    return said


def started(command, **options):
    return subprocess.Popen(
        list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def finished(command, expected=0, **options):
    process = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=PATIENCE, **options)
    if process.returncode != expected:
        fail(f"{command} ends with {process.returncode}: {process.stdout}{process.stderr}")
    return process.stdout + process.stderr


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def bind(content, path):
    """Replaces a file, in the mounts of this process only."""
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    mount("--bind", file.name, path)
    os.unlink(file.name)


def run_archive(work):
    program, data = ARCHIVE / "bin/tinyd", work / "data"
    environment = {"PATH": "/nowhere", "LD_LIBRARY_PATH": str(work)}
    subprocess.run(
        ["cc", "-shared", "-nostdlib", "-x", "c", "-o", work / "libnss_trap.so.2", "-"],
        input=TRAP,
        text=True,
        check=True,
    )
    process = started([program, "serve", "--data", data], env=environment)
    wait_until_ready(process)
    exercise(
        lambda *arguments: finished(
            [program, *arguments, *(["--data", data] if "--url" not in arguments else [])], env=environment
        )
    )
    finish(process, process.pid)
    print("archive: started, redirected, counted, ended")


def install_archive(work):
    """Runs the commands of the manual to the letter, but for those that need a systemd, on a copy of this machine."""
    section = MANUAL.read_text().partition("### Install from the archive\n")[2]
    commands = re.search(r"(?m)(^    .+\n)+", section)[0].replace("x86_64", os.uname().machine)
    commands, count = re.subn(r" && systemctl .+", "", commands)
    if count != 1 or "tinyd-admin check" not in commands:
        fail(f"the manual has no commands to install the archive: {commands}")
    work.mkdir()
    mount("-t", "tmpfs", "tmpfs", work)
    for name in ("etc", "usr"):
        upper, inner = work / name, work / f"{name}.work"
        upper.mkdir()
        inner.mkdir()
        mount("-t", "overlay", "overlay", "-o", f"lowerdir=/{name},upperdir={upper},workdir={inner}", f"/{name}")
    shutil.copytree(DIST, work / "dist")
    said = finished(["bash", "-euc", commands], cwd=work / "dist")
    if "/etc/tinyd/tinyd.toml: ok" not in said or "tinyd" not in pathlib.Path("/etc/passwd").read_text():
        fail(f"the archive is not installed: {said}")
    for name in ("etc", "usr"):
        subprocess.run(["umount", "--lazy", f"/{name}"], check=True)
    subprocess.run(["umount", work], check=True)
    print("archive: installed by the commands of the manual")


class Container:
    """The image as an engine runs it."""

    def __init__(self, user, volume):
        self.user = user
        self.enter = ["unshare", "--root", IMAGE, "--wd", CONFIG["WorkingDir"], "--setgid", user, "--setuid", user]
        self.environment = dict(pair.split("=", 1) for pair in CONFIG["Env"])
        secret = IMAGE / "run/secrets/admin_secret"
        secret.parent.mkdir(parents=True, exist_ok=True)
        for folder in (secret.parent.parent, secret.parent):
            os.chmod(folder, 0o755)
        secret.unlink(missing_ok=True)
        secret.write_text("0123456789abcdef0123456789abcdef\n")
        os.chown(secret, user, user)
        os.chmod(secret, 0o400)
        (IMAGE / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        for folder in ("dev", "proc"):
            (IMAGE / folder).mkdir(exist_ok=True)
        for device in DEVICES:
            (IMAGE / "dev" / device).touch()
        # A new volume has the mode of its folder in the image.
        [path] = CONFIG["Volumes"]
        folder = IMAGE / path.lstrip("/")
        if not volume.exists():
            volume.mkdir()
            os.chmod(volume, folder.stat().st_mode & 0o7777)
        mount("--bind", IMAGE, IMAGE)
        mount("--options", "remount,bind,ro", IMAGE)
        mount("--bind", volume, folder)
        for device in DEVICES:
            mount("--bind", f"/dev/{device}", IMAGE / "dev" / device)

    def start(self):
        pid_namespace = ["--pid", "--fork", "--kill-child", "--mount-proc=/proc"]
        command = [*self.enter, *pid_namespace, "--", *CONFIG["Entrypoint"], *CONFIG["Cmd"]]
        return started(command, env=self.environment)

    def execute(self, *arguments):
        return finished([*self.enter, "--", *arguments], env=self.environment)

    def close(self):
        subprocess.run(["umount", "--recursive", IMAGE], check=True)


def child_of(process):
    return int(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def run_image(user, volume, links):
    container = Container(user, volume)
    process = container.start()
    wait_until_ready(process)
    container.execute(*CONFIG["Healthcheck"]["Test"][1:])
    for link in links:
        if get(PUBLIC, f"/tiny/{link}").status != 301:
            fail(f"{link} is lost after a restart")
    links.append(exercise(lambda *arguments: container.execute("tinyd", *arguments)))
    status = pathlib.Path(f"/proc/{child_of(process)}/status").read_text()
    if not re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.M) or not re.search(
        r"^NSpid:.*\t1$", status, re.M
    ):
        fail(f"tinyd is not the first process, or not of user {user}")
    for line in finish(process, child_of(process)).splitlines():
        if not isinstance(json.loads(line), dict):
            fail(f"the log is not JSON: {line}")
    container.close()


def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    mount("--make-rprivate", "/")
    threading.Thread(target=resolver, daemon=True).start()
    bind("nameserver 127.0.0.1\n", "/etc/resolv.conf")
    bind(NSSWITCH, "/etc/nsswitch.conf")
    if (IMAGE / "tmp").exists() or (IMAGE / "bin").exists():
        fail("the image has more than it needs")
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        os.chmod(work, 0o755)
        run_archive(work)
        install_archive(work / "machine")
        own = int(CONFIG["User"].split(":")[0])
        # In a user namespace there may be root only.
        has_users = sum(int(line.split()[2]) for line in open("/proc/self/uid_map")) > OTHER_USER
        links = []
        for user, volume in (
            [(own, "volume"), (own, "volume"), (OTHER_USER, "other")] if has_users else [(0, "volume"), (0, "volume")]
        ):
            run_image(user, work / volume, links if volume == "volume" else [])
        print(
            f"image: started, redirected, restarted and ended as {'users ' + str(own) + ' and ' + str(OTHER_USER) if has_users else 'root'}"
        )


main()
