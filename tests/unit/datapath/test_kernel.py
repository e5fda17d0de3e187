# SPDX-License-Identifier: GPL-2.0-only
"""The backend for kernel IPVS without a kernel: its messages byte by byte, and a pretended IPVS behind them.

The guest's tests show it to the real one.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlvs import errors, model
from xlvs.cli import proc_files
from xlvs.datapath import kernel, kernel_files
from xlvs.datapath import kernel_messages as messages
from xlvs.datapath.comparing import destination_of
from xlvs.datapath.interface import Datapath
from xlvs.datapath.kernel import KernelDatapath
from xlvs.datapath.memory import MemoryDatapath
from xlvs.datapath.rows import RATES, STATS
from xlvs.kernel.genetlink import Family, attribute, attributes, nested
from xlvs.model import IPV4, IPV6, TCP, UDP, Destination, Service, ServiceKey, Timeouts, Tunnel

pytestmark = pytest.mark.unit

VIP = b"\xc0\x00\x02\x01"
VIP6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
KEY = ServiceKey(IPV4, TCP, VIP, 80)
COUNTED = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
ONE, TWO, THREE = (bytes((10, 0, 0, last)) for last in (1, 2, 3))


def words(text: str) -> bytes:
    """Bytes in hexadecimal, as a capture shows them."""
    return bytes.fromhex(text)


def test_a_service_as_the_kernel_takes_it() -> None:
    """``-A -t 192.0.2.1:80 -s wrr -p 300 -M 255.255.255.0 -o``."""
    sent = messages.service(Service(KEY, "wrr", 0, 300, 24, one_packet=True))
    assert sent == words(
        "5400 0180"
        "0600 0100 0200 0000"
        "0600 0200 0600 0000"
        "1400 0300 c0000201 00000000 00000000 00000000"
        "0600 0400 0050 0000"
        "0800 0600 77727200"
        "0c00 0700 05000000 ffffffff"
        "0800 0800 2c010000"
        "0800 0900 ffffff00"
    )


def test_a_real_server_as_the_kernel_takes_it() -> None:
    """``-a ... -r 10.0.0.1:8080 -i -w 3 -x 5 --tun-type gue --tun-port 6080 --tun-csum``."""
    tunnel = Tunnel("gue", 6080, "csum")
    sent = messages.destination(Destination(ONE, 8080, model.TUNNEL, 3, 5, 0, tunnel))
    assert sent == words(
        "6000 0280"
        "0600 0b00 0200 0000"
        "1400 0100 0a000001 00000000 00000000 00000000"
        "0600 0200 1f90 0000"
        "0800 0300 02000000"
        "0800 0400 03000000"
        "0800 0500 05000000"
        "0800 0600 00000000"
        "0500 0d00 01000000"
        "0600 0e00 17c0 0000"
        "0600 0f00 0100 0000"
    )


keys = st.one_of(
    st.builds(
        ServiceKey,
        st.just(IPV4),
        st.sampled_from([TCP, UDP]),
        st.binary(min_size=4, max_size=4),
        st.integers(0, 65535),
    ),
    st.builds(
        ServiceKey, st.just(IPV6), st.just(TCP), st.binary(min_size=16, max_size=16), st.integers(0, 65535)
    ),
    st.builds(ServiceKey, st.sampled_from([IPV4, IPV6]), fwmark=st.integers(1, 0xFFFFFFFF)),
)
services = keys.flatmap(
    lambda key: st.builds(
        Service,
        st.just(key),
        st.sampled_from((*model.SCHEDULERS, "none")),
        st.integers(0, 7),
        st.integers(0, 1 << 20),
        st.integers(1, 32 if key.family == IPV4 else 128),
        st.sampled_from(["", "sip"]),
        st.booleans(),
    )
)
tunnels = st.builds(
    Tunnel,
    st.sampled_from(["ipip", "gue", "gre"]),
    st.integers(0, 65535),
    st.sampled_from(["nocsum", "csum", "remcsum"]),
)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
numbers = st.integers(0, model.MAX_WEIGHT)
destinations = st.builds(
    Destination,
    addresses,
    st.integers(0, 65535),
    st.sampled_from([model.MASQUERADE, model.LOCAL, model.ROUTE, model.BYPASS]),
    numbers,
    numbers,
    numbers,
) | st.builds(
    Destination, addresses, st.integers(0, 65535), st.just(model.TUNNEL), numbers, numbers, numbers, tunnels
)


@given(services)
def test_what_is_said_of_a_service_is_read_again(service: Service) -> None:
    assert messages.read_service(attributes(messages.service(service))[messages.SERVICE])[0] == service


def counted(stats: model.Stats, rates: model.Rates) -> bytes:
    """A STATS64 attribute's value: counters, then rates."""
    values = [getattr(one, name) for one in (stats, rates) for name in COUNTED]
    return b"".join(attribute(kind, struct.pack("=Q", value)) for kind, value in enumerate(values, 1))


