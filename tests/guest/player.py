# SPDX-License-Identifier: GPL-2.0-only
"""Plays scenarios inside the guest: ``python -m tests.guest.player``.

Reads the order of `scenario.play` from stdin as JSON and writes the
observations to stdout.  One process is client, real servers and operator at
once, by making its sockets in the namespaces where they belong; so each step
is over, on every node, before the next begins.
"""

from __future__ import annotations

import functools
import json
import os
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from .ipvsadm_transcript import format_answer
from .network import CLIENT, DIRECTOR, Network, delete_namespace, network, set_sysctl
from .operators import KernelOperator, Operator, XlvsOperator
from .scenario import KERNEL, XLVS, Observation, Play, Scenario

PROGRAMS = Path(__file__).resolve().parents[2] / ".venv/bin"
COMMAND_TIMEOUT = 60
ANSWER_TIMEOUT = 2.5
"""Seconds until a SYN or a datagram counts as not answered; a SYN has then been sent again once."""
DATAGRAM_TIMEOUT = 0.5
TICKS = 0.01
"""Seconds, more than two ticks of the kernel's: an entry that it has given up is gone after one."""
FIRST_CLIENT_PORT = 40000
A_DAY = 86_400_000
"""Milliseconds: SCTP's heartbeats come at random times, and never within a scenario."""

REFUSED = "refused"
NO_ANSWER = "no answer"


