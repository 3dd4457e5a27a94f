"""``awskms:`` a key in AWS KMS."""