def dumped(entry: model.DestinationEntry) -> bytes:
    """A real server as the kernel tells of it."""
    said = messages.destination(entry.destination)[4:]
    live = (entry.active, entry.inactive, entry.persistent)
    more = b"".join(attribute(kind, struct.pack("=I", value)) for kind, value in enumerate(live, 7))
    return said + more + attribute(12, counted(entry.stats, entry.rates))


@given(destinations)
def test_what_is_said_of_a_real_server_is_read_again(destination: Destination) -> None:
    entry = model.DestinationEntry(destination, 1, 2, 3, model.Stats(*range(5, 10)), model.Rates(*range(5)))
    data = dumped(entry)
    assert messages.read_destination_entry(data, IPV4) == entry
    assert messages.read_destination(data, IPV4, RATES)[10] == tuple(range(5))
    assert messages.read_destination(data, IPV4)[10] == (0,) * 5


class PretendedIpvs:
    """The kernel's side of the conversation, with a `MemoryDatapath` for its table."""

    ERRORS = (
        (errors.ServiceExists, errno.EEXIST), (errors.DestinationExists, errno.EEXIST),
        (errors.NoSuchService, errno.ESRCH), (errors.NoSuchDestination, errno.ENOENT),
        (errors.SchedulerNotFound, errno.ENOENT), (errors.OutOfRange, errno.ERANGE),
        (errors.InvalidOperation, errno.EINVAL),
    )  # fmt: skip

    def __init__(self) -> None:
        self.table = MemoryDatapath()
        self.lacks = ""
        self.denies = False

    def ask(self, command: int, body: bytes = b"") -> list[dict[int, bytes]]:
        """Do what is asked, or raise the error number."""
        if self.denies:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        try:
            return self._do(command, attributes(body))
        except errors.TableError as refusal:
            number = next(number for kind, number in self.ERRORS if isinstance(refusal, kind))
            raise OSError(number, os.strerror(number)) from refusal

    def ask_many(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """Do each, whatever came of the others."""
        refused = {}
        for place, request in enumerate(requests):
            try:
                self.ask(*request)
            except OSError as error:
                refused[place] = error.errno or 0
        return refused

    def dump(self, command: int, body: bytes = b"") -> Iterator[dict[int, bytes]]:
        """Tell of services, or of a service's real servers."""
        if command == messages.GET_SERVICE:
            for entry in self.table.services():
                yield self._told(entry)
        else:
            with suppress(errors.NoSuchService):
                entry = self.table.service(self._key(attributes(body)))
                yield from ({messages.DESTINATION: dumped(one)} for one in entry.destinations)

    @staticmethod
    def _told(entry: model.ServiceEntry) -> dict[int, bytes]:
        numbers = attribute(12, counted(entry.stats, entry.rates))
        return {messages.SERVICE: messages.service(entry.service)[4:] + numbers}

    @staticmethod
    def _key(found: dict[int, bytes]) -> ServiceKey:
        whole = messages.service(Service(KEY))[4 + len(messages.service_key(KEY)) - 4 :]
        return messages.read_service(found[messages.SERVICE] + whole)[0].key

    def _do(self, command: int, found: dict[int, bytes]) -> list[dict[int, bytes]]:
        table = self.table
        if command in (messages.NEW_SERVICE, messages.SET_SERVICE):
            service = messages.read_service(found[messages.SERVICE])[0]
            if service.scheduler == self.lacks:
                raise errors.SchedulerNotFound("")
            (table.add_service if command == messages.NEW_SERVICE else table.edit_service)(service)
        elif command == messages.DELETE_SERVICE:
            table.delete_service(self._key(found))
        elif command == messages.GET_SERVICE:
            return [self._told(table.service(self._key(found)))]
        elif command == messages.DELETE_DESTINATION:
            place = attributes(found[messages.DESTINATION])
            address = place[1][: 4 if place[11] == struct.pack("=H", IPV4) else 16]
            table.delete_destination(self._key(found), address, int.from_bytes(place[2], "big"))
        elif command in (messages.NEW_DESTINATION, messages.SET_DESTINATION):
            live = b"".join(attribute(kind, bytes(4)) for kind in (7, 8, 9))
            row = messages.read_destination(found[messages.DESTINATION] + live, IPV4)
            add = command == messages.NEW_DESTINATION
            (table.add_destination if add else table.edit_destination)(self._key(found), destination_of(row))
        elif command == messages.ZERO:
            table.zero(self._key(found) if messages.SERVICE in found else None)
        elif command == messages.FLUSH:
            table.flush()
        elif command == messages.SET_TIMEOUTS:
            table.set_timeouts(messages.read_timeouts(found))
        elif command == messages.GET_TIMEOUTS:
            return [attributes(messages.timeouts(table.timeouts()))]
        elif command == messages.GET_INFO:
            return [{1: struct.pack("=I", 0x010201), 2: struct.pack("=I", 4096)}]
        return []


@pytest.fixture
def ipvs() -> PretendedIpvs:
    return PretendedIpvs()


@pytest.fixture
def datapath(ipvs: PretendedIpvs) -> KernelDatapath:
    return KernelDatapath(ipvs)


def test_it_is_a_datapath(datapath: KernelDatapath) -> None:
    whole: Datapath = datapath
    assert (whole.services(), whole.table(STATS), whole.mark_rules()) == ([], [], [])
    assert (whole.version(), whole.size()) == ((1, 2, 1), 4096)
    whole.set_timeouts(Timeouts(5, 0, 7))
    assert whole.timeouts() == Timeouts(5, 120, 7)


few_keys = st.sampled_from([KEY, ServiceKey(IPV6, TCP, VIP6, 80), ServiceKey(IPV4, fwmark=5)])
few_services = st.builds(
    Service, few_keys, st.sampled_from(["rr", "wlc", "nothing"]), persistence=st.sampled_from([0, 60])
)
few_destinations = st.builds(
    lambda address, tunnel, weight, lower: Destination(
        address, 80, model.TUNNEL if tunnel else model.ROUTE, weight, 0, lower, tunnel
    ),
    st.sampled_from([ONE, TWO, THREE, VIP6, b"\xe0\0\0\1"]),
    st.sampled_from([None, Tunnel(), Tunnel("gue", 6080, "csum")]),
    st.sampled_from([1, 5]),
    st.sampled_from([0, 0, 9]),
)
few_tables = st.lists(
    st.tuples(
        few_services,
        st.lists(
            few_destinations.filter(lambda one: is_whole(one)),
            max_size=3,
            unique_by=lambda one: one.address,
        ),
    ),
    max_size=3,
    unique_by=lambda one: one[0].key,
)
Whole = list[tuple[Service, list[Destination]]]
Act = Callable[[Datapath], None]
acts: st.SearchStrategy[Act] = st.one_of(
    few_services.map(lambda one: lambda table: table.add_service(one)),
    few_services.map(lambda one: lambda table: table.edit_service(one)),
    few_keys.map(lambda key: lambda table: table.delete_service(key)),
    st.builds(lambda key, one: lambda table: table.add_destination(key, one), few_keys, few_destinations),
    st.builds(lambda key, one: lambda table: table.edit_destination(key, one), few_keys, few_destinations),
    st.builds(
        lambda key, one: lambda table: table.delete_destination(key, one.address, 80),
        few_keys,
        few_destinations,
    ),
    few_tables.map(lambda whole: lambda table: table.add_services(whole)),
    few_keys.map(lambda key: lambda table: table.zero(key)),
    st.just(lambda table: table.flush()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=12))
def test_any_history_is_that_of_a_table_in_memory(history: list[Act]) -> None:
    """The same refusals, by their kinds, and after each step the same table."""
    plain, ipvs = MemoryDatapath(), PretendedIpvs()
    through = KernelDatapath(ipvs)
    for act in history:
        told = [outcome(act, plain), outcome(act, through)]
        assert told[0] == told[1]
        assert sorted_entries(through) == sorted_entries(plain)
        rows = {row[0].key: row for row in through.table()}
        assert rows == {row[0].key: row for row in plain.table()}
        assert rows == {key: through.row(key) for key in rows}


@settings(max_examples=60, deadline=None)
@given(few_tables, few_tables, st.sampled_from(["", "rr", "wlc"]))
def test_a_table_in_the_place_of_another_or_nothing(before: Whole, after: Whole, lacks: str) -> None:
    """Each service has the real servers that were wanted; or, refused half-way, those that it had."""
    ipvs = PretendedIpvs()
    datapath = KernelDatapath(ipvs)
    # No service has a scheduler that the kernel lacks: one that is given another could not be given it back.
    before = [(service, destinations) for service, destinations in before if service.scheduler != lacks]
    with suppress(errors.TableError):
        datapath.add_services(before)
    had = set_of(datapath)
    ipvs.lacks = lacks
    try:
        datapath.replace(after)
    except errors.TableError:
        ipvs.lacks = ""
        assert set_of(datapath) == had
    else:
        wanted = MemoryDatapath()
        wanted.add_services(after)
        assert set_of(datapath) == set_of(wanted)


def is_whole(destination: Destination) -> bool:
    """Whether at most the address family is wrong: of several mistakes either table may name another."""
    return model.is_unicast(destination.address) and not destination.lower_threshold


def outcome(act: Act, table: Datapath) -> str:
    """The kind of refusal, if it was one."""
    try:
        act(table)
    except errors.TableError as error:
        return type(error).__name__
    return ""


def sorted_entries(table: Datapath) -> list[model.ServiceEntry]:
    """Services in an order of their own."""
    return sorted(table.services(), key=lambda entry: (entry.service.key.family, entry.service.key.fwmark))


def set_of(table: Datapath) -> set[tuple[Service, frozenset[Destination]]]:
    """A table without any order."""
    return {
        (entry.service, frozenset(one.destination for one in entry.destinations))
        for entry in table.services()
    }


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (
            lambda table: table.add_service(Service(KEY)),
            "ServiceExists: Service already exists: TCP 192.0.2.1:80",
        ),
        (
            lambda table: table.delete_service(ServiceKey(IPV6, fwmark=5)),
            "NoSuchService: No such service: FWM 5 IPv6",
        ),
        (
            lambda table: table.add_destination(KEY, Destination(ONE, 80)),
            "DestinationExists: Destination already exists: 10.0.0.1:80 of TCP 192.0.2.1:80",
        ),
        (
            lambda table: table.delete_destination(KEY, VIP6, 81),
            "NoSuchDestination: No such destination: [2001:db8::1]:81 of TCP 192.0.2.1:80",
        ),
        (
            lambda table: table.edit_service(Service(KEY, "lblc", engine="sip")),
            "SchedulerNotFound: Scheduler lblc or persistence engine sip not found\n"
            "This kernel lacks one, or a module cannot be loaded: modprobe -a ip_vs_lblc ip_vs_pe_sip",
        ),
        (
            lambda table: table.add_destination(KEY, Destination(b"\xe0\0\0\1", 80)),
            "InvalidOperation: The address of a real server must be unicast",
        ),
        (
            lambda table: table.edit_destination(KEY, Destination(ONE, 80, lower_threshold=2)),
            "OutOfRange: The lower threshold 2 is above the upper one, 0",
        ),
        (
            lambda table: table.edit_service(Service(KEY, idle_timeout=5)),
            "NotSupported: kernel IPVS has no idle_timeout: TCP 192.0.2.1:80 needs the eBPF data plane\n"
            "Leave idle_timeout out, or run xlvsd without --datapath kernel",
        ),
        (
            lambda table: table.set_mark_rules([model.MarkRule(1, model.Prefix(VIP, 32))]),
            "NotSupported: kernel IPVS goes by the marks of netfilter, and has no rules of its own\n"
            "Mark packets there: nft add rule ... meta mark set MARK, or iptables -j MARK",
        ),
    ],
)
def test_a_refusal_names_what_was_refused(
    ipvs: PretendedIpvs, datapath: KernelDatapath, act: Act, said: str
) -> None:
    datapath.add_services([(Service(KEY), [Destination(ONE, 80)])])
    ipvs.lacks = "lblc"
    before = datapath.services()
    with pytest.raises(errors.TableError) as refusal:
        act(datapath)
    assert f"{type(refusal.value).__name__}: {refusal.value}" == said
    assert datapath.services() == before


