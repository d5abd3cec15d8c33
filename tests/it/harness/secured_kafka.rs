//! A broker that other machines could be allowed to reach: TLS, passwords (SCRAM), tokens (OAUTHBEARER with OIDC), client
//! certificates, and access control lists. It also has a listener without all that, for what a test does as an operator.

use std::path::Path;
use std::process::{Command, Stdio};

use axum::Json;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::service::{Service, free_ports};

/// The users. The password of each is its name with `-password`.
pub const USERS: [&str; 3] = ["worker", "admin", "producer"];

/// The audience of tokens.
const AUDIENCE: &str = "kafka";

pub struct SecuredKafka {
    service: Service,
    port: u16,
    folder: tempfile::TempDir,
    token_endpoint: String,
}

impl SecuredKafka {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let token_endpoint = serve_tokens(folder.path()).await;
        let port = free_ports(5);
        let scram = USERS.map(|user| format!("--add-scram SCRAM-SHA-512=[name={user},password={user}-password]"));
        let jwks = format!("file://{}", folder.path().join("jwks.json").display());
        let service = Service::start_at(
            "kafka",
            port,
            vec![
                ("KAFKA_SETTINGS", settings(port, folder.path(), &jwks)),
                ("KAFKA_FORMAT", scram.join(" ")),
                (
                    "KAFKA_JAVA_OPTIONS",
                    format!(
                        "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks} -Dorg.apache.kafka.sasl.oauthbearer.allowed.files={}",
                        folder.path().join("jwks.json").display()
                    ),
                ),
            ],
        );
        Self { service, port, folder, token_endpoint }
    }

    /// The listener for operators, which asks for nothing.
    pub fn address(&self) -> &str {
        &self.service.address
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The settings of a process that signs in as `user` with a password.
    pub fn with_password(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("kafka.brokers", format!("127.0.0.1:{}", self.port + 2)),
            ("kafka.properties.security_protocol", "SASL_SSL".to_owned()),
            ("kafka.properties.ssl_ca_location", self.file("ca.pem")),
            ("kafka.properties.sasl_mechanism", "SCRAM-SHA-512".to_owned()),
            ("kafka.properties.sasl_username", user.to_owned()),
            ("kafka.properties.sasl_password", format!("{user}-password")),
        ]
    }

    /// The settings of a process that shows a client certificate.
    pub fn with_certificate(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("kafka.brokers", format!("127.0.0.1:{}", self.port + 3)),
            ("kafka.properties.security_protocol", "SSL".to_owned()),
            ("kafka.properties.ssl_ca_location", self.file("ca.pem")),
            ("kafka.properties.ssl_certificate_location", self.file(&format!("{user}.pem"))),
            ("kafka.properties.ssl_key_location", self.file(&format!("{user}.key"))),
        ]
    }

    /// The settings of a process that fetches tokens for `user`.
    pub fn with_token(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("kafka.brokers", format!("127.0.0.1:{}", self.port + 4)),
            ("kafka.properties.security_protocol", "SASL_SSL".to_owned()),
            ("kafka.properties.ssl_ca_location", self.file("ca.pem")),
            ("kafka.properties.sasl_mechanism", "OAUTHBEARER".to_owned()),
            ("kafka.properties.sasl_oauthbearer_method", "oidc".to_owned()),
            ("kafka.properties.sasl_oauthbearer_client_id", user.to_owned()),
            ("kafka.properties.sasl_oauthbearer_client_secret", format!("{user}-password")),
            ("kafka.properties.sasl_oauthbearer_token_endpoint_url", self.token_endpoint.clone()),
        ]
    }
}

fn settings(port: u16, folder: &Path, jwks: &str) -> String {
    let listener = |name: &str, offset: u16| format!("{name}://127.0.0.1:{}", port + offset);
    let public = [listener("PLAINTEXT", 0), listener("SCRAM", 2), listener("MTLS", 3), listener("OAUTH", 4)].join(",");
    let folder = folder.display();
    format!(
        "listeners={public},{}
advertised.listeners={public}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL,OAUTH:SASL_SSL
inter.broker.listener.name=PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oauth.sasl.oauthbearer.jwks.endpoint.url={jwks}
listener.name.oauth.sasl.oauthbearer.expected.audience={AUDIENCE}",
        listener("CONTROLLER", 1),
    )
}

/// Makes an authority, a certificate of the broker, and one of each user.
fn make_certificates(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "tests");
    let certificate = authority.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("ca.pem"), &certificate).unwrap();
    let issuer = Issuer::new(authority, key);
    for name in ["server"].into_iter().chain(USERS) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        std::fs::write(folder.join(format!("{name}.pem")), &pem).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.keystore.pem")), key.serialize_pem() + &pem).unwrap();
    }
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

/// Serves tokens as an identity provider does, for clients whose secret is right. Writes the public key for the broker.
async fn serve_tokens(folder: &Path) -> String {
    let key = folder.join("tokens.key");
    openssl(&["genrsa", "-out", key.to_str().unwrap(), "2048"], b"");
    let modulus = openssl(&["rsa", "-in", key.to_str().unwrap(), "-noout", "-modulus"], b"");
    let modulus = String::from_utf8(modulus).unwrap();
    let modulus = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
    let public = json!({ "keys": [{
        "kty": "RSA", "kid": "tests", "use": "sig", "alg": "RS256",
        "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB",
    }] });
    std::fs::write(folder.join("jwks.json"), public.to_string()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let give = move |headers: axum::http::HeaderMap| async move {
        let header = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = base64::engine::general_purpose::STANDARD.decode(header.trim_start_matches("Basic ")).unwrap();
        let given = String::from_utf8(given).unwrap();
        let user = given.split(':').next().unwrap();
        if given != format!("{user}:{user}-password") {
            return (axum::http::StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" })));
        }
        (axum::http::StatusCode::OK, Json(token(&key, user)))
    };
    let router = axum::Router::new().route("/token", post(give));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/token")
}

fn token(key: &Path, user: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "alg": "RS256", "typ": "JWT", "kid": "tests" }));
    let claims = part(json!({ "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 3_600 }));
    let signed = format!("{head}.{claims}");
    let signature = openssl(&["dgst", "-sha256", "-sign", key.to_str().unwrap()], signed.as_bytes());
    json!({ "access_token": format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), "token_type": "bearer", "expires_in": 3_600 })
}
