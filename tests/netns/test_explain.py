# SPDX-License-Identifier: GPL-2.0-only
"""`xlvs explain` beside the traffic that it speaks of."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.labs import Lab


def test_explained_before_it_is_asked_for(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    vip, client = lab.addresses.vip, lab.type("client", "hostname -I").split()[0]
    pages = {lab.type(f"rs{number}", "hostname -I").split()[0]: f"rs{number}" for number in (1, 2, 3)}
    for _ in range(4):
        said = json.loads(lab.type("director", f"xlvs explain --client {client} --to {vip}:80 --json"))
        assert lab.ask(1) == [pages[said["real_server"]]]
    assert said["leaves"]["mac"] == lab.mac(pages[said["real_server"]])
    assert "-> no" not in lab.type("director", f"xlvs explain --client {client} --to {vip}:80")

    nobody = lab.type("director", f"xlvs explain --client {client} --to {vip}:81", code=1)
    assert "left to the director itself" in nobody
    lab.type("director", "xlvs detach")
    assert "nothing is loaded" in lab.type(
        "director", f"xlvs explain --client {client} --to {vip}:80", code=1
    )
