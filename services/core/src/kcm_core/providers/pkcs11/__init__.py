"""``pkcs11:`` a key on an HSM (RFC 7512)."""
