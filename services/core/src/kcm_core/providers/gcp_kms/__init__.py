"""``gcpkms:`` a key in Google Cloud KMS."""
