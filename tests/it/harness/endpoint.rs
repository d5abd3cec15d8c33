//! Endpoints whose every byte a test controls: over TCP, over TLS and in HTTP/2 frames.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A TCP server that hands each connection to a function of the test.
pub struct Endpoint {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    /// Runs `serve` for each connection. Its second argument is the number of the connection, from 0.
    pub async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { address, connections, task }
    }

    /// Answers the first request of every connection with these bytes, and then closes the connection.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                if request(&mut stream).await.is_some() {
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                    // Closing a socket with unread bytes would reset the connection.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        })
        .await
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request with its body. Returns `None` if the connection ends first.
pub async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The reaction of an HTTP/2 endpoint to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Answer,
    /// Sends RST_STREAM with this code.
    Reset(u32),
    /// Sends a GOAWAY that excludes this stream, and serves nothing more on the connection.
    GoAway,
    /// Closes the connection without an answer.
    Close,
    /// Stops reading and writing on this connection, and keeps it open.
    Freeze,
    /// Never answers the request, but answers pings.
    Ignore,
}

/// Serves HTTP/2 in frames. `act` gets the number of each request on this connection, from 1, and chooses a reaction.
pub async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin, act: impl Fn(u32) -> Act) -> Option<()> {
    http2_with(stream, &[], act).await
}

/// Serves HTTP/2 like [`http2`], and allows only `max` requests at once.
pub async fn http2_of_few(stream: impl AsyncRead + AsyncWrite + Unpin, max: u32, act: impl Fn(u32) -> Act) {
    const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
    http2_with(stream, &[&MAX_CONCURRENT_STREAMS[..], &max.to_be_bytes()].concat(), act).await;
}

async fn http2_with(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    settings: &[u8],
    act: impl Fn(u32) -> Act,
) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    frame(&mut stream, SETTINGS, 0, 0, settings).await?;
    let mut count = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        const ACK: u8 = 1;
        const END_STREAM: u8 = 1;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => frame(&mut stream, PING, ACK, 0, &payload).await?,
            HEADERS | DATA if flags & END_STREAM != 0 => {
                count += 1;
                match act(count) {
                    // Entry 8 of HPACK's static table is `:status: 200`. The flags end the headers and the stream.
                    Act::Answer => frame(&mut stream, HEADERS, 0x5, id, &[0x88]).await?,
                    Act::Reset(code) => frame(&mut stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?,
                    Act::GoAway => {
                        let last = id.saturating_sub(2);
                        frame(&mut stream, GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4]].concat()).await?;
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        return None;
                    }
                    Act::Close => return None,
                    Act::Freeze => std::future::pending().await,
                    Act::Ignore => {}
                }
            }
            _ => {}
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// The endpoint did not process the stream (RFC 9113, section 7).
pub const REFUSED_STREAM: u32 = 7;

async fn frame(stream: &mut (impl AsyncWrite + Unpin), kind: u8, flags: u8, id: u32, payload: &[u8]) -> Option<()> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes).await.ok()?;
    stream.flush().await.ok()
}

/// A certificate for `localhost` and 127.0.0.1, and the root that signed it.
pub struct Certificate {
    pub roots: rustls::RootCertStore,
    pub config: rustls::ServerConfig,
    /// The root.
    pub authority_pem: String,
    pub chain_pem: String,
    pub key_pem: String,
}

/// The way in which a certificate differs from an ordinary valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    Expired,
    OtherHost,
    SelfSigned,
    /// Every key of the chain is on the curve P-521, which is valid but rare.
    P521,
}

pub fn certificate(flaw: Flaw) -> Certificate {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let algorithm = if flaw == Flaw::P521 { &rcgen::PKCS_ECDSA_P521_SHA512 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
    let authority_key = KeyPair::generate_for(algorithm).unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    let name = format!("test authority {}", uuid::Uuid::now_v7());
    authority.distinguished_name.push(rcgen::DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let host = if flaw == Flaw::OtherHost { "elsewhere.example" } else { "localhost" };
    let mut names = vec![host.to_owned()];
    if flaw != Flaw::OtherHost {
        names.push("127.0.0.1".to_owned());
    }
    let mut params = CertificateParams::new(names).unwrap();
    if flaw == Flaw::Expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate_for(algorithm).unwrap();
    let cert = match flaw {
        Flaw::SelfSigned => params.self_signed(&key).unwrap(),
        _ => params.signed_by(&key, &Issuer::new(authority, &authority_key)).unwrap(),
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority_cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key_der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key_der).unwrap();
    Certificate {
        roots,
        config,
        authority_pem: authority_cert.pem(),
        chain_pem: cert.pem(),
        key_pem: key.serialize_pem(),
    }
}

/// An acceptor for TLS connections with `config` that offers `alpn`.
pub fn acceptor(mut config: rustls::ServerConfig, alpn: &str) -> TlsAcceptor {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A name server that answers queries for names that have addresses, and ignores all others.
pub struct NameServer {
    pub address: SocketAddr,
    queried: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    /// `answer` returns the addresses of a name. The server ignores a query if it returns none.
    pub async fn start(answer: impl Fn(&str) -> Vec<std::net::Ipv4Addr> + Send + 'static) -> Self {
        Self::knowing(move |name| Some(answer(name)).filter(|found| !found.is_empty()).map(of_version_4)).await
    }

    /// `answer` returns the addresses of a name, which may be none. The server ignores a query if it returns `None`.
    pub async fn knowing(answer: impl Fn(&str) -> Option<Vec<IpAddr>> + Send + 'static) -> Self {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let queried = Arc::new(Mutex::new(Vec::new()));
        let names = queried.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1_500];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let query = &buffer[..length];
                let (name, end) = name_of(query);
                let addresses = answer(&name);
                let is_a = query[end..end + 2] == [0, 1];
                names.lock().unwrap().push(name);
                if let Some(mut addresses) = addresses {
                    addresses.retain(|address| address.is_ipv4() == is_a);
                    let _ = socket.send_to(&reply(query, end + 4, &addresses), from).await;
                }
            }
        });
        Self { address, queried, task }
    }

    /// The number of queries for `name`, of all record types.
    pub fn queries(&self, name: &str) -> usize {
        self.queried.lock().unwrap().iter().filter(|queried| *queried == name).count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name in a query, and the position after it.
fn name_of(query: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let length = query[at] as usize;
        labels.push(String::from_utf8(query[at + 1..=at + length].to_vec()).unwrap());
        at += length + 1;
    }
    (labels.join(".").to_lowercase(), at + 1)
}

fn of_version_4(addresses: Vec<std::net::Ipv4Addr>) -> Vec<IpAddr> {
    addresses.into_iter().map(IpAddr::V4).collect()
}

fn reply(query: &[u8], end: usize, addresses: &[IpAddr]) -> Vec<u8> {
    let mut reply = query[..end].to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        // A pointer to the name in the query, type A or AAAA, class IN, a time to live of 60 s, and the length of the data.
        reply.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        reply.extend_from_slice(&data);
    }
    reply
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}
