require "openssl"

# `body` is the raw request body, before any JSON parser has touched it.
def genuine?(body, header, secret)
  expected = "sha256=" + OpenSSL::HMAC.hexdigest("SHA256", secret, body)
  header.to_s.bytesize == expected.bytesize && OpenSSL.fixed_length_secure_compare(header, expected)
end

# Try it: ruby verify.rb "$SIGNATURE" "$SECRET" < body.json
if __FILE__ == $PROGRAM_NAME
  header, secret = ARGV
  exit genuine?($stdin.binmode.read, header, secret)
end
