"""Keys, certificates and configuration files of the peers, made anew for each run in its own folder.

Nothing outside that folder is changed: sshd runs under a private view of ``/etc/passwd`` with one more account, so that no
person's start-up files are part of the measurement, and no account is made on the machine.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.network import Network

_NOBODY = 65_534
_CONNECT_S = 30.0


def write(peer: str, place: Path, source: Path, words: dict[str, str]) -> None:
    """Everything that ``peer`` needs in ``place``."""
    makers: dict[str, Callable[[], None]] = {
        "scp": lambda: _sshd(place),
        "rsync": lambda: _sshd(place),
        "curl-tls": lambda: _nginx(place, source, words),
        "aria2-16": lambda: _nginx(place, source, words),
        "syncthing": lambda: _syncthing(place, words),
        "udt": lambda: _udt(place),
    }
    if peer in makers:
        makers[peer]()


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _sshd(place: Path) -> None:
    for name in ("id", "hostkey"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name))
    settings = f"""Port 2222
HostKey {place}/hostkey
AuthorizedKeysFile {place}/id.pub
StrictModes no
UsePAM no
PidFile none
UseDNS no
Subsystem sftp internal-sftp
"""
    (place / "sshd_config").write_text(settings)
    people = Path("/etc/passwd").read_text()
    (place / "passwd").write_text(f"{people}bench:*:{_NOBODY}:{_NOBODY}::{place}:/bin/sh\n")
    (place / "sshd").write_text(
        '#!/bin/sh\nmkdir -p /run/sshd\nexec unshare --mount sh -c "mount --bind $1/passwd /etc/passwd'
        ' && exec $(command -v sshd) -D -f $1/sshd_config"\n'
    )
    (place / "sshd").chmod(0o755)


def _certificate(place: Path) -> None:
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=bench"
    _run("openssl", *words.split(), "-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem"))


def _nginx(place: Path, source: Path, words: dict[str, str]) -> None:
    _certificate(place)
    (place / "nginx.conf").write_text(
        f"""daemon off; worker_processes {os.cpu_count()}; pid {place}/nginx.pid; error_log {place}/nginx.log; user root;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
 server {{ listen {words["a"]}:8443 ssl http2; ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem;
  root {source}; }} }}
"""
    )
    with (place / "curl.list").open("w") as curl, (place / "aria2.list").open("w") as aria2:
        for file in sorted((source / "tree").rglob("*.bin")):
            name = file.relative_to(source)
            url = f"https://{words['a']}:8443/{name}"
            curl.write(f'url = "{url}"\noutput = "{name}"\n')
            aria2.write(f"{url}\n dir={words['dst']}\n out={name}\n")


def _udt(place: Path) -> None:
    _run("c++", "-O2", "-o", str(place / "udt"), str(Path(__file__).with_name("peer_udt.cpp")), "-ludt")


def _syncthing(place: Path, words: dict[str, str]) -> None:
    """Two homes that know each other's address; no discovery, relay, port mapping or usage report."""
    folders = {"a": place / "st-source", "b": Path(words["dst"])}
    names = {}
    for host in "ab":
        home = f"{place}/st-{host}"
        _run("syncthing", "generate", "--home", home, "--skip-port-probing", "--no-default-folder")
        names[host] = _run("syncthing", "--home", home, "--device-id").strip()
    for host, other in ("ab", "ba"):
        (folders[host] / ".stfolder").mkdir(parents=True)
        kind = "sendonly" if host == "a" else "receiveonly"
        off = "globalAnnounceEnabled localAnnounceEnabled relaysEnabled natEnabled startBrowser crashReportingEnabled"
        options = "".join(f"<{name}>false</{name}>" for name in off.split())
        (place / f"st-{host}" / "config.xml").write_text(
            f"""<configuration version="36">
<folder id="lab" label="lab" path="{folders[host]}" type="{kind}" rescanIntervalS="0" fsWatcherEnabled="false" ignorePerms="true">
<filesystemType>basic</filesystemType><device id="{names["a"]}"></device><device id="{names["b"]}"></device>
<minDiskFree unit="%">0</minDiskFree></folder>
<device id="{names[host]}" name="{host}"><address>dynamic</address></device>
<device id="{names[other]}" name="{other}"><address>tcp://{words[other]}:22000</address></device>
<gui enabled="true" tls="false"><address>{words[host]}:8384</address><apikey>lab</apikey></gui>
<options><listenAddress>tcp://{words[host]}:22000</listenAddress>{options}<urAccepted>-1</urAccepted>
<reconnectionIntervalS>1</reconnectionIntervalS><autoUpgradeIntervalH>0</autoUpgradeIntervalH></options>
</configuration>
"""
        )


def connected(peer: str, network: Network) -> None:
    """Wait until the peer's servers know each other, where they must before there is anything to time."""
    if peer != "syncthing":
        return
    words = ["curl", "-s", "-H", "X-API-Key: lab", f"http://{network.address('a')}:8384/rest/system/connections"]
    deadline = time.monotonic() + _CONNECT_S
    while '"connected": true' not in subprocess.run(network.command("a", words), capture_output=True, text=True).stdout:
        if time.monotonic() > deadline:
            raise OSError("syncthing: no connection")
        time.sleep(0.2)
