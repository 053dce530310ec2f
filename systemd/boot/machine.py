"""Debian in a container with a systemd of its own."""

import os
import pathlib
import subprocess
import threading
import time

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02
ENVIRONMENT = ("HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "TERM=dumb")


class Failure(Exception):
    """What was expected, and what was found."""


def expect(is_met, text):
    if not is_met:
        raise Failure(text)


def poll(text, condition, seconds=PATIENCE_SECONDS):
    """Waits for a condition, whose value it returns."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        expect(time.monotonic() < deadline, f"not within {seconds} s: {text}")
        time.sleep(POLL_SECONDS)
    return value


class Machine:
    """Runs until the process ends that boots it."""

    def __init__(self, name, folder, tree_file, cgroup):
        self.name = name
        self.root = folder / name
        self.root.mkdir()
        subprocess.run(["tar", "-C", self.root, "-xf", tree_file], check=True)
        self.write("/etc/hostname", name + "\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost\n")
        # Nobody is there to answer.
        self.write("/etc/apt/apt.conf.d/answers", 'APT::Get::Assume-Yes "true";\n')
        self.cgroup = cgroup / name
        self.cgroup.mkdir()
        self.pid = None

    def boot(self):
        command = ["systemd-nspawn", "--boot", "--quiet", "--register=no", "--keep-unit", "--private-network"]
        command += [f"--machine={self.name}", "--directory", self.root, "--console=pipe"]
        # Its systemd has the whole of this group for itself.
        join = lambda: (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        self.console = open(self.root.with_suffix(".console"), "w+")
        nspawn = subprocess.Popen(
            command,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=self.console,
            preexec_fn=join,
        )

        def pid_of_its_systemd():
            expect(nspawn.poll() is None, f"systemd-nspawn ends:\n{self.said()}")
            children = pathlib.Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
            return next((pid for pid in children if pathlib.Path(f"/proc/{pid}/comm").read_text() == "systemd\n"), None)

        self.pid = poll("its systemd starts", pid_of_its_systemd)
        state = poll("it is up", lambda: self.state() not in ("offline", "initializing", "starting") and self.state())
        expect(state == "running", f"it is {state}: {self.run('systemctl --failed --no-pager')}")

    def state(self):
        return self.run("systemctl is-system-running 2>/dev/null", check=False).strip() or "offline"

    def said(self):
        self.console.flush()
        return pathlib.Path(self.console.name).read_text()[-4000:]

    def entered(self, *command):
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        return [
            "nsenter",
            f"--target={self.pid}",
            *namespaces,
            "--",
            "env",
            "--ignore-environment",
            *ENVIRONMENT,
            *command,
        ]

    def start(self, script, **options):
        """A shell of root that runs a script."""
        return subprocess.Popen(
            self.entered("bash", "-c", "cd && " + script),
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
        )

    def run(self, script, check=True):
        """What a script of root prints. It must succeed, with check."""
        shell = self.start(script)
        timer = threading.Timer(PATIENCE_SECONDS, shell.kill)
        timer.start()
        said = shell.communicate()[0]
        timer.cancel()
        expect(not check or shell.returncode == 0, f"{script}\nends with {shell.returncode}:\n{said}")
        return said

    def fails(self, script, text):
        """A script must fail and say this."""
        shell = self.start(script)
        said = shell.communicate(timeout=PATIENCE_SECONDS)[0]
        expect(
            shell.returncode != 0 and text in said, f"{script}\nends with {shell.returncode} without {text!r}:\n{said}"
        )

    def in_its_network(self, *command, **options):
        """A program of this machine on the network of the container."""
        return subprocess.Popen(
            ["nsenter", f"--target={self.pid}", "--net", "--", *map(str, command)], text=True, **options
        )

    def path(self, path):
        return self.root / path.lstrip("/")

    def read(self, path):
        return self.path(path).read_text()

    def write(self, path, text):
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def state_at_the_end(self):
        """What helps to understand a failure."""
        journal = self.run("journalctl --no-pager --output short-precise | tail -n 60", check=False) if self.pid else ""
        return self.said() + journal