class Player:
    """Carries out the steps of one scenario on one network."""

    def __init__(self, built: Network, operator: Operator, steady: SteadyClock | None) -> None:
        self._network = built
        self._steady = steady
        self._operator = operator
        self._places = built.addresses()
        # As FTP writes them.
        self._places |= {f"{name}_ftp": each.replace(".", ",") for name, each in self._places.items()}
        self._clients: dict[str, socket.socket] = {}
        self._targets: dict[str, tuple[str, int]] = {}
        self._servers: dict[str, socket.socket] = {}
        self._listeners: dict[socket.socket, str] = {}
        self._opened = 0
        self._start = time.monotonic()
        self._stack = ExitStack()

    def play(self, steps: Sequence[str]) -> Iterator[Observation]:
        """Carry out all steps, yielding what each one shows."""
        with self._stack:
            self._listen(steps)
            loaded = False
            for step, stdin in self._with_stdin(steps):
                yield self._observe(step, stdin)
                if not loaded and step.startswith(("ipvsadm", "sysctl")):
                    # From here: the first command loads a director, which takes one longer than the other.
                    self._start = time.monotonic()
                    loaded = True

    def _with_stdin(self, steps: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Pair each step with the ``<`` lines that follow it."""
        position = 0
        while position < len(steps):
            step, stdin = steps[position], ""
            position += 1
            while position < len(steps) and steps[position].startswith("<"):
                stdin += steps[position][1:].strip() + "\n"
                position += 1
            yield step.format(**self._places), stdin.format(**self._places)

    def _observe(self, step: str, stdin: str) -> Observation:
        verb, *words = shlex.split(step)
        match verb, words:
            case "ipvsadm", _:
                return Observation(step, without_size(self._ipvsadm(words, stdin)))
            case "sysctl", [name, value]:
                return Observation(step, self._operator.sysctl(name, value))
            case "run", [node, *command]:
                return Observation(step, self._run(node, command, stdin))
            case "open", [name, protocol, target]:
                return Observation(step, self._open(name, protocol, target))
            case "open", [name, protocol, target, "from", source]:
                return Observation(step, self._open(name, protocol, target, source))
            case "open", [name, protocol, target, "on", node, "from", source]:
                return Observation(step, self._open(name, protocol, target, source, node))
            case "listen", [_, _]:
                return Observation(step, "")  # everybody does, from the beginning
            case "send", [name, *size]:
                return Observation(step, self._send(name, int(size[0]) if size else 1))
            case "ask", [name, *words]:
                return Observation(step, self._ask(name, " ".join(words)))
            case "answer", [name, *words]:
                return Observation(step, self._answer(name, " ".join(words)))
            case "close", [name]:
                self._close(name)
                return Observation(step, "")
            case "reset", [name]:
                self._reset(name)
                return Observation(step, "")
            case "proc", [name]:
                return self._proc(step, name)
            case "datagram", [node, source, target, text]:
                return Observation(step, self._datagram(node, source, target, text))
            case "connections", options:
                return self._connections(step, options)
            case "wait", [seconds]:
                wait(float(seconds), self._steady)
                return Observation(step, "")
        raise ValueError(f"not a step of a scenario: {step}")

    # --- the operator --------------------------------------------------------

    def _ipvsadm(self, arguments: Sequence[str], stdin: str) -> str:
        return self._operator.ipvsadm(arguments, stdin)

    def _run(self, node: str, command: Sequence[str], stdin: str) -> str:
        done = subprocess.run(
            self._network.command(node, command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        return format_answer(done.stdout, done.stderr, done.returncode)

    def _proc(self, step: str, name: str) -> Observation:
        now = time.monotonic() - self._start
        if isinstance(self._operator, XlvsOperator):
            return proc_file(step, name, format_answer(self._operator.xlvs("proc", name), "", 0), now)
        command = ["cat", f"/proc/net/{name}"]
        return proc_file(step, name, self._run(DIRECTOR, command, ""), now)

    def _connections(self, step: str, options: Sequence[str]) -> Observation:
        time.sleep(TICKS)
        now = time.monotonic() - self._start
        return connection_table(step, self._ipvsadm(["-L", "-c", "-n", *options], ""), now)

    # --- the client and the real servers --------------------------------------

    def _listen(self, steps: Sequence[str]) -> None:
        """Let every node listen on all ports that the steps name."""
        ports = set()
        for step in steps:
            words = step.split()
            if words[0] == "open":
                ports.add((words[2], int(words[3].rpartition(":")[2])))
            elif words[0] == "listen":
                ports.add((words[1], int(words[2])))
        for node in self._network.nodes:
            with self._network.inside(node):
                for protocol, port in sorted(ports):
                    if protocol == "sctp":
                        self._listen_to_associations(node, port)
                        continue
                    listener = self._stack.enter_context(_socket(socket.AF_INET6, protocol))
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    listener.bind(("::", port))
                    if protocol == "tcp":
                        listener.listen(64)
                    self._listeners[listener] = node

    def _listen_to_associations(self, node: str, port: int) -> None:
        """Each on one address, so that none tells clients of more; the caller is inside the node."""
        set_sysctl("sctp/hb_interval", A_DAY)
        own = "dip" if node == DIRECTOR else node
        virtual = () if node == CLIENT else ("vip", "vip6")
        for place in (*virtual, own, f"{own}_6"):
            address = self._places[place]
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = self._stack.enter_context(_socket(family, "sctp"))
            listener.bind((address, port))
            listener.listen(64)
            self._listeners[listener] = node

    def _open(self, name: str, protocol: str, target: str, source: str = "", node: str = CLIENT) -> str:
        """Open a connection from a node, or send a first datagram; `source` is "address:port"."""
        if name in self._clients:
            raise ValueError(f"connection {name} is open already")
        address, port = _split(target)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        own = "client_6" if family == socket.AF_INET6 else "client"
        source_address, source_port = (
            _split(source) if source else (self._places[own], FIRST_CLIENT_PORT + self._opened)
        )
        self._opened += 1
        with self._network.inside(node):
            if protocol == "sctp":
                set_sysctl("sctp/hb_interval", A_DAY)
            client = self._stack.enter_context(_socket(family, protocol))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setblocking(False)
        client.bind((source_address, source_port))
        client.connect_ex((address, port))
        if protocol == "udp":
            self._clients[name] = client
            self._targets[name] = (address, port)
            return self._send(name, 1)
        chosen = self._connected(client, name)
        if chosen in (REFUSED, NO_ANSWER):
            client.close()
        else:
            self._clients[name] = client
        return chosen

    def _connected(self, client: socket.socket, name: str) -> str:
        """Wait until a server has accepted, or the client knows that none will."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        watch_client = [client]
        while (remaining := deadline - time.monotonic()) > 0:
            accepting, settled = self._ready(list(self._listeners), watch_client, remaining)
            for listener in accepting:
                if listener.type == socket.SOCK_STREAM:
                    self._servers[name] = self._stack.enter_context(listener.accept()[0])
                    return self._listeners[listener]
            if settled:
                if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return REFUSED
                watch_client = []
        return NO_ANSWER

    def _send(self, name: str, size: int) -> str:
        """Send `size` bytes; for UDP, say which server got the datagram."""
        client = self._clients[name]
        if name in self._servers:
            client.sendall(bytes(size))
            received = 0
            while received < size:
                received += len(self._receive(self._servers[name]))
            return self._listeners_node(name)
        client.send(bytes(size))
        listeners = [one for one in self._listeners if one.type == socket.SOCK_DGRAM]
        for listener in self._ready(listeners, [], ANSWER_TIMEOUT)[0]:
            listener.recv(65536)
            return self._listeners[listener]
        return REFUSED if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else NO_ANSWER

    def _datagram(self, node: str, source: str, target: str, text: str) -> str:
        """Send a datagram from a socket that is there for it alone; who got it, and from where."""
        address, port = _split(target)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self._network.inside(node), _socket(family, "udp") as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sender.bind(_split(source))
            sender.sendto(text.encode("latin-1").decode("unicode_escape").encode("latin-1"), (address, port))
        listeners = [one for one in self._listeners if one.type == socket.SOCK_DGRAM]
        for listener in self._ready(listeners, [], DATAGRAM_TIMEOUT)[0]:
            _, origin = listener.recvfrom(65536)
            return f"{self._listeners[listener]} from {origin[0]} {origin[1]}"
        return NO_ANSWER

    def _ready(
        self, readable: Sequence[socket.socket], writable: Sequence[socket.socket], seconds: float
    ) -> tuple[list[socket.socket], list[socket.socket]]:
        """Those from which can be read, and those to which can be written, as soon as there are any.

        What arrives is mostly there already.  If not, nothing is under way but timers, to which a
        leaping clock leaps: to burn the seconds of a wait for nothing takes longer than all the rest.
        """
        found = select.select(readable, writable, [], 0)[:2]
        if not any(found):
            with leaping(self._steady):
                found = select.select(readable, writable, [], seconds)[:2]
        return found

    def _ask(self, name: str, line: str) -> str:
        """The client sends a line; what the real server reads."""
        self._clients[name].sendall(f"{line}\r\n".encode())
        return self._receive(self._servers[name]).decode().rstrip()

    def _answer(self, name: str, line: str) -> str:
        """The real server sends a line; the numbers that the client reads in it."""
        self._servers[name].sendall(f"{line}\r\n".encode())
        return " ".join(re.findall(r"\d+", self._receive(self._clients[name]).decode()))

    def _receive(self, sock: socket.socket) -> bytes:
        """Receive once, waiting a little; b"" is the end."""
        if not self._ready([sock], [], ANSWER_TIMEOUT)[0]:
            raise TimeoutError("a segment of an open connection did not arrive")
        return sock.recv(65536)

    def _listeners_node(self, name: str) -> str:
        port = self._servers[name].getsockname()[1]
        accepted = self._servers[name]
        for listener, node in self._listeners.items():
            if listener.getsockname()[1] == port and _cookie(listener) == _cookie(accepted):
                return node
        raise AssertionError(f"{name} was accepted by no listener of ours")

    def _close(self, name: str) -> None:
        """End a connection in good order; a UDP socket just goes."""
        client = self._clients.pop(name)
        if name in self._servers:
            server = self._servers.pop(name)
            client.shutdown(socket.SHUT_WR)
            self._receive(server)
            server.close()
            # An association has no half-closed state, and tells nobody that it is over.
            if client.proto != socket.IPPROTO_SCTP:
                self._receive(client)
        client.close()

    def _reset(self, name: str) -> None:
        client, server = self._clients.pop(name), self._servers.pop(name)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        try:
            self._receive(server)
        except ConnectionResetError:
            server.close()
        else:
            raise AssertionError(f"the reset of {name} did not reach the real server")


class SteadyClock:
    """Keeps a guest's leaping clock from leaping where it must not.

    With `Guest.icount` time jumps to the next timer whenever the processor has
    nothing to do, which is also while it waits for a file of the host.  So a
    process at idle priority burns what is left over, except during a wait that
    the scenario asks for.
    """

    def __init__(self) -> None:
        self._burner = os.fork()
        if self._burner == 0:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            while True:
                pass

    def pause(self) -> None:
        """Let the clock leap."""
        os.kill(self._burner, signal.SIGSTOP)

    def resume(self) -> None:
        """Hold it back again."""
        os.kill(self._burner, signal.SIGCONT)

    def close(self) -> None:
        """Let the clock go for good."""
        os.kill(self._burner, signal.SIGKILL)
        os.waitpid(self._burner, 0)


def _cookie(sock: socket.socket) -> bytes:
    """The network namespace that a socket belongs to (SO_NETNS_COOKIE)."""
    return sock.getsockopt(socket.SOL_SOCKET, 71, 8)


def _socket(family: int, protocol: str) -> socket.socket:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    return socket.socket(family, kind, socket.IPPROTO_SCTP if protocol == "sctp" else 0)


def _split(text: str) -> tuple[str, int]:
    """Split ``address:port`` or ``[address]:port``."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def connection_table(step: str, listing: str, now: float, mentions: Sequence[str] = ("",)) -> Observation:
    """The connection table in an order of its own, since the kernel's is that of a seeded hash.

    `listing` is the answer of ``-Lcn`` at the time `now`; of its rows only those that
    mention one of `mentions` count.
    """
    head: list[str] = []
    rows: list[tuple[str, float]] = []
    rest: list[str] = []
    for line in listing.splitlines():
        found = re.fullmatch(r"1\|(\S+ +)(\d+):(\d\d)( .*)", line)
        if found:
            protocol, minutes, seconds, tail = found.groups()
            if any(name in tail for name in mentions):
                rows.append((f"1|{protocol}--:--{tail}", now + int(minutes) * 60 + int(seconds)))
        else:
            (rest if line.startswith("=") else head).append(line)
    rows.sort()
    answer = "\n".join([*head, *(row for row, _ in rows), *rest])
    return Observation(step, answer, tuple(end for _, end in rows))


def proc_file(step: str, name: str, answer: str, now: float) -> Observation:
    """A file of /proc/net in an order of its own: the kernel's is that of seeded hashes.

    Everything else is left to the byte, but for the seconds until entries expire.
    """
    lines = answer.splitlines()
    if name.startswith("ip_vs_stats"):
        return Observation(step, answer)
    if name == "ip_vs":
        blocks: list[str] = []
        for line in lines[3:-1]:
            if line.startswith("1|  -> "):
                blocks[-1] += f"\n{line}"
            else:
                blocks.append(line)
        # Services of addresses come first, in whatever order; then those of firewall marks.
        blocks.sort(key=lambda block: (block.startswith("1|FWM"), block))
        return Observation(step, without_size("\n".join([*lines[:3], *blocks, lines[-1]])))
    rows = sorted((line[:-7], now + int(line[-7:])) for line in lines[1:-1])
    answer = "\n".join([lines[0], *(row for row, _ in rows), lines[-1]])
    return Observation(step, answer, tuple(end for _, end in rows))


def without_size(answer: str) -> str:
    """An answer without the size of the connection table: that is a setting, not a behaviour."""
    return re.sub(r"^(1\|IP Virtual Server version \S+) \(size=\d+\)$", r"\1", answer, flags=re.MULTILINE)


@contextmanager
def leaping(steady: SteadyClock | None) -> Iterator[None]:
    """For a ``with`` block that only waits, for nothing of the host's: a leaping clock leaps meanwhile."""
    if steady:
        steady.pause()
    try:
        yield
    finally:
        if steady:
            steady.resume()


def wait(seconds: float, steady: SteadyClock | None) -> None:
    """Let time pass; a leaping clock leaps."""
    with leaping(steady):
        time.sleep(seconds)


def play(scenario: Scenario, director: str, preload: Path, steady: SteadyClock | None) -> Play:
    """Play a scenario against a director in a network that is new.

    Only xlvs's director stays from play to play where waiting is free: loading it is what
    costs, because the verifier runs under emulation, too.  It gets new interfaces, and
    has forgotten all that it knew; one that has not is not used again.  Nothing makes it
    forget what /proc/net counts since loading.
    """
    counts_from_loading = any(step.startswith("proc ") for step in scenario.steps)
    lasting = director == XLVS and steady is not None and not counts_from_loading
    if director == XLVS and counts_from_loading:
        _take_away_the_lasting()
    with network(director, scenario.servers, lasting_director=lasting) as built:
        inside = functools.partial(built.inside, DIRECTOR)
        if director == KERNEL:
            with closing(KernelOperator(inside, preload)) as ipvs:
                return Play(scenario.name, director, tuple(Player(built, ipvs, steady).play(scenario.steps)))
        xlvs = XlvsOperator(inside)
        with ExitStack() as stack:
            # Its tables would outlive a namespace that is deleted under it.
            stack.callback(delete_namespace, built.namespace(DIRECTOR))
            stack.callback(xlvs.xlvs, "detach")
            if built.is_used:
                xlvs.xlvs("attach", "eth0")
            observations = tuple(Player(built, xlvs, steady).play(scenario.steps))
            if lasting and xlvs.forget(lambda seconds: wait(seconds, steady)):
                stack.pop_all()
        return Play(scenario.name, director, observations)


def _take_away_the_lasting() -> None:
    """Take the xlvs director away that stayed from an earlier play, if there is one."""
    left = Network(XLVS, (), is_used=True)
    if os.path.exists(f"/run/netns/{left.namespace(DIRECTOR)}"):
        XlvsOperator(functools.partial(left.inside, DIRECTOR)).xlvs("detach")
        delete_namespace(left.namespace(DIRECTOR))


def main() -> int:
    """Play what stdin orders and print what was seen."""
    subprocess.run(["modprobe", "ip_vs"], check=True)
    order = json.load(sys.stdin)
    if any(" sctp " in step for fields in order["scenarios"] for step in fields["steps"]):
        subprocess.run(["modprobe", "sctp"], check=True)
    steady = SteadyClock() if order["leaping_clock"] else None
    plays = []
    for fields in order["scenarios"]:
        scenario = Scenario(fields["name"], tuple(fields["steps"]), fields["servers"])
        for director in order["directors"]:
            start = time.monotonic()
            plays.append(asdict(play(scenario, director, Path(order["preload"]), steady)))
            print(f"{scenario.name}, {director}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    if steady:
        steady.close()
    json.dump(plays, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