def test_who_may_not(ipvs: PretendedIpvs, datapath: KernelDatapath) -> None:
    ipvs.denies = True
    with pytest.raises(errors.NotPermitted, match="CAP_NET_ADMIN"):
        datapath.add_service(Service(KEY))


def test_a_kernel_without_ip_vs_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "FAMILY", "XLVS_NOBODY")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(kernel, "_modprobe", lambda: "modprobe: FATAL: Module ip_vs not found")
    with pytest.raises(errors.Unavailable) as refusal:
        kernel.load_kernel()
    assert refusal.value.message == (
        "this kernel has no IPVS: the module ip_vs is not loaded (modprobe: FATAL: Module ip_vs not found)"
    )
    assert "modprobe ip_vs" in refusal.value.hint and "eBPF" in refusal.value.hint


def test_generic_netlink_as_it_is_spoken() -> None:
    """The kernel's own family of families: a dump that is left, another one, and a refusal."""
    with Family("nlctrl", version=2) as families:
        first = next(families.dump(3))
        assert 2 in first
        names = {found[2].rstrip(b"\0") for found in families.dump(3)}
        assert b"nlctrl" in names
        [alone] = families.ask(3, attribute(2, b"nlctrl\0"))
        assert (alone[2], struct.unpack("=H", alone[1])[0]) == (b"nlctrl\0", 16)
        with pytest.raises(FileNotFoundError):
            families.ask(3, attribute(2, b"nobody\0"))
    with pytest.raises(FileNotFoundError):
        Family("nobody")


