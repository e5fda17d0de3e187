# SPDX-License-Identifier: GPL-2.0-only
"""TLS as a checker speaks it: by default to anybody, with ``verification`` to the right one only."""

from __future__ import annotations

import functools
import os
import ssl

from xlvs.keepalived.checks import TlsVerification
from xlvs.keepalived.configuration import TlsClient


@functools.lru_cache(maxsize=64)
def context(verification: TlsVerification | None, client: TlsClient, http2: bool = False) -> ssl.SSLContext:
    """How to speak TLS; raises `OSError` (`ssl.SSLError` is one) for files that cannot be used.

    As in keepalived nothing is verified unless asked for, and ciphers of old servers are
    taken: a check finds out whether a server serves, not whether it does so as it should.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verification is None:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        made.set_ciphers("DEFAULT:@SECLEVEL=0")
    elif verification.authorities:
        is_folder = os.path.isdir(verification.authorities)
        made.load_verify_locations(
            cafile=None if is_folder else verification.authorities,
            capath=verification.authorities if is_folder else None,
        )
    else:
        made.load_default_certs()
    if client.certificate:
        made.load_cert_chain(client.certificate, client.key or None, client.password or None)
    if http2:
        made.set_alpn_protocols(["h2"])
    return made
