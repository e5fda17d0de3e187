# SPDX-License-Identifier: GPL-2.0-only
"""Labs whose director attaches its data plane in a mode that was asked for."""

from __future__ import annotations

import json

import pytest

from tests.labs import Lab, eventually, xlvs
from xlvs.datapath.modes import AUTO, TC, XDP, XDP_GENERIC
from xlvs.lab import state, wiring
from xlvs.lab.topology import SWITCH

UPLOAD = 1_000_000
"""Bytes of a client's request: more than a segment, so that there is something left for a card to do."""


def up(name: str, mode: str, topology: str = "dr") -> tuple[Lab, str]:
    """A lab with one real server, and what was said when it was built."""
    said = xlvs("lab", "up", topology, "--name", name, "--real-servers", "1", "--mode", mode).stdout
    record = state.load(name)
    assert record is not None
    return Lab(record), said


def hooks(lab: Lab) -> set[str]:
    status = json.loads(lab.type("director", "xlvs status --json"))
    return {each["hook"] for each in status["attached"] if each["interface"] == "eth0"}


def forwarded_at_xdp(lab: Lab) -> int:
    return int(json.loads(lab.type("director", "xlvs status --json"))["events"]["xdp_forwarded"])


def upload(lab: Lab) -> str:
    url = f"http://{lab.addresses.vip}/"
    return lab.type("client", f"head -c {UPLOAD} /dev/zero | curl -s -m 20 --data-binary @- {url}")


@pytest.mark.parametrize("mode", [XDP, XDP_GENERIC])
def test_a_director_at_xdp(lab_name: str, mode: str) -> None:
    lab, said = up(lab_name, mode)
    assert f"director# xlvs attach --mode {mode}\n    eth0: {mode}\n" in said
    assert mode in hooks(lab)
    # A real server's MAC is known to XDP from the first look at it after its first packets.
    eventually(lambda: lab.ask(1) == ["rs1"] and forwarded_at_xdp(lab) > 0, "XDP forwards")
    before = forwarded_at_xdp(lab)
    assert upload(lab).strip() == "rs1"
    assert forwarded_at_xdp(lab) > before
    # Asked for once more it is there; in another mode it is another lab.
    assert "nothing to do" in xlvs(
        "lab", "up", "dr", "--name", lab_name, "--real-servers", "1", "--mode", mode
    ).stdout  # fmt: skip
    refused = xlvs("lab", "up", "dr", "--name", lab_name, "--real-servers", "1", "--mode", TC, code=2)
    assert "other options" in refused.stderr


def packets_in(lab: Lab) -> int:
    (line,) = lab.type("director", "ipvsadm -Ln --stats --exact | grep ^TCP").splitlines()
    return int(line.split()[3])


def upload_at_xdp(lab: Lab) -> tuple[int, int]:
    """How many packets an upload took from the client, and how many XDP forwarded, of either side."""
    came, forwarded = packets_in(lab), forwarded_at_xdp(lab)
    assert upload(lab).strip() == "rs1"
    return packets_in(lab) - came, forwarded_at_xdp(lab) - forwarded


@pytest.mark.parametrize("topology", ["nat", "tun"])
def test_nat_and_tunnels_at_xdp(lab_name: str, topology: str) -> None:
    """What clients send arrives whole; under NAT what real servers answer goes by XDP, too."""
    lab, _ = up(lab_name, XDP, topology)

    def goes_by_xdp() -> bool:
        requests, at_xdp = upload_at_xdp(lab)
        return at_xdp > (requests if topology == "nat" else requests // 2)

    eventually(goes_by_xdp, "XDP forwards an upload")


def test_a_port_that_has_lost_its_program_is_repaired(lab_name: str) -> None:
    lab, _ = up(lab_name, XDP)
    switch = lab.record.namespace(SWITCH)
    wiring.batch(switch, ["link set director xdp off"])
    assert "wires out of place" in xlvs("lab", "status", "--name", lab_name).stdout
    _, said = up(lab_name, XDP)
    assert "repairing" in said
    assert any(link["ifname"] == "director" and "xdp" in link for link in wiring.links(switch))


@pytest.mark.parametrize(("mode", "reason"), [(AUTO, "skbs already"), (TC, "")])
def test_a_director_at_tc(lab_name: str, mode: str, reason: str) -> None:
    """Auto takes TC for a veth, and says why."""
    lab, said = up(lab_name, mode)
    assert reason in said
    assert not hooks(lab) & {XDP, XDP_GENERIC}
    assert lab.ask(2) == ["rs1", "rs1"]
    assert upload(lab).strip() == "rs1"
    assert forwarded_at_xdp(lab) == 0


def test_a_bare_lab_attaches_nothing(lab_name: str) -> None:
    refused = xlvs("lab", "up", "dr", "--name", lab_name, "--bare", "--mode", XDP, code=2)
    assert "--bare and --mode contradict" in refused.stderr
    assert "xlvs attach --mode" in refused.stderr