def test_many_requests_at_once_and_which_of_them_are_refused() -> None:
    """The kernel goes on after a refusal, and the places of refusals are those of the requests."""
    with Family("nlctrl", version=2) as families:
        good, unknown, nobody = (3, attribute(2, b"nlctrl\0")), (99, b""), (3, attribute(2, b"nobody\0"))
        requests = [good] * 150
        requests[0], requests[63], requests[64], requests[149] = unknown, nobody, unknown, nobody
        assert families.ask_many(requests) == {
            0: errno.EOPNOTSUPP, 63: errno.ENOENT, 64: errno.EOPNOTSUPP, 149: errno.ENOENT,
        }  # fmt: skip
        assert families.ask_many([]) == {}
        assert families.ask_many([good]) == {}
        [alone] = families.ask(*good)
        assert alone[2] == b"nlctrl\0"


def test_attributes_that_end_early() -> None:
    data = attribute(1, b"a") + nested(2, attribute(3, b"bcd"))
    assert attributes(data) == {1: b"a", 2: attribute(3, b"bcd")}
    assert attributes(data + b"\x02\x00\x09\x00") == attributes(data)
    assert attributes(data + b"\x08") == attributes(data)


CONNECTIONS = """\
TCP C00002C8 9C40 C0000201 0050 0A000001 1F90 ESTABLISHED     899
UDP 2001:0db8:0000:0000:0000:0000:0000:00c8 9C41 2001:0db8:0000:0000:0000:0000:0000:0001 0035 0A000001 0035 UDP             299
IP  C00002C8 0000 00000005 0000 0A000001 0000 ASSURED         360
UDP C00002C8 0000 C0000201 13C4 0A000001 13C4 UDP             177 sip 1-2345@10.0.0.1
"""  # noqa: E501 - as wide as the kernel's


