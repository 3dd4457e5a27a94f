"""The broker: a supervised connection, streams, the request server, and provisioning."""
