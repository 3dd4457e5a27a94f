"""The vault: the only component that unseals. It knows keys and no payload."""
