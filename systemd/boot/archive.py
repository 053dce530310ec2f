"""The archive, and the first steps without a package."""

import re
import shutil

from book import prompted, script, used
from machine import expect, poll
from service import add_link, expect_redirect, is_ready, wait_until_ready

# As in the page of the first steps, which says that IDs differ.
ID = "[a-z0-9]{8}"
DOCUMENT = "getting-started.md"


def archive(machine, book):
    [install] = book.blocks("operating.md", "Install from the archive")
    machine.run(script(install))
    wait_until_ready(machine)
    link = add_link(machine)
    machine.run("systemctl daemon-reload && systemctl restart tinyd")
    expect_redirect(machine, link)
    machine.run("man --pager=cat tinyd.toml >/dev/null")
    machine.run("systemctl disable --now tinyd.socket tinyd.service")


def examples(block, ids):
    """Each command of an example, with these IDs for the documented ones, and what it prints, as expressions."""
    commands = []
    for line in used(block).splitlines():
        if line.startswith("$ "):
            commands.append(([line[2:]], []))
        elif commands[-1][0][-1].endswith(("|", "\\")):
            commands[-1][0].append(line)
        else:
            commands[-1][1].append(line)
    for lines, printed in commands:
        command = "\n".join(lines)
        for documented, real in ids.items():
            command = command.replace(documented, real)
        yield command, [expression(line) for line in printed]


def expression(line):
    """Times, IDs and what is left out may be any."""
    text = re.escape(line).replace("…", ".*")
    text = re.sub(r"\d{4}\\-\d\d\\-\d\dT\d\d:\d\d:\d\dZ", r"[-\\dT:]+Z", text)
    text = re.sub("5r551hnt|7kv7if0f", ID, text)
    return re.sub(r"up\\ 5s", "up .*", text)


def first_steps(machine, book):
    """The page goes on from section to section, in one folder."""
    [start] = book.blocks(DOCUMENT, "Start the server")
    server = machine.start(f"mkdir first && cd first && exec {prompted(start)} 2>&1")
    poll("the first server is up", lambda: is_ready(machine))
    ids = {}
    sections = ("Add a link", "Open it", "List links", "Change, delete and restore", "Use the API", "Check its health")
    for section in sections:
        for block in book.blocks(DOCUMENT, section):
            for command, printed in examples(block, ids):
                said = machine.run(f"cd first\n{command}")
                for line in printed:
                    expect(re.search(f"^{line}\\s*$", said, re.M), f"{command}\nprints\n{said}\nand not {line}")
                if "link add" in command:
                    added = re.search(r"^id +(\w+)$", said, re.M).group(1)
                    ids["7kv7if0f" if ids else "5r551hnt"] = added
    machine.run("pkill --exact tinyd")
    server.wait()


def check(machine, packages, book, say):
    for path in packages.dist.iterdir():
        shutil.copy(path, machine.path("/root"))
    archive(machine, book)
    say("archive")
    first_steps(machine, book)
    say("first steps")
