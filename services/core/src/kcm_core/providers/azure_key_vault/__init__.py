"""``azurekv:`` a key in Azure Key Vault or Managed HSM."""
