"""How a process that drives a sweep is asked to end: SIGINT from a terminal, SIGTERM from whoever takes its machine back.

SIGHUP comes when the terminal goes away and asks for the same; `nohup` keeps it away.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

_LISTEN_SECONDS = 0.005
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Hears SIGINT, SIGTERM and SIGHUP while a `with` block runs; in any thread but the main one it hears nothing.

    The first one asks the sweep to end with its trials put back. Launchers ask more than once: a repeated SIGTERM changes nothing.
    A second SIGINT is a person who does not want to wait: it raises KeyboardInterrupt.

    Attributes:
        by: the signal that asks the sweep to end, if any.
        is_hard: whether there was a second SIGINT.
        lost: what the sweep cannot go on without, if whoever holds this has found it to be gone; one line.
    """

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.by: signal.Signals | None = None
        self.is_hard = False
        self.lost: str | None = None
        self._ends_at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Hear the signals from now on, also those that somebody else has taken for himself meanwhile."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *_ENDING):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # by `nohup`
                handler = signal.signal(number, self._on_signal)
                self._before.setdefault(number, handler)

    @contextlib.contextmanager
    def connection(self) -> Iterator[contextlib.ExitStack]:
        """Yield a stack for a connection to Ray, which is closed at the end of the block with the signals heard meanwhile.

        Ray's end makes SIGTERM deadly again, behind Python's back and a second or more before it is over. Only the main thread can
        undo that, so another one waits for Ray.
        """
        stack = contextlib.ExitStack()
        try:
            yield stack
        finally:
            closing = threading.Thread(target=stack.close, name="end-of-ray")
            closing.start()
            while closing.is_alive():
                self.listen()
                closing.join(_LISTEN_SECONDS)

    @contextlib.contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Let the first signal end the block by KeyboardInterrupt: for what may take minutes and has nothing to put back."""
        self._ends_at_once = True
        try:
            if self.by is not None:
                raise KeyboardInterrupt
            yield
        except SystemExit as error:
            # Ray answers SIGTERM in this way while it starts.
            if error.code != signal.SIGTERM:
                raise
            self.by = signal.SIGTERM
            raise KeyboardInterrupt from error
        finally:
            self._ends_at_once = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.by is None:
            self.by = signal.Signals(number)
            if self._ends_at_once:
                raise KeyboardInterrupt
        elif number == signal.SIGINT:
            self.is_hard = self.by is signal.SIGINT
            self.by = signal.SIGINT
            if self.is_hard:
                raise KeyboardInterrupt


@contextlib.contextmanager
def ending_ignored() -> Iterator[None]:
    """Let nobody end the block by SIGTERM or SIGHUP; in any thread but the main one nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
