"""The command `autolr`: `autolr report DIRECTORY` makes the report of a search, or serves it while the search runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import autolr
from autolr.errors import RecordError
from autolr.files import write_atomically
from autolr.report import render, write_report
from autolr.search_folder import find_project, read_search

HOST, PORT = "127.0.0.1", 8765  # this machine alone: a report holds tracebacks and names of files
LOOK_SECONDS = 1.0
WRONG = 2  # exit code of what argparse finds wrong; it fits what we find, too


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows `autolr` on the command line. Defaults to this process's own.

    Returns:
        The exit code: 0; 2 with one line on standard error that says what is wrong; 130 if interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    options = _parser().parse_args(arguments)
    try:
        if options.port is not None and not options.watch:
            options.refuse("--port goes with --watch, which serves the page")
        if not options.directory:
            raise RecordError("DIRECTORY must name the folder of a search. Received: an empty name")
        output = options.output
        if output is not None and (not output or Path(output).is_dir() or not Path(output).parent.is_dir()):
            why = ", a folder: add a name, report.html say" if output and Path(output).is_dir() else ""
            raise OSError(f"-o must name a file in a folder that exists. Received: -o {output!r}{why}")
        if options.watch:
            watch(options.directory, port=PORT if options.port is None else options.port, output=output)
        else:
            path = write_report(options.directory, output or "report.html")
            print(f"Wrote {path} ({path.stat().st_size / 1000:,.0f} kB).")
    except (RecordError, OSError) as error:
        print(f"autolr report: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        if options.watch:
            print("\nNo longer watching.")
            return 0
        return 130  # what a shell makes of an interrupt
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autolr", description=autolr.__doc__.splitlines()[0] if autolr.__doc__ else ""
    )
    parser.add_argument("--version", action="version", version=f"autolr {autolr.__version__}")
    report = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "report",
        help="make one self-contained HTML page of a search",
        description="Make one self-contained HTML page of a finished, running, failed or interrupted search. "
        "Needs neither Keras nor TensorFlow.",
    )
    report.add_argument(
        "directory", metavar="DIRECTORY", help="folder of the search: directory/project_name in the tuner's arguments"
    )
    report.add_argument("-o", "--output", metavar="FILE", help="file to write (default: report.html)")
    report.add_argument(
        "--watch",
        action="store_true",
        help=f"serve the page on {HOST} and keep it up to date until Ctrl-C; writes FILE only if -o is given",
    )
    report.add_argument(
        "--port", type=_port, help=f"port to serve on with --watch, 0 for any that is free (default: {PORT})"
    )
    report.set_defaults(refuse=report.error)  # which shows the command's usage
    return parser


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535. Received: {text}")
    return port


class _Page:
    """The page as last made. The main thread makes it; the server's threads only read, and see one pair at a time."""

    def __init__(self, directory: str | os.PathLike[str], output: str | None) -> None:
        self.folder, self.output = find_project(directory), output
        self.current = ("", b"")
        self._runs = False
        self.refresh()
        self.write()

    def refresh(self) -> bool:
        """Make the page again if the search has written something; whether it has."""
        written = self._written()
        if self._version(written) == self.current[0]:
            return False
        self._search = read_search(self.folder)
        self._runs = self._search.state == "running"
        version = self._version(written)
        self.current = (version, render(self._search, version=version).encode())
        return True

    def write(self) -> None:
        """Write the page to the file asked for, if any."""
        if self.output:
            write_atomically(Path(self.output), render(self._search))

    def _version(self, written: Sequence[int]) -> str:
        """Changes when a file of the search does, and every minute while it runs: it may be cut off without a word."""
        minute = int(time.time() // 60) if self._runs else 0
        return f"{hash((minute, *written)) & 0xFFFFFFFFFFFFFFFF:016x}"

    def _written(self) -> list[int]:
        """When each file of the search was written."""
        written = []
        for path in [*self.folder.glob("*.json"), *self.folder.glob("trial_*/*.json")]:
            with contextlib.suppress(OSError):  # gone in the meantime
                written.append(path.stat().st_mtime_ns)
        return written


def watch(directory: str | os.PathLike[str], *, port: int = PORT, output: str | None = None) -> None:
    """Serve a search's report on this machine and keep it up to date, until interrupted.

    Args:
        directory: Folder of the search.
        port: Port to serve on, 0 for any that is free.
        output: A file to keep up to date as well, or None.

    Raises:
        RecordError: If there is no search in `directory`, or more than one.
        OSError: If the port is taken.
        KeyboardInterrupt: When the user ends it.
    """
    page = _Page(directory, output)
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(page))
    except OSError as error:
        raise OSError(f"Port {port} cannot be used ({error.strerror}). Try --port 0 for any that is free.") from error
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            print(f"Watching {page.folder.name!r} at http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
            while True:
                time.sleep(LOOK_SECONDS)
                # A folder that is moved or half written now is looked at again in a second.
                with contextlib.suppress(RecordError, OSError):
                    if page.refresh():
                        _write_or_say(page)
        finally:
            server.shutdown()


def _write_or_say(page: _Page) -> None:
    """Write the page; where that fails, as on a full disk, it is still served."""
    try:
        page.write()
    except OSError as error:
        print(f"{page.output} could not be written ({error}).", file=sys.stderr, flush=True)


def _handler(page: _Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version, content = page.current
            # A web page elsewhere can name this address by a name of its own: only the two real ones get an answer.
            name, _, _ = self.headers.get("Host", "").partition(":")
            if name not in (HOST, "localhost"):
                self._answer(403, "text/plain", b"Ask for 127.0.0.1.\n")
            elif self.path.partition("?")[0] == "/":
                self._answer(200, "text/html", content)
            elif self.path.partition("?")[0] == "/version":
                self._answer(200, "text/plain", version.encode())
            else:
                self._answer(404, "text/plain", b"There is nothing here.\n")

        def _answer(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the browser has left
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a page that asks every other second would fill the terminal."""

    return Handler
