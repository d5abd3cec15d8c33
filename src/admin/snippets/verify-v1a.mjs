import { createPublicKey, verify } from "node:crypto";

// `body` is the raw request body (a Buffer), before any JSON parser has touched it. `headers` has
// webhook-id, webhook-timestamp and webhook-signature. `publicKey` is the key of this page, whpk_….
export function isGenuine(body, headers, publicKey, nowSeconds = Date.now() / 1000) {
  // An old request is refused, so that nobody can send it again.
  if (!(Math.abs(nowSeconds - Number(headers["webhook-timestamp"])) <= 300)) return false;
  const x = Buffer.from(publicKey.replace(/^whpk_/, ""), "base64").toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  const signed = Buffer.concat([
    Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  // During a rotation there are several signatures. One that is genuine is enough.
  return (headers["webhook-signature"] ?? "").split(" ").some((signature) =>
    signature.startsWith("v1a,") && verify(null, signed, key, Buffer.from(signature.slice(4), "base64")));
}

// Try it: node verify-v1a.mjs "$ID" "$TIMESTAMP" "$SIGNATURE" "$PUBLIC_KEY" < body.json
const [, , id, timestamp, signature, publicKey] = process.argv;
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
process.exitCode = isGenuine(Buffer.concat(chunks), headers, publicKey) ? 0 : 1;
