"""The documents, and which of their commands are run."""

import re
import subprocess
import textwrap

from machine import Failure

# Of fenced blocks, the others are settings, answers and formats.
FENCES_OF_COMMANDS = {"sh"}
# Blocks of commands that cannot run here, or that other tests run: how many of a section, and why.
LEFT_OUT = {
    ("cluster.md", "Set up three servers and three admin boxes"): (2, "needs servers of NATS: tests/tools/cluster"),
    ("configuration.md", "Reload"): (1, "for a server that is not a service"),
    ("getting-started.md", "Install"): (2, "builds from source"),
    ("monitoring.md", "Prometheus"): (1, "settings of Prometheus; tests/tools/promtool.rs checks the rules"),
    ("operating.md", "HTTPS in three lines"): (2, "needs a certificate authority: tests/tools/acme.rs"),
    ("operating.md", "With certbot"): (2, "needs a certificate authority and a public name"),
    ("operating.md", "Behind TLS"): (4, "settings of proxies; tests/tools/nginx.rs runs nginx"),
    ("operating.md", "The API over TLS"): (1, "settings of nginx"),
    ("operating.md", "Change settings"): (1, "Type=notify-reload needs systemd 253"),
    ("troubleshooting.md", "An unknown key or an invalid value"): (1, "an error"),
    ("troubleshooting.md", "The settings do not fit the units"): (1, "an error"),
    ("troubleshooting.md", "The data folder is already in use"): (1, "an error"),
    ("troubleshooting.md", "An address cannot be listened on"): (1, "an error"),
    ("troubleshooting.md", "`order failed`"): (1, "an error"),
}
DOCUMENTS_LEFT_OUT = {
    "../README.md": "builds from source",
    "benchmarks.md": "for developers",
    "contributing.md": "for developers",
    "load-testing.md": "takes minutes and both cores; needs other servers and load generators",
    "containers.md": "needs a container engine; systemd/packaging/run_packages.py runs the image",
    "kaltura-api.md": "formats",
}
# In sentences of these documents, commands of these programs are run too.
DOCUMENTS_OF_SENTENCES = ("operating.md", "backup.md", "troubleshooting.md", "monitoring.md", "security.md")
PROGRAMS = (
    "apt chmod chown chronyc dmesg dpkg findmnt install iostat journalctl man nstat promtool runuser sed smartctl ss "
    "sysctl systemctl systemd-analyze tinyd tinyd-admin vmstat"
).split()
LEFT_OUT_OF_SENTENCES = {
    "chmod 644": "names a command",
    "systemctl reload": "names a command",
    "tinyd-admin backup": "names a command",
    "tinyd-admin compact": "names a command",
    "tinyd-admin export": "names a command",
    "tinyd-admin import": "names a command",
    "tinyd-admin link": "names a command",
    "tinyd-admin link get": "names a command",
    "tinyd-admin link new-id": "names a command",
    "tinyd-admin verify": "names a command",
    "tinyd compact": "names a command",
    "tinyd-admin cluster join": "needs servers of NATS; tests/tools/cluster runs them",
    "tinyd-admin cluster status": "needs servers of NATS; tests/tools/cluster runs them",
    "tinyd check": "names a command",
    "tinyd ks": "names a command",
    "tinyd-admin cluster include": "names a command",
    "apt remove": "names a command",
    "apt purge": "names a command",
    "promtool test rules alerts.test.yml": "tests/tools/promtool.rs runs it",
    "chronyc tracking": "needs another package",
    "iostat -x 1": "needs another package",
    "smartctl -a": "needs another package, and a disk",
    "vmstat 1": "does not end",
    "journalctl -k | grep -i oom": "finds nothing where there is enough memory",
}


class Block:
    """Lines of code of a document."""

    def __init__(self, document, number, section, text, is_command):
        self.document, self.number, self.section, self.text = document, number, section, text
        # Commands, or text that is indented and may be: it must be run, or left out for a reason.
        self.is_command = is_command
        self.is_used = False


