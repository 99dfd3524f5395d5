//! TLS, with this crate at both ends and with tools that others wrote.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use remuda_net::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use remuda_net::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use remuda_net::{
    CloseReason, Config, ConnCtx, NetError, ParseResult, connect_tls, connect_tls_with, listen_tcp,
    listen_tls, spawn_blocking, spawn_with_handle,
};

use crate::drivers::{run_beside, same_driver, take, take_all};

/// An authority, a certificate for localhost and one for a client.
struct Papers {
    authority: CertificateDer<'static>,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    client: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

fn papers() -> Papers {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // A certificate whose issuer has its own name would be taken for self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority for tests");
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), key)
    };
    let (server, client) = (issue("localhost"), issue("client"));
    Papers { authority: authority.der().clone(), server, client }
}

impl Papers {
    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        Arc::new(roots)
    }

    fn server(&self, demand_certificate: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder();
        let builder = if demand_certificate {
            let verifier = rustls::server::WebPkiClientVerifier::builder(self.roots());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = (self.server.0.clone(), self.server.1.clone_key());
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"remuda/1".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn client(&self, with_certificate: bool) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = if with_certificate {
            let (certificate, key) = (self.client.0.clone(), self.client.1.clone_key());
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"remuda/1".to_vec()];
        Arc::new(config)
    }
}

fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn echo(conn: ConnCtx) {
    let echo = |data: &[u8]| {
        // TLS copies: what was received is in no buffer of the kernel's any more.
        let _ = conn.forward_recv_buf(data);
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(echo).await > 0 {}
}

async fn both_ends_agree_and_bytes_arrive() {
    let papers = papers();
    let server = papers.server(true);
    let config = Config { tls_client: Some(papers.client(true)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        let (told, info) = remuda_net::oneshot::channel();
        let told = std::cell::Cell::new(Some(told));
        listen_tls(listener, server, move |conn| {
            if let Some(told) = told.take() {
                told.send(conn.tls_info().unwrap()).unwrap();
            }
            echo(conn)
        })
        .unwrap();
        let conn = connect_tls(addr, "localhost", None).unwrap().await.unwrap();
        let of_client = conn.tls_info().unwrap();
        assert_eq!(of_client.version, "TLSv1_3");
        assert_eq!(of_client.alpn.as_deref(), Some(&b"remuda/1"[..]));
        assert_eq!(of_client.server_name.as_deref(), Some("localhost"));
        assert_eq!(of_client.peer_certificates, [papers.server.0.to_vec()]);
        let of_server = info.await.unwrap();
        assert_eq!(of_server.server_name.as_deref(), Some("localhost"));
        assert_eq!(of_server.peer_certificates, [papers.client.0.to_vec()]);
        assert_eq!(of_server.cipher_suite, of_client.cipher_suite);
        let message: Vec<u8> = (0..3_u32 << 20).map(|at| (at % 253) as u8).collect();
        let sent = conn.send(&message).unwrap();
        let (sent, echoed) = remuda_net::join(sent, take(conn, message.len())).await;
        assert_eq!(sent.unwrap(), message.len());
        assert!(echoed == message);
        // Half a close: close_notify goes out, and the answer to what was sent comes back.
        conn.send_bytes(bytes::Bytes::from_static(b"the last")).unwrap();
        conn.shutdown_write();
        assert_eq!(take_all(conn).await, b"the last");
        assert_eq!(conn.closed_by(), Some(CloseReason::Eof), "the server said close_notify");
    });
}

async fn a_connections_own_tls_connects_work() {
    let papers = papers();
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(false), echo).unwrap();
        // One who trusts nobody, whomever the runtime's configuration trusts.
        let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        let nobody = Arc::new(nobody.with_no_client_auth());
        let refused = connect_tls_with(addr, &nobody, "localhost", None).unwrap().await;
        assert!(matches!(refused, Err(NetError::Tls(_))), "{refused:?}");
        let (parent, _other) = crate::drivers::pair();
        assert_eq!(parent.tls_info(), None);
        let first = parent.connect_tls(addr, "localhost").unwrap().await.unwrap();
        let second = parent.connect_tls_with_timeout(addr, "localhost", 60_000).unwrap();
        for conn in [first, second.await.unwrap()] {
            conn.send_nowait(b"ping").unwrap();
            assert_eq!(take(conn, 4).await, b"ping");
        }
        let wrong = parent.connect_tls(addr, "elsewhere.example").unwrap().await.unwrap_err();
        assert!(matches!(wrong, NetError::Tls(_)), "{wrong}");
        assert!(matches!(parent.connect_tls(addr, "not a name"), Err(NetError::Tls(_))));
    });
}

