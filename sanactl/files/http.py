"""JSON requests to a server: several at once, repeated after failures that may pass, answered in the order asked."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sanactl.errors import InputError, UsageError, without_stop
from sanactl.files.server_address import address_hint

__all__ = ["Client", "Refusal"]

MAX_REPLY = 32 * 2**20
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds
# Beside 5xx: too many requests, a request that timed out, a conflict of locks.
_PASSING = (408, 409, 425, 429)
_SHOWN = 60  # characters of a reply that is not JSON


class _Passing(Exception):
    """A failure that may pass.

    Attributes:
        after: the server's wish in seconds, or None.
        code: of HTTP, or 0 where there is none.
    """

    def __init__(self, reason: str, after: float | None = None, code: int = 0) -> None:
        super().__init__(reason)
        self.after, self.code = after, code


class Refusal(InputError):
    """A server has answered, and refuses this request: another one may well be taken.

    Attributes:
        code: of HTTP, 400 to 499.
    """

    def __init__(self, message: str, *, code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Client:
    """A server at one base address.

    Args:
        base: the address that paths are put after.
        key_env: the environment variable with the key, sent as `Authorization: Bearer`; unset or empty for none.
        concurrency: the most requests at a time.
        timeout: seconds without a byte after which a request has failed.
        retries: repetitions of a request that failed and may succeed later. The first comes after half a second, and the
            time doubles with each further one, up to 30 s. `Retry-After` is respected. A server that has never
            answered is tried twice.
        kept: what a later run finds of this one ("verdicts"), for errors.
        option: the command line's option that takes `key_env=NAME`, for errors.

    Attributes:
        reached: whether the server has answered anything.

    Raises:
        UsageError: a number is out of range, or the key is not ASCII.
    """

    def __init__(
        self,
        base: str,
        *,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        kept: str = "verdicts",
        option: str = "--judge-option",
    ) -> None:
        for name, value, least in (
            ("concurrency", concurrency, 1), ("timeout", timeout, 1e-3), ("retries", retries, 0),
        ):  # fmt: skip
            if value < least:
                raise UsageError(f"{name} is {value}", hint=f"it takes a number from {least:g}")
        self.base, self.key_env, self.concurrency = base, key_env, concurrency
        self.timeout, self.retries = timeout, retries
        self.kept, self.option = kept, option
        self.reached = self._spoke = False
        key = os.environ.get(key_env, "").strip() if key_env else ""
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"the key in {key_env} has characters that no header takes")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = urllib.request.OpenerDirector()
        # Without the handler of redirects: the key is for the host that the user named.
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
        ):
            self._opener.add_handler(handler())

    def post_all(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The replies to several requests, each in its request's place.

        Raises:
            InputError: a request failed for good. Requests that have not begun are not sent.
        """
        replies: list[Any] = [None] * len(bodies)
        numbers = iter(range(len(bodies)))
        lock, stop = threading.Lock(), threading.Event()
        errors: list[BaseException] = []

        def work() -> None:
            while not stop.is_set():
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    replies[number] = self.post(path, bodies[number], stop=stop)
                except BaseException as error:
                    errors.append(error)
                    stop.set()

        # Daemons: the program ends on an interrupt and does not wait for a reply.
        count = min(self.concurrency, len(bodies))
        threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop.set()
        if errors:
            raise errors[0]
        return replies

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        retries: int | None = None,
        stop: threading.Event | None = None,
    ) -> Any:
        """The reply to one request, as JSON.

        Args:
            path: below the base address; one that begins with a slash is below the host.
            retries: in place of the client's.
            stop: set when the reply is not wanted any more.

        Raises:
            InputError: the server refuses the request, or fails too often; one line with its reason.
        """
        data = json.dumps(body).encode()
        tries = 1 + (self.retries if retries is None else retries)
        for attempt in range(tries):
            try:
                return self._once(path, data)
            except _Passing as failure:
                last = attempt + 1 == tries or (attempt > 0 and not self.reached)
                if last or (stop is not None and stop.is_set()):
                    times = f", {attempt + 1} times" if attempt else ""
                    raise InputError(
                        f"{self.base}: {failure}{times}",
                        hint=f"{self._advice(failure.code)}; the same command goes on from the {self.kept} that are kept",
                    ) from None
                pause = FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25)
                pause = min(LONGEST_WAIT, max(pause, failure.after or 0.0))
                if stop is None:
                    time.sleep(pause)
                else:
                    stop.wait(pause)
        raise AssertionError("a try returns or raises")

    def _once(self, path: str, data: bytes) -> Any:
        parts = urlsplit(self.base)
        whole = path if path.startswith("/") else f"{parts.path}/{path}"
        address = urlunsplit((*parts[:2], whole, parts.query, ""))
        try:
            request = urllib.request.Request(address, data=data, headers=self._headers, method="POST")
            with self._opener.open(request, timeout=self.timeout) as reply:
                self.reached = True
                text, kind = reply.read(MAX_REPLY + 1), reply.headers.get_content_type()
        except urllib.error.HTTPError as error:
            self.reached = True
            with error:
                raise self._refusal(error) from None
        except TimeoutError:
            raise _Passing(f"no reply in {self.timeout:g} s") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Passing(f"no reply in {self.timeout:g} s") from None
            raise _Passing(f"no connection ({_words(error.reason)})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"the connection broke ({_words(error)})") from None
        except ValueError as error:  # an address with a space, for example
            raise UsageError(f"{self.base}: {_words(error)}") from None
        if len(text) > MAX_REPLY:
            raise InputError(f"{self.base}: a reply of more than {MAX_REPLY:,} bytes")
        try:
            found = json.loads(text)
            self._spoke = True
            return found
        except (ValueError, RecursionError):
            reason = f"its reply is not JSON ({_beginning(text, kind)})"
            if self._spoke:
                # What stands between, such as a proxy, cut it short or has said something of its own.
                raise _Passing(reason) from None
            raise InputError(f"{self.base}: {reason}", hint=address_hint(self.base)) from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        what = f"{error.code} {_message(error)}".strip()
        if error.code >= 500 or error.code in _PASSING:
            return _Passing(what, _seconds(error.headers), error.code)
        hint = "see the server's own messages"
        if error.code in (401, 403):
            hint = f"put the server's key into the environment variable {self.key_env} ({self.option} key_env=NAME)"
        elif error.code == 404:
            wrong = address_hint(self.base)
            hint = f"{wrong + ', and ' if wrong else ''}#model is one that GET /v1/models lists"
        elif 300 <= error.code < 400:
            hint = "give the address that it redirects to"
        return Refusal(f"{self.base}: {what}", code=error.code, hint=hint)

    def _advice(self, code: int) -> str:
        """What to do about a failure that did not pass."""
        if code == 429:
            return f"try later, or with fewer requests at a time ({self.option} concurrency=N)"
        return f"see whether the server runs{' and what it logs' if code >= 500 else ''}"


def _message(error: urllib.error.HTTPError) -> str:
    """The server's own words on one line, else what the status means."""
    try:
        text = error.read(65_536).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        found = json.loads(text)
        for name in ("error", "message", "detail"):
            found = found.get(name, found) if isinstance(found, dict) else found
        text = str(found or "")
    except (ValueError, RecursionError):
        pass  # its words are not JSON
    if text.lstrip().startswith("<"):  # a page for browsers
        text = ""
    words = _one_line(text) or _one_line(str(error.reason or "")) or http.client.responses.get(error.code, "")
    return without_stop(words)


def _beginning(text: bytes, kind: str) -> str:
    """What a reply that is not JSON is, and its first characters."""
    shown = _one_line(text[: 8 * _SHOWN].decode(errors="replace"), _SHOWN)
    if not shown:
        return "it is empty"
    begins = repr(shown) if len(text) <= _SHOWN else f"{shown!r}..."
    return begins if kind in ("application/json", "text/plain") else f"{kind}: {begins}"


def _words(what: object) -> str:
    """What an error says, on one line."""
    return _one_line(str(getattr(what, "strerror", None) or what)) or type(what).__name__


def _one_line(text: str, longest: int = 200) -> str:
    """At most so many printable characters of a text."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:longest]


def _seconds(headers: Message) -> float | None:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except (TypeError, ValueError):
        return None
