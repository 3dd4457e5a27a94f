"""How an unsealer's processes give up what a provider's library does not need.

A hostile library that runs as the Core's user could read its files and trace it. So every server
confines itself before it imports a library: ``capabilities`` (none), ``landlock`` (files,
listening, signals, abstract sockets), ``seccomp`` (system calls), and an ``environment`` with the
variables of one provider. ``grants`` decides which files a provider may use, and ``confine`` puts
it together.
"""
