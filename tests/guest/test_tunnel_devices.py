# SPDX-License-Identifier: GPL-2.0-only
"""A lab's decapsulator takes what the kernel's own tunnel devices send.

In the guest, whose kernel has ipip, sit, gre, ip6_tunnel and fou, the lab's
router reaches a real server's VIP by a device of each kind.  That the kernel
has a tunl0 of its own in every namespace is no obstacle either.
"""

from __future__ import annotations

import pytest

from tests.guest.runner import Guest
from tests.guest.scenario import PROJECT

VIP, VIP6 = "192.168.219.100", "fd6c:7673::100"
ENDS = "local 192.168.56.1 remote 192.168.56.135"
ENDS6 = "local fd6c:7673:0:2::1 remote fd6c:7673:0:2::101"
GUE = "encap gue encap-sport auto encap-dport 6080"
DEVICES = {
    "ipip": (VIP, f"type ipip {ENDS}"),
    "gre with checksum, key and numbers": (VIP, f"type gre {ENDS} okey 7 oseq ocsum"),
    "gue with checksum": (VIP, f"type ipip {ENDS} {GUE} encap-csum"),
    "gue with remcsum": (VIP, f"type ipip {ENDS} {GUE} encap-csum encap-remcsum"),
    "IPv6 in IPv4": (VIP6, f"type sit {ENDS}"),
    "IPv4 in IPv6": (VIP, f"type ip6tnl mode any {ENDS6}"),
    "IPv6 in gue in IPv6 with remcsum": (
        VIP6, f"type ip6tnl mode any {ENDS6} encaplimit none {GUE} encap-csum encap-remcsum",
    ),
}  # fmt: skip
MODULES = "ipip sit ip_gre ip6_tunnel fou fou6"
XLVS = PROJECT / ".venv/bin/xlvs"


def _by_device(number: int, vip: str, device: str) -> str:
    family, source, url = (
        ("-6", "fd6c:7673:0:2::1", f"[{vip}]") if ":" in vip else ("-4", "192.168.56.1", vip)
    )
    return f"""
ip link add name t{number} {device} && ip link set t{number} up
ip {family} route replace {vip} dev t{number} src {source}
echo "$(curl -g -s -m 20 http://{url}/) $(curl -g -s -m 20 --data-binary @/tmp/upload http://{url}/)" \
    "$(test $(cat /sys/class/net/t{number}/statistics/tx_packets) -gt 8 && echo by the tunnel)"
ip link del t{number}
"""


@pytest.mark.timeout(400)
def test_it_takes_what_the_kernels_tunnels_send(guest: Guest) -> None:
    script = "".join(_by_device(number, *chosen) for number, chosen in enumerate(DEVICES.values()))
    guest.run(["sh", "-c", f"for module in {MODULES}; do modprobe $module || exit; done"]).check()
    try:
        guest.run(["sh", "-c", f"""
            head -c 300000 /dev/urandom >/tmp/upload
            {XLVS} lab up tun --bare --real-servers 1 --quiet || exit
            {XLVS} lab exec rs1 -- sh -c 'ip addr add {VIP}/32 dev tunl0 && ip link set tunl0 up &&
                ip addr add {VIP6}/128 dev tunl0 nodad'
        """], timeout=120).check()  # fmt: skip
        answered = guest.run([str(XLVS), "lab", "exec", "router", "--", "sh", "-c", script], timeout=300)
        answers = dict(zip(DEVICES, answered.stdout.splitlines(), strict=False))
        assert answers == dict.fromkeys(DEVICES, "rs1 rs1 by the tunnel"), answered.stderr
    finally:
        guest.run([str(XLVS), "lab", "down", "--name", "tun"], timeout=120)
