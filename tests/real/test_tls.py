"""An agent behind a TLS proxy, with one of Twisted's endpoints as the host."""

from __future__ import annotations

import datetime

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
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both: PrivateCertificate = PrivateCertificate.loadPEM(certificate.public_bytes(pem) + private)
    return both


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