async fn a_client_without_the_demanded_certificate_is_refused() {
    let papers = papers();
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(true), |_| async {
            panic!("it was let in");
        })
        .unwrap();
        // In TLS 1.3 the client is done before the server has looked; the refusal comes then.
        if let Ok(conn) = connect_tls(addr, "localhost", None).unwrap().await {
            assert_eq!(take_all(conn).await, b"");
            let refused = CloseReason::Reset(std::io::ErrorKind::InvalidData);
            assert_eq!(conn.closed_by(), Some(refused));
        }
    });
}

async fn a_stream_that_is_cut_off_is_told_from_one_that_ended() {
    let papers = papers();
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(false), echo).unwrap();
        // A relay that can cut the connection below TLS.
        let (relay, relay_addr) = bound();
        let (give, scissors) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut front, _) = relay.accept().unwrap();
            let mut back = TcpStream::connect(addr).unwrap();
            let (mut to_front, mut to_back) =
                (front.try_clone().unwrap(), back.try_clone().unwrap());
            give.send(front.try_clone().unwrap()).unwrap();
            std::thread::spawn(move || std::io::copy(&mut front, &mut to_back));
            std::io::copy(&mut back, &mut to_front)
        });
        let conn = connect_tls(relay_addr, "localhost", None).unwrap().await.unwrap();
        conn.send_nowait(&[7; 3_000]).unwrap();
        assert_eq!(take(conn, 3_000).await, [7; 3_000]);
        scissors.recv().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(take_all(conn).await, b"");
        let cut = CloseReason::Reset(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(conn.closed_by(), Some(cut));
    });
}

async fn handshakes_have_a_time_limit() {
    let papers = papers();
    let limit = Duration::from_millis(50);
    let config = Config {
        tls_client: Some(papers.client(false)),
        tls_handshake_timeout: limit,
        ..same_driver()
    };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(false), |_| async { panic!("no handshake was") })
            .unwrap();
        let silent_client = spawn_blocking(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap()
        });
        // At most an alert comes, then the end.
        assert!(silent_client.await.unwrap() < 16);
        let (silent_server, addr) = bound();
        let error = connect_tls(addr, "localhost", None).unwrap().await.unwrap_err();
        assert!(matches!(error, NetError::ConnectTimedOut { .. }), "{error}");
        drop(silent_server);
    });
}

async fn what_is_no_tls_is_refused_on_both_sides() {
    let papers = papers();
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(false), |_| async { panic!("that was no TLS") })
            .unwrap();
        let conn = remuda_net::connect(addr).unwrap().await.unwrap();
        conn.send_nowait(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // An alert in TLS's own format, then the end.
        assert!(take_all(conn).await.len() < 16);
        let (listener, addr) = bound();
        listen_tcp(listener, |conn| async move {
            conn.send_nowait(b"220 some other protocol\r\n").unwrap();
            take_all(conn).await;
        })
        .unwrap();
        let error = connect_tls(addr, "localhost", None).unwrap().await.unwrap_err();
        assert!(matches!(error, NetError::Tls(_)), "{error}");
    });
}

async fn without_a_configuration_tls_is_an_error() {
    let (_listener, addr) = bound();
    let error = connect_tls(addr, "localhost", None).err().unwrap();
    assert!(error.to_string().contains("tls_client"), "{error}");
    let config = Config { workers: 1, ..same_driver() };
    let error = remuda_net::Builder::new(config).bind_tls(addr).launch::<Never>().err().unwrap();
    assert!(error.to_string().contains("tls_server"), "{error}");
}

struct Never;

