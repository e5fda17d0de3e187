# SPDX-License-Identifier: GPL-2.0-only
"""The formats of /proc/net/ip_vs*, as captured from Linux 6.1; the guest's tests compare live files."""

from __future__ import annotations

import socket

import pytest

from tests.unit.cli.test_saved import table_of
from xlvs.cli import proc_files
from xlvs.datapath.memory import MemoryDatapath
from xlvs.model import IPV4, IPV6, TCP, Connection, Rates, Service, ServiceEntry, ServiceKey, Stats, Totals

pytestmark = pytest.mark.unit

COMMANDS = """\
-A -f 5 -s sh -b sh-port,sh-fallback -p
-a -f 5 -r 10.0.0.9
-A -u 192.0.2.1:53 -o -p 30 -M 255.255.255.0
-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.3:8080 -m
-a -t 192.0.2.1:80 -r [2001:db8::7]:80 -i
-A -t [2001:db8::1]:80 -s wlc -p 60 -M 64
"""

TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
UDP  C0000201:0035 wlc ops  persistent 7500 FFFFFF00
TCP  C0000201:0050 rr  
  -> [2001:0db8:0000:0000:0000:0000:0000:0007]:0050      Tunnel  1      0          0         
  -> 0A000003:1F90      Masq    1      0          0         
TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 wlc persistent 15000 40000000
FWM  00000005 sh persistent 90000 FFFFFFFF
  -> 0A000009:0000      Route   1      0          0         
"""  # noqa: W291 - the kernel's own blanks

STATISTICS = """\
   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
      1A        2        3 123456789ABCDEF0                5

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       6        7        8                9                A
"""

PERCPU = """\
       Total Incoming Outgoing         Incoming         Outgoing
CPU    Conns  Packets  Packets            Bytes            Bytes
  0        0        0        0                0                0
  1       FF        2        3                4                5
  ~       1A        2        3 123456789ABCDEF0                5

     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
           6        7        8                9                A
"""


def test_table() -> None:
    table = table_of(COMMANDS)
    lines = proc_files.table_file(table.version(), table.size(), table.services(), 250)
    assert "".join(lines) == TABLE


def test_statistics() -> None:
    totals = Totals(
        Stats(26, 2, 3, 0x123456789ABCDEF0, 5), (Stats(), Stats(255, 2, 3, 4, 5)), Rates(6, 7, 8, 9, 10)
    )
    assert "".join(proc_files.statistics_file(totals)) == STATISTICS
    assert "".join(proc_files.percpu_statistics_file(totals)) == PERCPU


def test_totals_are_sums() -> None:
    entries = [
        ServiceEntry(Service(ServiceKey(IPV4, fwmark=mark)), (), Stats(mark, 1, 2, 3, 4), Rates(mark))
        for mark in (1, 2)
    ]
    totals = MemoryDatapath(entries).totals()
    assert totals.stats == Stats(3, 2, 4, 6, 8)
    assert totals.rates == Rates(3)


def test_connections() -> None:
    def ip(text: str) -> bytes:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)

    entries = [
        Connection(
            IPV4, TCP, ip("198.51.100.5"), 69, ip("192.0.2.1"), 80, ip("10.0.0.1"), 8080, "SYN_RECV", 57
        ),
        Connection(
            IPV4,
            0,
            ip("198.51.100.0"),
            0,
            b"\0\0\0\5",
            0,
            ip("2001:db8::7"),
            0,
            "ASSURED",
            12345678,
            fwmark=5,
        ),
        Connection(IPV6, TCP, ip("2001:db8::5"), 1, ip("::1"), 80, ip("10.0.0.1"), 80, "NONE", 0),
    ]
    seven = "2001:0db8:0000:0000:0000:0000:0000:0007"
    five, one = "2001:0db8:0000:0000:0000:0000:0000:0005", "0000:0000:0000:0000:0000:0000:0000:0001"
    assert list(proc_files.connection_file(entries))[1:] == [
        "TCP C6336405 0045 C0000201 0050 0A000001 1F90 SYN_RECV         57\n",
        f"IP  C6336400 0000 00000005 0000 {seven} 0000 ASSURED     12345678\n",
        f"TCP {five} 0001 {one} 0050 0A000001 0050 NONE              0\n",
    ]
    assert list(proc_files.sync_connection_file(entries))[1] == (
        "TCP C6336405 0045 C0000201 0050 0A000001 1F90 SYN_RECV    LOCAL       57\n"
    )
