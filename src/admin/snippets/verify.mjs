import { createHmac, timingSafeEqual } from "node:crypto";

// `body` is the raw request body (a Buffer), before any JSON parser has touched it.
// A Standard Webhooks library can instead check webhook-id, webhook-timestamp and
// webhook-signature, which every signed request carries as well.
export function isGenuine(body, header, secret) {
  const expected = Buffer.from("sha256=" + createHmac("sha256", secret).update(body).digest("hex"));
  const given = Buffer.from(header ?? "");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

// Try it: node verify.mjs "$SIGNATURE" "$SECRET" < body.json
const [, , header, secret] = process.argv;
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
process.exitCode = isGenuine(Buffer.concat(chunks), header, secret) ? 0 : 1;