impl remuda_net::AsyncEventHandler for Never {
    fn create_for_worker(_worker: usize) -> Self {
        Self
    }

    async fn on_accept(&self, conn: ConnCtx) {
        echo(conn).await;
    }
}

async fn a_builders_tls_listener_serves() {
    let papers = papers();
    let config = Config { workers: 1, tls_server: Some(papers.server(false)), ..same_driver() };
    let builder = remuda_net::Builder::new(config).bind_tls("127.0.0.1:0".parse().unwrap());
    let (shutdown, threads) = builder.launch::<Never>().unwrap();
    let addr = shutdown.addresses()[0];
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let conn = connect_tls(addr, "localhost", None).unwrap().await.unwrap();
        conn.send_nowait(b"ping").unwrap();
        assert_eq!(take(conn, 4).await, b"ping");
    });
    shutdown.shutdown();
    threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
}

/// Whether a tool is here. Where `CI` is set its absence is a failure.
fn have(tool: &str) -> bool {
    let mut command = Command::new(tool);
    let found = command.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{tool} is missing");
    if !found {
        eprintln!("SKIPPED: {tool} is missing");
    }
    found
}

async fn openssl_and_curl_talk_to_it() {
    let papers = papers();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, pem(&papers.authority)).unwrap();
    let (listener, addr) = bound();
    listen_tls(listener, papers.server(false), |conn| async move {
        let mut request = Vec::new();
        let until_blank_line = |data: &[u8]| {
            request = data.to_vec();
            if data.ends_with(b"\r\n\r\n") {
                ParseResult::Consumed(data.len())
            } else {
                ParseResult::NeedMore
            }
        };
        if conn.with_data(until_blank_line).await > 0 {
            let answer =
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
            conn.send_nowait(answer).unwrap();
        }
    })
    .unwrap();
    if have("curl") {
        let url = format!("https://localhost:{}/", addr.port());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http1.1", "--noproxy", "*", "--cacert"]);
        curl.arg(&authority).args(["--resolve", &format!("localhost:{}:127.0.0.1", addr.port())]);
        curl.arg(url);
        let output = spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{stderr}");
    }
    if have("openssl") {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
        ]);
        openssl.args(["-servername", "localhost", "-CAfile"]).arg(&authority);
        openssl.args(["-connect", &addr.to_string()]);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spoken = spawn_blocking(move || {
            let mut child = openssl.spawn().unwrap();
            child.stdin.as_mut().unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            child.wait_with_output().unwrap()
        });
        let output = spoken.await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("hello\n"), "{stderr}");
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut encoded = String::from("-----BEGIN CERTIFICATE-----\n");
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut column = 0;
    for group in certificate.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let padding = digit > group.len();
            encoded.push(if padding { '=' } else { char::from(ALPHABET[value as usize]) });
        }
        column += 4;
        if column % 64 == 0 {
            encoded.push('\n');
        }
    }
    encoded + "\n-----END CERTIFICATE-----\n"
}

async fn many_tls_connections_at_once() {
    let papers = papers();
    let config = Config { tls_client: Some(papers.client(false)), ..same_driver() };
    run_beside(config, move || async move {
        let (listener, addr) = bound();
        listen_tls(listener, papers.server(false), echo).unwrap();
        let tasks: Vec<_> = (0..20_u8)
            .map(|number| {
                spawn_with_handle(async move {
                    let conn = connect_tls(addr, "localhost", None).unwrap().await.unwrap();
                    for round in 0..20_usize {
                        let message = vec![number; 1 + round * 977];
                        conn.send_nowait(&message).unwrap();
                        assert_eq!(take(conn, message.len()).await, message);
                    }
                    conn.close();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

on_both_drivers!(
    both_ends_agree_and_bytes_arrive,
    a_connections_own_tls_connects_work,
    a_client_without_the_demanded_certificate_is_refused,
    a_stream_that_is_cut_off_is_told_from_one_that_ended,
    handshakes_have_a_time_limit,
    what_is_no_tls_is_refused_on_both_sides,
    without_a_configuration_tls_is_an_error,
    a_builders_tls_listener_serves,
    openssl_and_curl_talk_to_it,
    many_tls_connections_at_once,
);
