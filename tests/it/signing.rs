//! Our signatures, checked with independent implementations.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use optio_webhooks::signature::{Signing, SigningSecret};
use uuid::Uuid;

const BODIES: [&str; 3] = ["", r#"{"event":"task.completed"}"#, "ünïcödé ✓\n\0"];
const SECRETS: [&str; 3] = ["s", "a secret with ünïcödé", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];

fn run(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The function that Optio's documentation gives to receivers, unchanged.
const OPTIO_VERIFY: &str = r#"
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

function verifySignature(rawBody, signatureHeader, secret) {
  const expected = "sha256=" + createHmac("sha256", secret)
    .update(rawBody)
    .digest("hex");

  const sig = Buffer.from(signatureHeader);
  const exp = Buffer.from(expected);

  if (sig.length !== exp.length) return false;
  return timingSafeEqual(sig, exp);
}

console.log(verifySignature(readFileSync(0), process.argv[1], process.argv[2]));
"#;

#[test]
fn optios_documented_function_accepts_our_signature_and_no_other() {
    for (body, secret) in BODIES.iter().zip(SECRETS) {
        let ours = SigningSecret::stored(secret.into()).optio(body.as_bytes()).unwrap();
        let verdict = |header: &str| {
            run("node", &["--input-type=module", "-e", OPTIO_VERIFY, "--", header, secret], body.as_bytes())
        };
        assert_eq!(verdict(&ours), "true");
        assert_eq!(verdict(&crate::harness::world::shared_signature("another", body.as_bytes())), "false");
    }
}

#[test]
fn openssl_computes_the_same_signature() {
    for (body, secret) in BODIES.iter().zip(SECRETS) {
        let key = format!("hexkey:{}", hex::encode(secret));
        let theirs = run("openssl", &["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key], body.as_bytes());
        let digest = theirs.rsplit(' ').next().unwrap();
        assert_eq!(SigningSecret::stored(secret.into()).optio(body.as_bytes()).unwrap(), format!("sha256={digest}"));
    }
}

#[test]
fn python_computes_the_same_standard_webhooks_signature() {
    const PYTHON: &str = "
import base64, hmac, sys
secret, signed = sys.argv[1], sys.argv[2].encode() + sys.stdin.buffer.read()
key = base64.b64decode(secret[6:]) if secret.startswith('whsec_') else secret.encode()
print('v1,' + base64.b64encode(hmac.new(key, signed, 'sha256').digest()).decode())
";
    let id = Uuid::from_u128(0x1234);
    for (body, secret) in BODIES.iter().zip(SECRETS) {
        let theirs = run("python3", &["-c", PYTHON, secret, &format!("{id}.1700000000.")], body.as_bytes());
        assert_eq!(SigningSecret::stored(secret.into()).standard(id, 1_700_000_000, body.as_bytes()), theirs);
    }
}

/// OpenSSL verifies the `v1a` signature with nothing but the public key that the API shows.
#[test]
fn openssl_verifies_an_ed25519_signature_with_the_public_key() {
    let secret = SigningSecret::generate(Signing::Ed25519);
    let id = Uuid::from_u128(0x1234);
    let shown = secret.public_key().unwrap();
    let public = STANDARD.decode(shown.strip_prefix("whpk_").unwrap()).unwrap();
    // A public key of RFC 8410 is these bytes and the key.
    let der = [&hex::decode("302a300506032b6570032100").unwrap()[..], &public].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("key"), der).unwrap();
    for body in BODIES {
        let signature = secret.standard(id, 1_700_000_000, body.as_bytes());
        std::fs::write(path("signature"), STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap()).unwrap();
        std::fs::write(path("signed"), format!("{id}.1700000000.{body}")).unwrap();
        let verdict = run(
            "openssl",
            &[
                "pkeyutl",
                "-verify",
                "-pubin",
                "-keyform",
                "DER",
                "-inkey",
                &path("key"),
                "-rawin",
                "-in",
                &path("signed"),
                "-sigfile",
                &path("signature"),
            ],
            b"",
        );
        assert_eq!(verdict, "Signature Verified Successfully");
    }
}
