# SPDX-License-Identifier: GPL-2.0-only
"""The web server of a node: real nginx, on port 80 of every address, with a page that names the node.

Every node has its configuration, and a command ``nginx`` that uses it, so
that ``nginx`` and ``nginx -s quit`` in a node start and stop that node's own;
the lab starts it on real servers.  Files that somebody puts into the node's
/var/www/html are served, whatever their size.  The machine's nginx, its
configuration and its files are never used.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from xlvs.errors import XlvsError
from xlvs.lab import namespaces

_CONFIGURATION = """\
# The whole configuration of the web server of {node}.
# A lab's files are root's alone, hence its workers are.
user root;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    default_type text/plain;
    client_body_temp_path {folder}/temporary/body;
    proxy_temp_path {folder}/temporary/proxy;
    fastcgi_temp_path {folder}/temporary/fastcgi;
    uwsgi_temp_path {folder}/temporary/uwsgi;
    scgi_temp_path {folder}/temporary/scgi;
    server {{
        listen 80 backlog=4096;
        {listen6}
        root {folder}/pages;
        client_max_body_size 0;
        add_header X-Real-Server {node};
        location / {{
            try_files $uri @name;
        }}
        location @name {{
            return 200 "{node}\\n";
        }}
    }}
}}
"""
_WRAPPER = """\
#!/bin/sh
# nginx of this node alone.
exec {program} -e {folder}/error.log -p {folder}/ -c {folder}/nginx.conf "$@"
"""


def program() -> str:
    """The path of nginx; raises `XlvsError` if it is not installed."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None or found.startswith("/run/xlvs"):
        found = "/usr/sbin/nginx"
    if not os.access(found, os.X_OK):
        raise XlvsError(
            "real servers run nginx, which is not installed", "apt-get install nginx, or make build"
        )
    return found


def configure(node_folder: Path, node: str) -> None:
    """Write a node's configuration and its ``nginx`` command."""
    folder = node_folder / "nginx"
    for each in ("temporary", "pages"):
        (folder / each).mkdir(exist_ok=True)
    listen6 = "listen [::]:80 ipv6only=on backlog=4096;" if Path("/proc/sys/net/ipv6").exists() else ""
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(node=node, folder=folder, listen6=listen6))
    wrapper = node_folder / "bin/nginx"
    wrapper.write_text(_WRAPPER.format(program=program(), folder=folder))
    wrapper.chmod(0o755)


def is_running(node_folder: Path, namespace: str) -> bool:
    """Does the node's own nginx live, in the node's namespace?"""
    try:
        process = int((node_folder / "nginx/pid").read_text())
    except (OSError, ValueError):
        return False
    return process in _processes(namespace)


def end_leftovers(namespace: str) -> None:
    """End what is left of an nginx whose master was killed: its workers still hold the port."""
    deadline = time.monotonic() + 5
    while (living := _processes(namespace)) and time.monotonic() < deadline:
        for process in living:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _processes(namespace: str) -> list[int]:
    found = []
    for process in namespaces.processes([namespace]):
        with suppress(OSError):
            if Path(f"/proc/{process}/comm").read_text().strip() == "nginx":
                found.append(process)
    return found