def used(block):
    """The text of a block that is run or applied, or a text that is none."""
    if not isinstance(block, Block):
        return block
    block.is_used = True
    return block.text


def blocks_of(name, text):
    """The blocks of code of a document, in their order."""
    section, fence, lines, began, is_after_blank = "", None, [], 0, True
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fenced = re.match(r" *```(\S*)", line)
        if fence is not None:
            if fenced:
                yield Block(name, began, section, textwrap.dedent("\n".join(lines)) + "\n", fence in FENCES_OF_COMMANDS)
                fence, lines = None, []
            else:
                lines.append(line)
            continue
        if line.startswith("    ") and (lines or is_after_blank):
            began = began if lines else number
            lines.append(line)
        elif not line.strip() and lines:
            lines.append(line)
        elif lines:
            yield Block(name, began, section, textwrap.dedent("\n".join(lines)).rstrip() + "\n", True)
            lines = []
        if fenced:
            fence, began = fenced[1], number
        elif line.startswith("#"):
            section = line.lstrip("# ")
        is_after_blank = not line.strip()
    if lines:
        yield Block(name, began, section, textwrap.dedent("\n".join(lines)).rstrip() + "\n", True)


class Book:
    def __init__(self, folder):
        paths = [folder / "../README.md", *sorted(folder.glob("*.md"))]
        self.texts = {str(path.relative_to(folder)): path.read_text() for path in paths}
        self.all = [block for name, text in self.texts.items() for block in blocks_of(name, text)]

    def blocks(self, document, section):
        """The blocks of a section."""
        return [block for block in self.all if (block.document, block.section) == (document, section)]

    def sentences(self):
        """The commands within sentences, each once."""
        found = {}
        for name in DOCUMENTS_OF_SENTENCES:
            text = re.sub(r"^ *```.*?^ *```$", "", self.texts[name], flags=re.M | re.S)
            prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
            for span in re.findall(r"`([^`]+)`", prose):
                command = " ".join(span.split())
                if " " in command and command.split()[0] in PROGRAMS:
                    found[command] = None
        stale = LEFT_OUT_OF_SENTENCES.keys() - found.keys()
        if stale:
            raise Failure(f"left out, but in no sentence: {sorted(stale)}")
        return [command for command in found if command not in LEFT_OUT_OF_SENTENCES]

    def names(self, document, text):
        return text in " ".join(self.texts[document].split())

    def problems(self):
        """Commands that are neither used nor left out, and reasons that are for none."""
        left = [block for block in self.all if block.is_command and not block.is_used]
        for place in {*LEFT_OUT, *((block.document, block.section) for block in left)}:
            blocks = [block for block in left if (block.document, block.section) == place]
            expected, _ = LEFT_OUT.get(place, (0, None))
            if len(blocks) != expected and place[0] not in DOCUMENTS_LEFT_OUT:
                lines = "".join(f"\n{block.number}: {block.text}" for block in blocks)
                yield f"docs/{place[0]}, {place[1]}: {len(blocks)} blocks are not run, expected {expected}:{lines}"


def commands(text):
    """The complete commands of a script, each as it would be typed."""
    command = ""
    for line in used(text).splitlines():
        command += line + "\n"
        is_whole = subprocess.run(["bash", "-n", "-c", command], stderr=subprocess.DEVNULL).returncode == 0
        if is_whole and not line.endswith("\\"):
            if command.strip():
                yield command
            command = ""
    if command:
        raise ValueError(f"not a complete command: {command}")


def script(text):
    """One shell for all of them, which ends with the first that fails, also within brackets."""
    return "set -e\n" + "".join(
        f"{command}status=$?; [ $status -eq 0 ] || exit $status\n" for command in commands(text)
    )


def prompted(text):
    """What follows the prompts of an example, without what is printed."""
    lines, is_command = [], False
    for line in used(text).splitlines():
        if line.startswith("$ "):
            lines.append(line[2:])
        elif is_command:
            lines.append(line)
        else:
            continue
        is_command = lines[-1].endswith(("|", "\\"))
    return "\n".join(lines) + "\n"
