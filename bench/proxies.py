# SPDX-License-Identifier: GPL-2.0-only
"""Balancers in user space that stand in a lab's director beside xlvs: HAProxy and nginx.

Both as a packager's defaults would have them for TCP, with a thread or worker for each
processor, round robin, and no look into what they pass on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.loads import Failed
from xlvs.lab import nginx, node
from xlvs.lab.state import Record

HAPROXY, NGINX = "HAProxy, TCP mode", "nginx, stream"
WEB = {HAPROXY: 8081, NGINX: 8082}
BULK = {HAPROXY: 5301, NGINX: 5302}

_HAPROXY = """\
global
    nbthread {threads}
    maxconn 2000
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind :{web}
    balance roundrobin
{servers}
listen bulk
    bind :{bulk}
    server one {first}:{bulk_port}
"""
_NGINX = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user root;
worker_processes {threads};
pid {folder}/stream.pid;
error_log {folder}/stream.log warn;
events {{ worker_connections 8192; }}
stream {{
    upstream web {{
{servers}
    }}
    server {{ listen {web} backlog=4096; proxy_pass web; }}
    server {{ listen {bulk}; proxy_pass {first}:{bulk_port}; }}
}}
"""


def configurations(rips: tuple[str, ...], folder: Path, bulk_port: int, threads: int) -> dict[str, str]:
    """The text of each one's configuration, by name."""
    common = {"first": rips[0], "bulk_port": bulk_port, "folder": folder, "threads": threads}
    haproxys = "\n".join(f"    server rs{number} {rip}:80" for number, rip in enumerate(rips, start=1))
    nginxs = "\n".join(f"        server {rip}:80;" for rip in rips)
    return {
        HAPROXY: _HAPROXY.format(web=WEB[HAPROXY], bulk=BULK[HAPROXY], servers=haproxys, **common),
        NGINX: _NGINX.format(web=WEB[NGINX], bulk=BULK[NGINX], servers=nginxs, **common),
    }


def start(record: Record, bulk_port: int, threads: int) -> None:
    """Start both in a lab's director, with which they end; raises `Failed`.

    They pass on port 80 of the real servers, and ``bulk_port`` of the first one.
    """
    folder = record.node_folder("director")
    texts = configurations(record.addresses.rips, folder, bulk_port, threads)
    haproxy, stream = folder / "haproxy.cfg", folder / "stream.conf"
    haproxy.write_text(texts[HAPROXY])
    stream.write_text(texts[NGINX])
    for command in (
        ["haproxy", "-D", "-f", str(haproxy)],
        [nginx.program(), "-e", str(folder / "stream.log"), "-p", f"{folder}/", "-c", str(stream)],
    ):
        # A file, not a pipe: what stays in the background would hold it open.
        said = folder / "starting.log"
        with said.open("w") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            code = node.popen(record, "director", command, **options).wait()
        if code != 0:
            raise Failed(f"{' '.join(command)}\nended with {code}:\n{said.read_text()}")
