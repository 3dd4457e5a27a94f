"""The implementation of the SDK. Applications use the names in ``kcm.__all__``.

- ``client`` encrypts and decrypts; ``batches``, ``coalescer`` and ``job`` split and gather records;
- ``admin`` has an operator's requests, over the signed ``admin_channel``; ``kills`` places, watches
  and lifts holds; ``statements`` signs what an operator orders;
- ``rpc``, ``retry`` and ``staggered`` ask: once, again, or several regions; ``transport`` is the
  port to the broker;
- ``client_context`` and ``seen_roster`` are the client's configuration and trust;
- ``file_format``, ``evidence_file`` and ``context_binding`` are the formats of files and tables.

Modules here may change in any release. The commands (``kcm.cli``), the operations (``kcm.ops``) and
the development system use them.
"""
