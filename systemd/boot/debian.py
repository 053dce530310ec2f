"""An installed Debian, which all machines begin with."""

import hashlib
import pathlib
import re

from machine import Failure, expect

# Beside what debootstrap installs in any case: what the package needs, and the programs that the documents name.
PACKAGES = ("ca-certificates", "curl", "iproute2", "man-db", "nftables", "openssl", "procps", "systemd-sysv")
# In memory, where dpkg waits for no disk. The lists and packages of apt are of no use later.
MAKE = """set -e
mount -t tmpfs tree "$1"
debootstrap --variant=minbase --include="$2" "$3" "$1" "$4" >"$5.log" || { tail "$5.log" >&2; exit 1; }
tar -C "$1" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -cf "$5.part" .
mv "$5.part" "$5"
rm "$5.log"
"""


def suite_and_mirror():
    """Of this machine: its release, and where apt has that from."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', pathlib.Path("/etc/os-release").read_text(), re.M))
    suite = release.get("VERSION_CODENAME", "")
    expect(release["ID"] == "debian" and suite, "this machine does not have a release of Debian")
    for path in [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]:
        text = path.read_text() if path.is_file() else ""
        # One source a line, or as fields.
        found = re.findall(rf"^deb (?:\[.*?\] )?(\S+) {suite} ", text, re.M)
        for source in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^([\w-]+): *(.*)", source, re.M))
            if suite in fields.get("Suites", "").split():
                found += fields["URIs"].split()[:1]
        if found:
            return suite, found[0]
    raise Failure(f"apt has no source of {suite}")


def tree_file(folder):
    """Made once for each list of packages."""
    suite, _ = suite_and_mirror()
    key = hashlib.sha256(" ".join((suite, *PACKAGES)).encode()).hexdigest()[:12]
    return folder / f"boot-{suite}-{key}.tar"


def make_tree(file, folder):
    """The command that makes the file, in mounts of its own."""
    suite, mirror = suite_and_mirror()
    root = pathlib.Path(folder) / "tree"
    root.mkdir()
    return ["sh", "-c", MAKE, "sh", root, ",".join(PACKAGES), suite, mirror, file]
