# SPDX-License-Identifier: GPL-2.0-only
"""FTP under NAT with a real server, vsftpd, and a real client, curl: both modes, both families."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.labs import Lab, eventually
from tests.netns import peers

MakeLab = Callable[..., Lab]
MEGABYTES = 3
# vsftpd wants the root of anonymous users to be writable for nobody.
CONFIGURATION = """\
listen_ipv6=YES
anonymous_enable=YES
write_enable=YES
anon_upload_enable=YES
anon_umask=022
anon_root={folder}
secure_chroot_dir={folder}
connect_from_port_20=YES
ftpd_banner={node}
xferlog_enable=NO
"""
MODES = [
    ("", 4), ("--disable-epsv", 4), ("-P -", 4), ("-P - --disable-eprt", 4),
    ("", 6), ("-P -", 6),
]  # fmt: skip


class Servers:
    """A lab with an FTP service, and the folders of its real servers."""

    def __init__(self, lab: Lab, folders: dict[str, Path], local: Path) -> None:
        self.lab = lab
        self.folders = folders
        self.local = local

    def url(self, family: int, path: str) -> str:
        """A URL at the VIP."""
        vip = self.lab.addresses.vip if family == 4 else f"[{self.lab.addresses.vip6}]"
        return f"ftp://{vip}/{path}"

    def curl(self, words: str) -> str:
        """What curl has to say, with the control connection's text."""
        return self.lab.type("client", f"curl -g -s -S -v -m 20 {words}")


@pytest.fixture
def servers(make_lab: MakeLab) -> Iterator[Servers]:
    lab = make_lab("nat")
    # The lab's machine has one file system; nobody has to get there.
    top = Path(tempfile.mkdtemp(prefix="xlvs-ftp-", dir="/var/tmp"))
    top.chmod(0o755)
    running: list[int] = []
    folders = {}
    try:
        for number, name in enumerate(("rs1", "rs2")):
            folders[name] = folder = top / name
            (folder / "in").mkdir(parents=True)
            (folder / "in").chmod(0o777)
            (folder / "big").write_bytes(os.urandom(MEGABYTES << 20))
            configuration = top / f"{name}.conf"
            configuration.write_text(CONFIGURATION.format(folder=folder, node=name))
            started = lab.type(name, f"vsftpd {configuration} </dev/null >/dev/null 2>&1 & echo $!")
            running.append(int(started))
            address = lab.addresses.rips[number]
            eventually(lambda node=name, at=address: listens(lab, node, at), f"{name} serves FTP")  # type: ignore[misc]
        for vip, rips in (
            (lab.addresses.vip, lab.addresses.rips),
            (f"[{lab.addresses.vip6}]", [f"[{rip}]" for rip in lab.addresses.rips6]),
        ):
            lab.type("director", f"ipvsadm -A -t {vip}:21 -s rr")
            for rip in rips:
                lab.type("director", f"ipvsadm -a -t {vip}:21 -r {rip}:21 -m")
        yield Servers(lab, folders, top)
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        shutil.rmtree(top)


def listens(lab: Lab, node: str, address: str) -> bool:
    """Whether a real server's FTP port is open."""
    try:
        peers.connect(lab, address, 21, node).close()
    except ConnectionRefusedError:
        return False
    return True


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def connections(lab: Lab) -> list[tuple[str, str, str, str]]:
    """State, client, VIP and real server of each listed connection."""
    return re.findall(
        r"^TCP +\S+ +(\S+) +(\S+) +(\S+) +(\S+)$", lab.type("director", "ipvsadm -Lcn"), re.MULTILINE
    )


@pytest.mark.parametrize(("options", "family"), MODES)
def test_files_come_and_go(servers: Servers, options: str, family: int) -> None:
    """In whatever mode: whole, with the server of the control connection, and from the VIP only."""
    heard = set()
    for number in range(4):
        got = servers.local / f"got{number}"
        told = servers.curl(f"{options} -o {got} '{servers.url(family, 'big')}'")
        (node,) = set(re.findall(r"^< 220 (rs\d)", told, re.MULTILINE))
        heard.add(node)
        assert digest(got) == digest(servers.folders[node] / "big")
        assert "192.168.56" not in told and "fd6c:7673:0:2" not in told, told
        if "-P" in options:
            assert ("> EPRT" in told) == ("--disable-eprt" not in options)
        else:
            assert ("< 227" in told) == ("--disable-epsv" in options)
    assert heard == {"rs1", "rs2"}
    sent = servers.local / "got0"
    for _ in range(2):
        servers.curl(f"{options} -T {sent} '{servers.url(family, 'in/up')}'")
    assert {digest(folder / "in/up") for folder in servers.folders.values()} == {digest(sent)}

    lab = servers.lab
    listed = connections(lab)
    data = [each for each in listed if not each[2].endswith(":21")]
    assert len(listed) == 12 and len(data) == 6
    assert {each[0] for each in data} <= {"TIME_WAIT", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "CLOSE"}
    for _, _, virtual, server in data:
        assert virtual.rpartition(":")[2] == server.rpartition(":")[2]
        assert virtual.endswith(":20") == ("-P" in options)
    # Data counts as no connection of the service, as in the kernel.
    counted = lab.type("director", "ipvsadm -Ln --stats")
    vip = lab.addresses.vip if family == 4 else f"[{lab.addresses.vip6}]"
    row = next(line.split() for line in counted.splitlines() if f"{vip}:21" in line)
    assert row[2] == "6" and int(row[6]) > 4 * MEGABYTES << 20


def test_what_is_expected_is_listed(servers: Servers) -> None:
    """As kernel IPVS lists it: from port 0 of the client, in LISTEN, for two minutes."""
    lab = servers.lab
    with peers.connect(lab, lab.addresses.vip, 21) as control:
        words = control.makefile("rw", newline="\r\n")

        def ask(command: str, code: str) -> str:
            if command:
                words.write(command + "\r\n")
                words.flush()
            answer = words.readline()
            assert answer.startswith(code), answer
            return answer

        ask("", "220 ")
        ask("USER anonymous", "331 ")
        ask("PASS -", "230 ")
        numbers = re.findall(r"\d+", ask("PASV", "227 ")[4:])
        assert ".".join(numbers[:4]) == lab.addresses.vip
        port = int(numbers[4]) << 8 | int(numbers[5])
        ask("PORT {},200,1".format(lab.addresses.client.replace(".", ",")), "200 ")
        listing = lab.type("director", "ipvsadm -Lcn")
    client, vip = lab.addresses.client, lab.addresses.vip
    rip = next(each[3] for each in connections(lab) if each[2] == f"{vip}:21").partition(":")[0]
    for pattern in (
        rf"TCP 0[12]:\d\d +LISTEN +{client}:0 +{vip}:{port} +{rip}:{port}",
        rf"TCP 0[12]:\d\d +LISTEN +{client}:51201 +{vip}:20 +{rip}:20",
    ):
        assert re.search(pattern, listing), listing
