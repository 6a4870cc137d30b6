"""Carries out shell commands for the tests, each on a connection of its own.

In: the command's length in decimal, a line feed, the command. Out: what it prints, then a line feed and 'STATUS n'.
A command ends with its connection.
"""

import os
import signal
import socket
import subprocess
import threading

PORT = 7777


def read_command(conn):
    source = conn.makefile("rb")
    return source.read(int(source.readline())).decode()


def end_with_connection(conn, child):
    """Nothing more comes in: the end of input means that nobody waits any longer."""
    if not conn.recv(1) and child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def carry_out(conn):
    with conn:
        child = subprocess.Popen(
            ["/bin/bash", "-c", read_command(conn)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=end_with_connection, args=(conn, child), daemon=True).start()
        while piece := child.stdout.read1(65536):
            conn.sendall(piece)
        conn.sendall(b"\nSTATUS %d\n" % child.wait())
        # The other thread still reads: closing alone would send nothing.
        conn.shutdown(socket.SHUT_WR)


def attend(conn):
    try:
        carry_out(conn)
    except (OSError, ValueError) as error:
        print("a command was given up:", error)


listener = socket.create_server(("0.0.0.0", PORT))
print("GUEST-READY")
while True:
    threading.Thread(target=attend, args=(listener.accept()[0],), daemon=True).start()