def test_connections_as_the_kernel_lists_them() -> None:
    client, client6 = b"\xc0\x00\x02\xc8", VIP6[:15] + b"\xc8"
    assert [kernel_files.read_connection(line) for line in CONNECTIONS.splitlines(keepends=True)] == [
        (TCP, client, 40000, VIP, 80, ONE, 8080, "ESTABLISHED", 899, 0, ""),
        (UDP, client6, 40001, VIP6, 53, ONE, 53, "UDP", 299, 0, ""),
        (0, client, 0, b"\0\0\0\5", 0, ONE, 0, "ASSURED", 360, 5, ""),
        (UDP, client, 0, VIP, 5060, ONE, 5060, "UDP", 177, 0, "1-2345@10.0.0.1"),
    ]


def test_counters_of_all_services_as_the_kernel_lists_them() -> None:
    counted, a_second = model.Stats(26, 2, 3, 0x123456789ABCDEF0, 5), model.Rates(6, 7, 8, 9, 10)
    by_cpu = (model.Stats(), model.Stats(255, 2, 3, 4, 5))
    totals = model.Totals(counted, by_cpu, a_second)
    first, second = kernel_files.read_totals(proc_files.statistics_file(totals))
    assert (model.Stats(*first), model.Rates(*second)) == (counted, a_second)
    assert tuple(kernel_files.read_by_cpu(proc_files.percpu_statistics_file(totals))) == by_cpu


def test_settings_are_changed_all_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("drop_entry", "sloppy_tcp"):
        (tmp_path / name).write_text("0\n")
    monkeypatch.setattr(kernel_files, "SETTINGS", str(tmp_path))
    datapath = KernelDatapath(PretendedIpvs())
    datapath.set_sysctls({"sloppy_tcp": "1"})
    with pytest.raises(errors.InvalidOperation, match="no setting 'other'"):
        datapath.set_sysctls({"sloppy_tcp": "0", "other": "1"})
    write = kernel_files._write

    def refuse(name: str, text: str) -> None:
        if text == "9":
            raise OSError(errno.EINVAL, "Invalid argument")
        write(name, text)

    monkeypatch.setattr(kernel_files, "_write", refuse)
    with pytest.raises(errors.InvalidOperation, match="'9' for drop_entry: Invalid argument"):
        datapath.set_sysctls({"sloppy_tcp": "0", "drop_entry": "9"})
    assert datapath.sysctls() == {"drop_entry": "0", "sloppy_tcp": "1"}
