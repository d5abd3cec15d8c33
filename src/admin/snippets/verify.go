package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
)

// IsGenuine reports whether header is the signature of body, the raw request body before any
// JSON parser has touched it.
func IsGenuine(body []byte, header, secret string) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	expected := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	return hmac.Equal([]byte(header), []byte(expected))
}

// Try it: go run verify.go "$SIGNATURE" "$SECRET" < body.json
func main() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 3 || !IsGenuine(body, os.Args[1], os.Args[2]) {
		os.Exit(1)
	}
}
