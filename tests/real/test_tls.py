"""An agent behind a TLS proxy, with one of Twisted's endpoints as the host, or with an endpoint string of `twistd txserf`."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS

import txserf
from tests.agents import Agent
from tests.real.conftest import Listen, NewClient
from tests.real.helpers import Proxy, Seen, fails, in_reactor, reactor, round_trip
from tests.real.processes import Start


def new_certificate() -> PrivateCertificate:
    """Make a self-signed certificate for ``localhost``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    both: PrivateCertificate = PrivateCertificate.loadPEM(certificate.public_bytes(pem) + private_pem(key))
    return both


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())


@pytest.fixture(scope="module")
def certificate() -> PrivateCertificate:
    return new_certificate()


def tls_endpoint(address: str, trusted: Certificate) -> IStreamClientEndpoint:
    host, _, port = address.partition(":")
    options = optionsForClientTLS("localhost", trustRoot=trusted)
    return wrapClientTLS(options, TCP4ClientEndpoint(reactor, host, int(port)))


def listen_with_tls(listen: Listen, proxy: Proxy, certificate: PrivateCertificate) -> str:
    return listen(proxy, SSL4ServerEndpoint(reactor, 0, certificate.options(), interface="127.0.0.1"))


@in_reactor
async def test_a_proxy_with_tls_is_a_host_whose_streams_outlive_a_loss(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen, certificate: PrivateCertificate
) -> None:
    proxy, seen = Proxy(shared_cluster[0]), Seen()
    address = listen_with_tls(listen, proxy, certificate)
    client = new_client(tls_endpoint(address, certificate), auto_reconnect=True)
    watched = client.stream(Type="user:tls").add_callback(seen).watch()
    await round_trip(client)
    proxy.cut()
    await seen.opened(2)
    await round_trip(client)
    await client.event(Name="tls", Coalesce=False).request()
    await seen.count(1)
    client.disconnect()
    await fails(watched, txserf.Disconnected)


@in_reactor
async def test_a_certificate_that_is_not_trusted_is_a_connect_error(
    new_client: NewClient, shared_cluster: list[Agent], listen: Listen, certificate: PrivateCertificate
) -> None:
    address = listen_with_tls(listen, Proxy(shared_cluster[0]), certificate)
    client = new_client(tls_endpoint(address, new_certificate()))
    error = await fails(client.members().request(), txserf.ConnectError)
    assert "certificate verify failed" in str(error)


@in_reactor
async def test_tls_to_an_agent_itself_is_a_connect_error(
    new_client: NewClient, agent: Agent, certificate: PrivateCertificate
) -> None:
    client = new_client(tls_endpoint(agent.rpc, certificate))
    await fails(client.members().request(), txserf.ConnectError)


# -- twistd txserf --agent


def pem(folder: Path, certificate: Certificate) -> str:
    """Write a certificate, and return the options of an endpoint string that trusts it."""
    folder.mkdir()
    (folder / "trusted.pem").write_bytes(certificate.dumpPEM())
    return f"trustRoots={folder}"


@in_reactor
async def test_twistd_reaches_an_agent_by_an_endpoint_string_with_the_right_certificate_only(
    twistd: Start, agent: Agent, listen: Listen, tmp_path: Path, certificate: PrivateCertificate
) -> None:
    port = listen_with_tls(listen, Proxy(agent), certificate).partition(":")[2]
    name = f"tls:localhost:{port}"
    right = twistd("--agent", f"{name}:{pem(tmp_path / 'right', certificate)}")
    await right.line("member")
    await right.logged(f"connected to {name}\n")
    wrong = twistd("--agent", f"{name}:{pem(tmp_path / 'wrong', new_certificate())}")
    await wrong.logged(f"no connection to {name}: ")
    await wrong.logged("certificate verify failed")
    assert wrong.lines == []
    for running in (right, wrong):
        assert str(tmp_path) not in running.log


@in_reactor
async def test_twistd_shows_its_own_certificate_to_a_proxy_that_wants_one(
    twistd: Start, agent: Agent, listen: Listen, tmp_path: Path, certificate: PrivateCertificate
) -> None:
    own = new_certificate()
    wants_it = SSL4ServerEndpoint(reactor, 0, certificate.options(own), interface="127.0.0.1")
    port = listen(Proxy(agent), wants_it).partition(":")[2]
    name, trusts = f"tls:localhost:{port}", pem(tmp_path / "trusted", certificate)
    for file, each in (("own", own), ("another", new_certificate())):
        key = each.privateKey.original.to_cryptography_key()
        (tmp_path / file).write_bytes(each.dumpPEM() + private_pem(key))
    right = twistd("--agent", f"{name}:{trusts}:certificate={tmp_path / 'own'}")
    await right.line("member")
    for more in ("", f":certificate={tmp_path / 'another'}"):
        wrong = twistd("--agent", f"{name}:{trusts}{more}")
        await wrong.logged(f"no connection to {name}: ")
        assert wrong.lines == []
