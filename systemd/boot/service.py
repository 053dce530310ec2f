"""What the service goes through, from its installation to its purge."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

from machine import PATIENCE_SECONDS, expect, poll

LOAD = pathlib.Path(__file__).with_name("load.py")
PUBLIC, ADMIN = "http://127.0.0.1:8080", "http://127.0.0.1:8081"
GOTO = "/api_v3/service/shortlink_shortlink/action/goto/id/"
SETTINGS = "/etc/tinyd/tinyd.toml"
# The default; requests must go on meanwhile, and none may wait for its end.
DRAIN_SECONDS = 10
IDLE_CONNECTIONS = 1000
# What an export must have more of than sockets hold, so that a client can pause it.
EXPORTED_LINKS, EXPORTED_BYTES = 6000, 3000
# Answers during a drain that show that it goes on accepting.
ANSWERS_WHILE_DRAINING = 300
# More than once in the heartbeat's interval, and the restart after it.
WATCHDOG_SECONDS = 90
DISK_MIB = 96


class Clients:
    """A process of load.py."""

    def __init__(self, machine, *arguments, **environment):
        self.what = arguments[0]
        command = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, LOAD, *arguments]
        self.process = machine.in_its_network(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.counts()

    def counts(self):
        line = self.process.stdout.readline()
        expect(line, f"the clients ({self.what}) end with {self.process.wait()}" if not line else "")
        return json.loads(line)

    def now(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.counts()

    def end(self):
        """Their counts at the end."""
        self.process.stdin.close()
        counts = json.loads(self.process.stdout.read().splitlines()[-1])
        self.process.wait()
        return counts


def expect_no_failure(what, counts):
    expect(counts["answered"] and not counts["failed"], f"{what}: {counts}")


def property_of(machine, name, unit="tinyd.service"):
    return machine.run(f"systemctl show --property={name} --value {unit}").strip()


def add_link(machine, destination="https://example.com/video", name="FIRST-LINK"):
    """The ID of a new link."""
    said = machine.run(f"tinyd-admin link add {destination} --system-name {name}")
    return re.search(r"^id +(\w+)$", said, re.M).group(1)


# The status of an answer, and where it leads.
CURL = f"curl -s -o /dev/null --max-time {PATIENCE_SECONDS} -w '%{{http_code}} %{{redirect_url}}' "


def answer(machine, path, base=PUBLIC):
    return machine.run(CURL + base + path)


def answer_if_up(machine, path, base=PUBLIC):
    """Also while the process may end, which closes the connections that it has accepted."""
    return machine.run(CURL + base + path, check=False)


def expect_redirect(machine, link, destination="https://example.com/video"):
    said = answer(machine, GOTO + link)
    expect(said == f"302 {destination}", f"{link} answers {said}")


def is_ready(machine):
    return machine.run(f"curl -s -o /dev/null -w '%{{http_code}}' {ADMIN}/readyz", check=False) == "200"


def wait_until_ready(machine):
    poll("tinyd is ready", lambda: is_ready(machine))


def session(machine):
    return machine.run("tinyd-admin ks --type admin").strip()


def change_settings(machine, old, new):
    text = machine.read(SETTINGS)
    expect(old in text, f"{SETTINGS} has no {old!r}")
    machine.write(SETTINGS, text.replace(old, new, 1))


def version(machine):
    return machine.run("dpkg-query --show --showformat='${Version}' tinyd")


def installation_with_a_taken_port(machine):
    """apt says so, and what to do once the port is free, which works while the service goes on trying."""
    server = [sys.executable, "-m", "http.server", "8080", "--bind", "127.0.0.1"]
    other = machine.in_its_network(*server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poll("the port is taken", lambda: "127.0.0.1:8080" in machine.run("ss -Hltn"))
    said = machine.run("apt install ./first.deb")
    expect(
        "a port of its listeners is taken" in said and "ss -ltnp" in said,
        f"apt does not say that a port is taken:\n{said}",
    )
    machine.run("systemctl start --no-block tinyd.service")
    poll("the service tries again", lambda: property_of(machine, "SubState") == "auto-restart")
    other.kill()
    other.wait()
    poll("the service has the port", lambda: is_ready(machine))
    machine.run(re.findall(r"^tinyd: (systemctl .*)$", said, re.M)[-1])
    expect(property_of(machine, "ActiveState", "tinyd.socket") == "active", "the socket is not active")
    link = add_link(machine)
    expect_redirect(machine, link)
    machine.run("apt purge tinyd")


def installation(machine):
    said = machine.run("apt install ./first.deb")
    expect("make a link: tinyd-admin link add" in said, f"apt does not say what is next:\n{said}")
    for unit in ("tinyd.socket", "tinyd.service"):
        expect(machine.run(f"systemctl is-active {unit}; systemctl is-enabled {unit}") == "active\nenabled\n", unit)
    pid = property_of(machine, "MainPID")
    status = machine.run(f"cat /proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        expect(line in status, f"the sandbox lacks {line}:\n{status}")
    said = machine.run("systemctl stop tinyd.service; systemctl is-active tinyd.service || true").strip()
    expect(said.endswith("inactive"), f"it does not stop: {said}")
    # A connection starts it again.
    link = add_link(machine)
    expect_redirect(machine, link)
    return link


def prepare_slow_clients(machine):
    """What is exported and downloaded slowly; the link of the download."""
    machine.write("/etc/hosts", machine.read("/etc/hosts") + "127.0.0.1 origin.test\n")
    change_settings(machine, "[fetch]\n", '[fetch]\nallow = "127.0.0.1"\nports = 9000\n')
    machine.run("tinyd-admin check && systemctl restart tinyd")
    lines = (
        json.dumps({"id": f"x{n:07}", "systemName": "EXPORT", "fullUrl": f"https://example.com/{n:0{EXPORTED_BYTES}}"})
        for n in range(EXPORTED_LINKS)
    )
    machine.write("/root/links.jsonl", "\n".join(lines) + "\n")
    machine.run("tinyd-admin import links.jsonl")
    return add_link(machine, "http://origin.test:9000/film", "FILM")


def draining(machine):
    return machine.run("journalctl -u tinyd --no-pager --grep=draining --quiet", check=False).count("draining")


def restart_under_load(machine, link, film):
    """With idle connections, a slow export and a slow download: the slowest new connection in milliseconds."""
    clients = Clients(machine, "load", GOTO + link, 2, 1, IDLE_CONNECTIONS)
    download = Clients(machine, "download", f"{GOTO}{film}/proxy/true")
    script = "tinyd-admin export - | { head -c 65536; touch /run/begun; cat /run/go-on; cat; } | wc -l"
    machine.run("rm -f /run/begun /run/go-on && mkfifo /run/go-on")
    export = machine.start(script)
    poll("the export begins", lambda: machine.path("/run").exists() and "begun" in machine.run("ls /run"))
    before = draining(machine)
    restart = machine.start("systemctl restart tinyd")
    poll("it drains", lambda: draining(machine) > before)
    answered = clients.now()["new"]["answered"]
    poll("it answers during a drain", lambda: clients.now()["new"]["answered"] > answered + ANSWERS_WHILE_DRAINING)
    expect(restart.poll() is None, "it answers only after the drain, or does not wait for slow clients")
    machine.run("echo >/run/go-on")
    downloaded = download.end()
    expect(not downloaded["failed"], f"a slow download breaks off: {downloaded}")
    lines = export.communicate(timeout=PATIENCE_SECONDS)[0].strip()
    expect(int(lines) >= EXPORTED_LINKS, f"a slow export breaks off: {lines} lines")
    said = restart.communicate(timeout=PATIENCE_SECONDS)[0]
    expect(restart.returncode == 0, f"systemctl restart: {said}")
    wait_until_ready(machine)
    return slowest(clients.end())


def slowest(counts):
    for kind, counted in counts.items():
        expect_no_failure(f"{kind} connections over a restart", counted)
    milliseconds = counts["new"]["slowest_ms"]
    expect(milliseconds < DRAIN_SECONDS * 1000, f"a new connection waits {milliseconds} ms for the end of a drain")
    return milliseconds


def restart(machine, link, script="systemctl restart tinyd"):
    clients = Clients(machine, "load", GOTO + link, 2, 1, IDLE_CONNECTIONS)
    machine.run(script)
    wait_until_ready(machine)
    return slowest(clients.end())


def guess(machine):
    """Many unknown IDs: whether the limit of one a minute applies."""
    statuses = [answer(machine, f"{GOTO}unknown{n}").split()[0] for n in range(4)]
    expect(set(statuses) <= {"404", "429"}, f"unknown IDs are answered {statuses}")
    return "429" in statuses


def reload(machine):
    change_settings(machine, "[public]\n", "[public]\nmax_guesses_per_minute = 1\n")
    machine.run("tinyd-admin check && systemctl reload tinyd")
    poll("a reload applies", lambda: guess(machine))
    change_settings(machine, "max_guesses_per_minute = 1\n", 'max_guesses_per_minute = 0\ncolour = "blue"\n')
    machine.fails("tinyd-admin check && systemctl reload tinyd", "colour: unknown key")
    machine.run("systemctl reload tinyd")
    poll("the status has the mistake", lambda: "colour: unknown key" in property_of(machine, "StatusText"))
    expect(guess(machine), "a mistake changes settings")
    change_settings(machine, 'colour = "blue"\n', "")
    machine.run("tinyd-admin check && systemctl reload tinyd")
    poll("a reload applies", lambda: not guess(machine))


def killed_under_writes(machine, link):
    """kill -9 while links are added: the acknowledged ones, of which none may be lost."""
    file = machine.path("/root/acknowledged")
    restarts = int(property_of(machine, "NRestarts"))
    writers = Clients(machine, "write", file, 4, KS=session(machine))
    poll("links are added", lambda: writers.now()["answered"] > 200)
    machine.run("systemctl kill --kill-whom=main --signal=KILL tinyd")
    poll("it redirects again", lambda: answer_if_up(machine, GOTO + link).startswith("302"))
    wait_until_ready(machine)
    counts = writers.now()
    poll("links are added after it", lambda: writers.now()["answered"] > counts["answered"] + 100)
    counts = writers.end()
    expect(int(property_of(machine, "NRestarts")) > restarts, "systemd counts no restart")
    expect(counts["failed"], "no write was cut off")
    return all_are_there(machine)


def all_are_there(machine):
    verified = json.loads(
        machine.in_its_network(
            sys.executable, LOAD, "verify", machine.path("/root/acknowledged"), stdout=subprocess.PIPE
        ).communicate()[0]
    )
    expect_no_failure("acknowledged links", verified)
    return verified["answered"]


def watchdog(machine, link):
    restarts = int(property_of(machine, "NRestarts"))
    machine.run("systemctl kill --kill-whom=main --signal=STOP tinyd")
    poll("the watchdog ends it", lambda: int(property_of(machine, "NRestarts")) > restarts, WATCHDOG_SECONDS)
    expect_redirect(machine, link)
    wait_until_ready(machine)
    machine.run("journalctl -u tinyd --no-pager --grep='Watchdog timeout' --quiet")


def fill(machine):
    """Fills the disk of the store until writes are refused, which tinyd must say."""
    machine.run("cat /dev/zero >>/var/lib/tinyd/filler", check=False)
    writers = Clients(machine, "write", machine.path("/root/acknowledged"), 2, KS=session(machine))
    poll("writes are refused", lambda: writers.now()["failed"] > 0)
    counts = writers.end()
    expect(any("503" in failure for failure in counts["failures"]), f"writes fail in another way: {counts}")
    poll("it is not ready", lambda: answer(machine, "/readyz", ADMIN).startswith("503"))
    expect("No space left" in machine.run(f"curl -s {ADMIN}/readyz"), "/readyz does not say why")
    poll("the status says why", lambda: "No space left" in property_of(machine, "StatusText"))
    all_are_there(machine)


def disk(machine, link):
    """A disk of its own: not mounted, mounted, full, and with room again."""
    machine.run("systemctl stop tinyd.socket tinyd.service && mv /var/lib/tinyd /var/lib/tinyd.away")
    expect(machine.read("/etc/tinyd/require-store.env").endswith("TINYD_REQUIRE_STORE=true\n"), "no store is required")
    machine.run("systemctl start tinyd.socket && systemctl start --no-block tinyd.service")
    poll("the status says that there is no store", lambda: "require_store" in property_of(machine, "StatusText"))
    machine.run(
        f"mount -t tmpfs -o size={DISK_MIB}m,uid=0 disk /var/lib/tinyd && cp -a /var/lib/tinyd.away/. /var/lib/tinyd/"
    )
    machine.run("rm -rf /var/lib/tinyd.away && chown tinyd:tinyd /var/lib/tinyd && chmod 700 /var/lib/tinyd")
    wait_until_ready(machine)
    expect_redirect(machine, link)
    fill(machine)
    for script in ("systemctl restart tinyd", "systemctl kill --kill-whom=main --signal=KILL tinyd"):
        machine.run(script)
        poll("it redirects after a start on a full disk", lambda: answer_if_up(machine, GOTO + link).startswith("302"))
        all_are_there(machine)
        # A store has room within, and a clean stop leaves that of the journal.
        fill(machine)
    machine.run("rm /var/lib/tinyd/filler")
    wait_until_ready(machine)
    add_link(machine)
    return all_are_there(machine)


def versions(machine, link):
    """The slowest new connection in an upgrade and a downgrade; wrong settings stop an upgrade."""
    first = version(machine)
    waits = [restart(machine, link, "apt install ./next.deb")]
    expect(version(machine) != first, "it is not upgraded")
    change_settings(machine, "[fetch]\n", 'colour = "blue"\n[fetch]\n')
    pid = property_of(machine, "MainPID")
    machine.fails("apt install --reinstall ./next.deb", "colour: unknown key")
    expect(property_of(machine, "MainPID") == pid, "wrong settings end the old process")
    expect_redirect(machine, link)
    change_settings(machine, 'colour = "blue"\n', "")
    machine.run("dpkg --configure -a")
    waits.append(restart(machine, link, "apt install --allow-downgrades ./first.deb"))
    expect(version(machine) == first, "it is not downgraded")
    return max(waits)


def removal(machine, link):
    secret = machine.read("/etc/tinyd/credentials/admin_secret")
    machine.run("apt remove tinyd")
    expect(
        machine.run("systemctl is-active tinyd.socket tinyd.service || true").split() == ["inactive"] * 2, "it goes on"
    )
    machine.run("apt install ./first.deb")
    expect(machine.read("/etc/tinyd/credentials/admin_secret") == secret, "a removal loses secrets")
    expect_redirect(machine, link)
    # The data folder is still a mount point.
    machine.run("apt purge tinyd")
    left = machine.run("find /etc/tinyd /var/lib/tinyd -mindepth 1 2>/dev/null || true")
    expect(not left and machine.run("mountpoint /var/lib/tinyd"), f"left after a purge:\n{left}")
    machine.run("umount /var/lib/tinyd && rmdir /var/lib/tinyd && apt install ./first.deb")
    expect_redirect(machine, add_link(machine))
    machine.run("apt purge tinyd")
    left = machine.run("ls -d /etc/tinyd /var/lib/tinyd /etc/systemd/system/*tinyd* 2>/dev/null || true")
    expect(not left, f"left after a purge:\n{left}")


def check(machine, packages, book, say):
    shutil.copy(packages.first, machine.path("/root/first.deb"))
    shutil.copy(packages.next, machine.path("/root/next.deb"))

    def timed(what, step, *arguments):
        began = time.monotonic()
        said = step(machine, *arguments)
        say(f"{what}{'' if said is None else f': {said}'} ({time.monotonic() - began:.1f} s)")
        return said

    timed("installation with a taken port", installation_with_a_taken_port)
    link = installation(machine)
    film = prepare_slow_clients(machine)
    timed("restart with slow clients, slowest new connection in ms", restart_under_load, link, film)
    for _ in range(3):
        timed("restart, slowest new connection in ms", restart, link)
    timed("reload", reload)
    timed("kill -9, acknowledged links", killed_under_writes, link)
    timed("watchdog", watchdog, link)
    timed("disk, acknowledged links", disk, link)
    timed("upgrade and downgrade, slowest new connection in ms", versions, link)
    timed("removal and purge", removal, link)
