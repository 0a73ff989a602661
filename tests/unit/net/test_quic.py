"""Our hold on aioquic: the private names that are used exist, and its dangerous defaults are off."""

from __future__ import annotations

import importlib.metadata
import inspect
import re

from aioquic import tls
from aioquic.quic import connection, recovery, stream
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from labxchange.net import quic
from labxchange.net.quic import PRIVATE_NAMES, BoundedConnection, client_configuration, server_configuration


def test_private_names_are_where_they_were() -> None:
    assert importlib.metadata.version("aioquic").startswith("1.7.")
    homes = {
        "QuicConnection": connection.QuicConnection,
        "QuicPacketRecovery": recovery.QuicPacketRecovery,
        "Context": tls.Context,
        "QuicStreamSender": stream.QuicStreamSender,
    }
    assert set(homes) == set(PRIVATE_NAMES)
    for home, names in PRIVATE_NAMES.items():
        source = inspect.getsource(homes[home])
        for name in names:
            assert f"self.{name}" in source or f"def {name}(" in source, name


def test_every_private_name_is_listed() -> None:
    own = {"_window", "_stream_window", "_consumed", "_consumed_bytes", "_widen", "_begin"}
    listed = {name for names in PRIVATE_NAMES.values() for name in names}
    used = set(re.findall(r"\._[a-z]\w*", inspect.getsource(quic)))
    assert {name[1:] for name in used} - own <= listed


def test_overridden_methods_have_the_expected_arguments() -> None:
    for name in ("_write_connection_limits", "_write_stream_limits", "_initialize"):
        ours = inspect.signature(getattr(BoundedConnection, name)).parameters
        theirs = inspect.signature(getattr(connection.QuicConnection, name)).parameters
        assert list(ours) == list(theirs)


def test_configuration() -> None:
    server, client = server_configuration(), client_configuration()
    assert isinstance(server.private_key, Ed25519PrivateKey)
    assert server.certificate != server_configuration().certificate
    for configuration in (server, client):
        assert configuration.session_ticket is None
        assert configuration.server_name is None
        assert configuration.supported_versions == [1]
        assert configuration.max_data == configuration.max_stream_data == 8192


def test_no_tickets_and_no_early_data() -> None:
    made = BoundedConnection(configuration=client_configuration())
    assert made._session_ticket_fetcher is None
    assert made._session_ticket_handler is None
    assert (made._local_max_streams_bidi.value, made._local_max_streams_uni.value) == (0, 0)


def test_discard_leaves_nothing() -> None:
    made = BoundedConnection(configuration=client_configuration())
    made.connect(("127.0.0.1", 1), now=0.0)
    made.discard()
    assert made.__dict__ == {}
