"""Each runbook of the documents, run as it stands on an installed package."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import time

from book import commands, prompted, script, used
from machine import Failure, expect, poll
from service import ADMIN, GOTO, PUBLIC, SETTINGS, add_link, answer, answer_if_up, property_of, wait_until_ready

ROOT = pathlib.Path(__file__).resolve().parents[2]
# An older version wrote it.
GOLDEN = ROOT / "src/store/testdata/format_1.redb"
# The IDs that the documents use.
IDS = ("5r551hnt", "7kv7if0f")
VIDEO = "https://example.com/video"
SOCKET_DROP_IN = "/etc/systemd/system/tinyd.socket.d/listen.conf"
SERVICE_DROP_INS = "/etc/systemd/system/tinyd.service.d/"
START = "systemctl start tinyd.socket tinyd.service"
STOP = "systemctl stop tinyd.socket tinyd.service"


class Runner:
    """A machine with the package, and the book whose commands run there."""

    def __init__(self, machine, book):
        self.machine, self.book = machine, book

    def run(self, text):
        return self.machine.run(script(text))

    def set(self, text):
        """Puts settings into tinyd.toml, each in its section."""
        lines = self.machine.read(SETTINGS).splitlines()
        at = None
        for line in filter(None, used(text).splitlines()):
            if line.startswith("["):
                if line not in lines or line.startswith("[["):
                    lines += ["", line]
                at = len(lines) - lines[::-1].index(line)
                continue
            key = line.split("=")[0].strip()
            end = next((n for n in range(at, len(lines)) if lines[n].startswith("[")), len(lines))
            section = [other for other in lines[at:end] if other.split("=")[0].strip() != key]
            lines[at:end] = [line, *section]
        self.machine.write(SETTINGS, "\n".join(lines) + "\n")

    def drop_in(self, document, path, text):
        """A file that the document names."""
        expect(self.book.names(document, path), f"docs/{document} does not name {path}")
        self.machine.write(path, used(text))

    def apply(self):
        self.machine.run(f"systemctl daemon-reload && tinyd-admin check && {STOP} && {START}")
        wait_until_ready(self.machine)

    @contextlib.contextmanager
    def changes(self):
        """Takes changes of the settings and units back at the end."""
        settings = self.machine.read(SETTINGS)
        yield
        self.machine.write(SETTINGS, settings)
        for folder in ("tinyd.socket.d", "tinyd.service.d"):
            shutil.rmtree(self.machine.path(f"/etc/systemd/system/{folder}"), ignore_errors=True)
        self.apply()

    def import_documented_links(self):
        lines = [json.dumps({"id": id, "systemName": "DOCUMENTED", "fullUrl": f"{VIDEO}/{id}"}) for id in IDS]
        self.machine.write("/root/documented.jsonl", "\n".join(lines) + "\n")
        self.machine.run("tinyd-admin import --on-conflict update documented.jsonl")

    def expect_documented_links(self):
        for id in IDS:
            said = answer(self.machine, GOTO + id)
            expect(said == f"302 {VIDEO}/{id}", f"{id} answers {said}")


# Of the name $0 in the folder $1, trusted on the machine.
MAKE_CERTIFICATE = """set -e
mkdir -p "$1" && cd "$1"
openssl req -x509 -config /dev/null -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$0" \\
  -addext "subjectAltName=DNS:$0" -addext basicConstraints=CA:FALSE -keyout privkey.pem -out fullchain.pem 2>&1
