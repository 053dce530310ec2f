#!/usr/bin/env python3
"""Draws docs/demo.svg: serve, link add, curl and status, as a terminal shows them.

    docs/demo.py target/release/tinyd

Runs the commands for real, in a temporary folder on free ports. The picture has the ports and paths
of an ordinary start.
"""

import html
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

COLUMNS = 100
LINE_HEIGHT = 19
CHARACTER_WIDTH = 8.43
MARGIN = 18

STYLE = """
  .back { fill: #f6f8fa } text { font: 14px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328; white-space: pre }
  .command { font-weight: bold } .comment { fill: #59636e }
  @media (prefers-color-scheme: dark) {
    .back { fill: #151b23 } text { fill: #f0f6fc } .comment { fill: #9198a1 }
  }
"""


def session(binary):
    """The lines of the terminal, each with its class."""
    lines = []

    def show(command, output, keep=lambda line: True):
        lines.append(("command", f"$ {command}"))
        shown = [line.rstrip() for line in output.splitlines() if keep(line)]
        lines.extend(("output", line) for line in shown)
        lines.append(("output", ""))

    with tempfile.TemporaryDirectory() as folder:
        binary = shutil.copy(binary, pathlib.Path(folder, "tinyd"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TINYD_")}
        arguments = [binary, "serve", "--public", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        with subprocess.Popen(
            arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as server:
            try:
                public, admin = (server.stdout.readline().split()[1] for _ in range(2))

                def run(*command):
                    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
                    text = done.stdout or done.stderr
                    return text.replace(public, "http://127.0.0.1:8080").replace(admin, "http://127.0.0.1:8081")

                show("tinyd serve &", "public http://127.0.0.1:8080\nadmin http://127.0.0.1:8081")
                url = "https://www.kaltura.com/"
                added = run(binary, "link", "add", url, "--system-name", "FIRST-LINK", "--url", admin)
                show(f"tinyd link add {url} --system-name FIRST-LINK", added)
                link = re.search(r"/tiny/(\S+)", added).group(1)
                goto = f"/api_v3/service/shortlink_shortlink/action/goto/id/{link}"
                answer = run("curl", "-si", public + goto)
                lines.append(("comment", "# /tiny/ID hops to goto, as Kaltura's does; goto redirects:"))
                show(f"curl -si http://127.0.0.1:8080{goto}", answer, lambda line: line.strip())
                status = run(binary, "status", "--url", admin)
                wanted = ("healthy", "redirects", "store", "links", "process")
                show("tinyd status", status, lambda line: line.startswith(wanted))
            finally:
                server.terminate()
                server.communicate()
    return lines[:-1]


def drawing(lines):
    width, height = COLUMNS * CHARACTER_WIDTH + 2 * MARGIN, len(lines) * LINE_HEIGHT + 2 * MARGIN
    rows = []
    for number, (kind, text) in enumerate(lines):
        if len(text) > COLUMNS:
            text = text[: COLUMNS - 1] + "…"
        y = MARGIN + (number + 0.75) * LINE_HEIGHT
        rows.append(f'<text class="{kind}" x="{MARGIN}" y="{y:.0f}">{html.escape(text)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'aria-label="A terminal: start tinyd, add a link, open it, show the status">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="back" width="100%" height="100%" rx="8"/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(__file__).with_name("demo.svg")
    path.write_text(drawing(session(os.path.abspath(sys.argv[1]))))