chmod 644 privkey.pem
cp fullchain.pem "/usr/local/share/ca-certificates/$0.crt"
update-ca-certificates 2>&1
"""


def make_certificate(machine, name, folder):
    machine.run(f"bash -c '{MAKE_CERTIFICATE}' {name} {folder}")


def name_host(machine, address, name):
    machine.write("/etc/hosts", machine.read("/etc/hosts") + f"{address} {name}\n")


def installation(runner):
    machine = runner.machine
    install, first_steps = runner.book.blocks("operating.md", "Install")
    runner.run(install)
    said = runner.run(first_steps)
    expect("FIRST-LINK" in said, f"no link is listed:\n{said}")

    before_image, first_boot = runner.book.blocks("operating.md", "Images of machines")
    secret = machine.read("/etc/tinyd/credentials/admin_secret")
    runner.run(before_image)
    machine.fails("systemctl start tinyd", "failed")
    runner.run(first_boot)
    wait_until_ready(machine)
    expect(machine.read("/etc/tinyd/credentials/admin_secret") != secret, "the copies of an image share their secrets")
    runner.import_documented_links()
    runner.expect_documented_links()


def listeners(runner):
    machine, book = runner.machine, runner.book
    with runner.changes():
        settings, sockets, restart = book.blocks("operating.md", "Listen on other addresses")
        runner.set(settings)
        runner.drop_in("operating.md", SOCKET_DROP_IN, sockets)
        runner.run(restart)
        for base in ("http://127.0.0.1", "http://[::1]"):
            expect(answer(machine, f"/tiny/{IDS[0]}", base).startswith("301"), f"{base} does not redirect")
        said = machine.run(f"tinyd-admin link get {IDS[0]}")
        expect(f"http://go.example.com/tiny/{IDS[0]}\n" in said, f"another short URL:\n{said}")

    with runner.changes():
        settings, status = book.blocks("operating.md", "HTTPS")
        name_host(machine, "127.0.0.1", "go.example.com")
        make_certificate(machine, "go.example.com", "/etc/tinyd")
        runner.set(settings)
        admin = (
            '[admin.tls]\nlisten = "127.0.0.1:8444"\ncertificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]\n'
        )
        runner.set(admin)
        machine.write(
            SOCKET_DROP_IN,
            "[Socket]\nListenStream=0.0.0.0:443\nListenStream=[::]:443\nListenStream=127.0.0.1:8444\n",
        )
        runner.apply()
        expect(
            answer(machine, f"/tiny/{IDS[0]}", "https://go.example.com").startswith("301"), "HTTPS does not redirect"
        )
        runner.run(status)

    with runner.changes():
        mask, ports, unmask = book.blocks("operating.md", "Without socket activation")
        runner.run(mask)
        wait_until_ready(machine)
        runner.expect_documented_links()
        runner.set('[public]\nlisten = ["127.0.0.1:8080", "127.0.0.1:80"]\n')
        runner.drop_in("operating.md", SERVICE_DROP_INS + "ports.conf", ports)
        machine.run("systemctl daemon-reload && tinyd-admin check && systemctl restart tinyd")
        expect(answer(machine, f"/tiny/{IDS[0]}", "http://127.0.0.1").startswith("301"), "port 80 does not redirect")
        runner.set('[public]\nlisten = "127.0.0.1:8080"\n')
        machine.path(SERVICE_DROP_INS + "ports.conf").unlink()
        runner.run(unmask)
        expect(property_of(machine, "ActiveState", "tinyd.socket") == "active", "the socket does not start again")
        runner.expect_documented_links()


def settings(runner):
    machine, book = runner.machine, runner.book
    [stop] = book.blocks("operating.md", "Stop")
    runner.run(stop)
    machine.fails(f"curl -s {PUBLIC}", "")
    machine.run(START)
    with runner.changes():
        [example, check_it] = book.blocks("configuration.md", "Configuration")
        machine.write(SETTINGS, used(example))
        runner.run(check_it)
    reload, restart, _ = book.blocks("operating.md", "Change settings")
    pid = property_of(machine, "MainPID")
    runner.run(reload)
    expect(property_of(machine, "MainPID") == pid, "a reload restarts tinyd")
    runner.run(restart)
    expect(property_of(machine, "MainPID") != pid, "a restart does not")
    with runner.changes():
        [access] = book.blocks("operating.md", "Access log")
        runner.set(access)
        runner.apply()
        for _ in range(200):
            answer(machine, GOTO + IDS[0])
        poll(
            "requests are logged",
            lambda: "goto" in machine.run("journalctl -u tinyd --no-pager --grep=client= --quiet", check=False),
        )
    with runner.changes():
        [fetches] = book.blocks("operating.md", "Fetch destinations")
        runner.set(fetches)
        runner.apply()
        expect(answer(machine, f"{GOTO}{IDS[0]}/proxy/true").startswith("302"), "proxy=true is not ignored")
    with runner.changes():
        [origin] = book.blocks("operating.md", "A private origin")
        make_certificate(machine, "origin.test", "/root/origin")
        machine.run("install -m 644 origin/fullchain.pem /etc/tinyd/ca.pem")
        runner.set(origin)
        runner.apply()
    with runner.changes():
        [restarts] = book.blocks("operating.md", "Restarts and the watchdog")
        runner.drop_in("operating.md", SERVICE_DROP_INS + "restart.conf", restarts)
        machine.run("systemctl daemon-reload && systemctl kill --kill-whom=main --signal=KILL tinyd")
        wait_until_ready(machine)
    for proxied in book.blocks("operating.md", "Client addresses"):
        with runner.changes():
            runner.set(proxied)
            runner.apply()
    [firewall] = book.blocks("operating.md", "Firewall")
    machine.write("/root/tinyd.nft", used(firewall))
    machine.run("nft -f tinyd.nft")
    machine.run(
        "setpriv --reuid=tinyd --regid=tinyd --clear-groups curl -s --max-time 2 http://10.1.2.3/ || [ $? = 7 ]"
    )
    runner.expect_documented_links()
    machine.run("nft delete table inet tinyd")


def secrets(runner):
    machine, book = runner.machine, runner.book
    add, remove = book.blocks("operating.md", "Rotate secrets")
    old = machine.run("tinyd-admin ks --type admin").strip()
    lists = f"curl -s {ADMIN}/api_v3/service/shortlink_shortlink/action/list -d format=1 --data-urlencode ks={{}}"
    runner.run(add)
    said = machine.run("tinyd-admin check")
    shown = "partner.admin_secret = (2)"
    expect(book.names("operating.md", f"`{shown}`") and shown in said, f"check shows:\n{said}")
    expect("totalCount" in machine.run(lists.format(f"'{old}'")), "a session of the old secret is refused too soon")
    runner.run(remove)
    expect("totalCount" not in machine.run(lists.format(f"'{old}'")), "a session of the old secret is still good")
    machine.run("tinyd-admin link list")

    with runner.changes():
        credentials, restart = book.blocks("operating.md", "Add a partner")
        machine.run("umask 077 && openssl rand -hex 16 >/etc/tinyd/credentials/second_admin_secret")
        runner.set('[[partner]]\nid = 7654321\nadmin_secret_credential = "second_admin_secret"\n')
        runner.drop_in("operating.md", SERVICE_DROP_INS + "credentials.conf", credentials)
        runner.run(restart)
        machine.run("tinyd-admin link add https://example.com/ --system-name SECOND --partner 7654321")
        machine.run("tinyd-admin backup --overwrite /var/backups/tinyd.redb")

    encrypt, credentials, restart = book.blocks("operating.md", "Encrypt the secrets")
    runner.run(encrypt)
    runner.drop_in("operating.md", SERVICE_DROP_INS + "credentials.conf", credentials)
    runner.run(restart)
    expect(
        machine.run("ls /etc/tinyd/credentials").split()
        == ["admin_secret.cred", "second_admin_secret", "user_secret.cred"],
        "clear secrets are left",
    )
    machine.run("tinyd-admin link list && apt install --reinstall ./tinyd_NEW_amd64.deb")
    machine.run("tinyd-admin link list")
    runner.expect_documented_links()
    # As they were.
    machine.run(
        "cd /etc/tinyd/credentials && for name in admin_secret user_secret; do "
        "systemd-creds decrypt --name=$name $name.cred $name && rm $name.cred; done"
    )
    machine.path(SERVICE_DROP_INS + "credentials.conf").unlink()
    runner.apply()


def audit_and_clicks(runner):
    machine, book = runner.machine, runner.book
    [audit] = book.blocks("operating.md", "Audit log")
    machine.run(
        f"tinyd-admin link update {IDS[0]} --status disabled && tinyd-admin link update {IDS[0]} --status enabled"
    )
    said = runner.run(prompted(audit))
    expect(f"update {IDS[0]}  status enabled -> disabled" in said, f"the audit log has:\n{said}")
    [clicks] = book.blocks("operating.md", "Click counts")
    said = runner.run(prompted(clicks))
    expect(re.search(r"^clicks +\d", said, re.M), f"no clicks are shown:\n{said}")
    [status] = book.blocks("monitoring.md", "Status")
    expect(runner.run(prompted(status)).startswith("healthy: tinyd "), "the status is not healthy")
    [connections] = book.blocks("monitoring.md", "TinydConnectionsRefused")
    runner.run(connections)
    _, private = book.blocks("monitoring.md", "Prometheus")
    runner.run(private)
    machine.run("nft delete table inet tinyd_admin")


def versions(runner):
    machine, book = runner.machine, runner.book
    [upgrade] = book.blocks("operating.md", "Upgrade")
    [back, export, edit, older, restore] = book.blocks("operating.md", "Downgrade")
    runner.run(upgrade)
    expect(machine.run("ls /var/backups/tinyd-*.redb"), "there is no backup")
    runner.run(back)
    wait_until_ready(machine)
    # A store of format 1 that the newer version upgrades.
    machine.run(
        f"{STOP} && mv /var/lib/tinyd/links.redb /root/links.redb && apt install ./tinyd_NEW_amd64.deb && {STOP}"
    )
    shutil.copy(GOLDEN, machine.path("/var/lib/tinyd/links.redb"))
    machine.run(f"chown tinyd:tinyd /var/lib/tinyd/links.redb && {START}")
    wait_until_ready(machine)
    expect("links.format-1.redb" in machine.run("ls /var/lib/tinyd"), "there is no copy of the store of format 1")
    link = add_link(machine)
    runner.run(export)
    runner.run(edit)
    runner.run(older)
    wait_until_ready(machine)
    machine.fails(f"tinyd-admin link get {link}", "")
    runner.run(restore)
    machine.run(f"tinyd-admin link get {link}")
    machine.run(
        f"{STOP} && rm /var/lib/tinyd/links.* && install -o tinyd -g tinyd -m 600 links.redb /var/lib/tinyd/ && {START}"
    )
    wait_until_ready(machine)
    runner.expect_documented_links()


def serve(runner, text, is_up):
    """A server in the foreground, until it is up and has been looked at."""
    server = runner.machine.start("exec 2>&1\n" + text)
    poll("it serves", is_up)
    runner.machine.run("pkill --exact --newest tinyd")
    server.wait()


def backups(runner):
    machine, book = runner.machine, runner.book
    backup, nightly = book.blocks("backup.md", "Back up")
    runner.run(backup)
    machine.path("/var/backups/tinyd.redb").unlink()
    # As cron does at its time.
    machine.run("sh -c " + subprocess.list2cmdline([used(nightly).split("root ", 1)[1].strip()]))
    poll("the journal has the backup", lambda: "tinyd.redb" in machine.run("journalctl -t tinyd-backup --no-pager"))
    [test] = book.blocks("backup.md", "Test a backup")
    verify, serve_it = commands(test)
    runner.run(verify)
    serve(runner, serve_it, lambda: answer_if_up(machine, GOTO + IDS[0], "http://127.0.0.1:9080").startswith("302"))

    [everything] = book.blocks("backup.md", "Restore everything")
    link = add_link(machine)
    runner.run(everything)
    wait_until_ready(machine)
    runner.expect_documented_links()
    machine.fails(f"tinyd-admin link get {link}", "")

    missing, one = book.blocks("backup.md", "Restore missing links")
    runner.run(missing)
    machine.run(f"tinyd-admin link update {IDS[0]} --to https://example.com/wrong")
    runner.run(one)
    runner.expect_documented_links()

    [deleted] = book.blocks("backup.md", "Restore links deleted by mistake")
    machine.run(f"tinyd-admin link delete {' '.join(IDS)}")
    said = runner.run(deleted)
    expect(all(f"{id} restored" in said for id in IDS), f"links are not restored:\n{said}")
    runner.expect_documented_links()

    [export] = book.blocks("backup.md", "Export")
    runner.run(export)
    imports, copy = book.blocks("backup.md", "Import")
    runner.run(imports)
    [stopped] = book.blocks("backup.md", "Work on a stopped store")
    runner.run(stopped)
    wait_until_ready(machine)
    runner.expect_documented_links()
    move(runner, copy)


def second_server(runner, settings):
    """Another server with the secrets of the service, on an address of its own."""
    machine = runner.machine
    machine.run("rm -rf other && install -d other && cp /etc/tinyd/credentials/*_secret other/")
    machine.write(
        "/root/other/tinyd.toml",
        settings + '[[partner]]\nid = 1234567\noperator = true\nadmin_secret_file = "admin_secret"\n',
    )
    return machine.start("exec tinyd serve --config other/tinyd.toml --data other/data 2>&1")


def move(runner, copy):
    """From one server to another, and from Kaltura, for which another tinyd stands in."""
    machine, book = runner.machine, runner.book
    name_host(machine, "127.0.0.1", "old")
    name_host(machine, "127.0.0.2", "new")
    server = second_server(runner, '[public]\nlisten = "127.0.0.2:8080"\n[admin]\nlisten = "127.0.0.2:8081"\n')
    poll("the other server is up", lambda: answer_if_up(machine, "/readyz", "http://new:8081").startswith("200"))
    machine.run("export TINYD_KS=$(tinyd-admin ks --type admin)\n" + script(copy))
    said = answer(machine, GOTO + IDS[0], "http://new:8080")
    expect(said.startswith("302"), f"a copied link answers {said}")
    machine.run("pkill --exact --newest tinyd")
    server.wait()

    [kaltura] = book.blocks("backup.md", "Move from Kaltura")
    name_host(machine, "127.0.0.3", "www.kaltura.com")
    make_certificate(machine, "www.kaltura.com", "/root/kaltura")
    files = '{ cert = "../kaltura/fullchain.pem", key = "../kaltura/privkey.pem" }'
    tls = f'[admin.tls]\nlisten = "127.0.0.3:443"\ncertificates = [{files}]\n'
    server = second_server(runner, '[public]\nlisten = "127.0.0.3:8080"\n[admin]\nlisten = "127.0.0.3:8081"\n' + tls)
    poll("Kaltura is up", lambda: answer_if_up(machine, "/readyz", "http://127.0.0.3:8081").startswith("200"))
    machine.run("cp other/admin_secret kaltura.secret")
    machine.run("TINYD_URL=http://127.0.0.3:8081 tinyd-admin link add https://example.com/moved --system-name MOVED")
    runner.run(kaltura)
    expect("MOVED" not in machine.run("tinyd-admin link list"), "a dry run imports the link of Kaltura")
    runner.run(used(kaltura).replace(" --dry-run", ""))
    expect("MOVED" in machine.run("tinyd-admin link list"), "the link of Kaltura is not imported")
    machine.run("pkill --exact --newest tinyd")
    server.wait()


def trouble(runner):
    machine, book = runner.machine, runner.book
    [damaged] = book.blocks("troubleshooting.md", "The store is damaged")
    machine.run("install -d -o tinyd /srv/backup && install -o tinyd -m 600 /var/backups/tinyd.redb /srv/backup/BACKUP")
    stop, serve_it = commands(damaged)
    machine.run(stop)
    serve(
        runner, "cd /srv/backup && " + serve_it, lambda: answer_if_up(machine, GOTO + IDS[0], PUBLIC).startswith("302")
    )
    machine.run(START)
    wait_until_ready(machine)


def cluster(runner):
    """What needs no server."""
    machine = runner.machine
    section, make_key, include, *_ = runner.book.blocks("cluster.md", "Set up three servers and three admin boxes")
    with runner.changes():
        runner.set(section)
        said = runner.run(make_key)
        box = re.search(r"^admin \S+ U[A-Z0-9]+$", said, re.M)
        expect(box, f"no line for the file of boxes is printed:\n{said}")
        mode = machine.run("stat -c '%a %U %G' /etc/tinyd/cluster.key").strip()
        expect(mode == "640 root tinyd", f"the mode of the key is {mode}, which tinyd cannot read")
        machine.write("/root/boxes", box[0] + "\n")
        runner.run(include)
        expect(box[0].split()[-1] in machine.read("/root/tinyd.conf"), "tinyd.conf does not have the key of the box")


def sentences(runner):
    """The commands within sentences, each by itself on a healthy machine."""
    machine = runner.machine
    machine.run("cp /usr/share/doc/tinyd/monitoring/alerts.yml . && tinyd-admin backup --overwrite FILE")
    failures = []
    for command in runner.book.sentences():
        try:
            runner.run(command)
        except Failure as failure:
            failures.append(str(failure))
        machine.run(START)
        wait_until_ready(machine)
    expect(not failures, "\n".join(failures))
    runner.expect_documented_links()


STEPS = (installation, listeners, settings, secrets, audit_and_clicks, versions, backups, trouble, cluster, sentences)


def check(machine, packages, book, say):
    runner = Runner(machine, book)
    for name in (packages.first.name, "tinyd_OLD_amd64.deb"):
        shutil.copy(packages.first, machine.path(f"/root/{name}"))
    shutil.copy(packages.next, machine.path("/root/tinyd_NEW_amd64.deb"))
    for step in STEPS:
        began = time.monotonic()
        step(runner)
        say(f"{step.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)")
