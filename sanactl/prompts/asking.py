"""A stream of prompts in, a language model's checked answers out, in the order of the prompts.

A thread reads the prompts, others ask the model (as many as it takes at a time), and the caller gets each answer as soon
as those before it are there. An answer that fails its checks is asked for again, with the reason in the message and
another seed. What comes twice is asked for once.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.prompts.checks import Wanted, answer_text, fault_of
from sanactl.prompts.kept_answers import KeptAnswers
from sanactl.prompts.llm.protocol import Ask, LanguageModel, Reply
from sanactl.prompts.spending import Spending

__all__ = ["Asker", "Job"]

# Jobs under way, and answered ones that wait for those before them, for each message that the model is asked at once.
_AHEAD = 8
# Seconds that a batch waits for one more job.
_LINGER = 0.05
_LONGEST_REASON = 200


@dataclass(eq=False)
class Job:
    """A prompt that something is to be made of.

    Attributes:
        message: what the model is asked first.
        task: the language form or the style.
        wanted: what the answer must be.
        about: the caller's own.
        text: the answer that passed its checks.
        fault: why there is none. A job that a limit of the run has left out has neither text nor fault.
        answer: the last answer that failed its checks, and `reason`, why.
    """

    message: str
    task: str
    wanted: Wanted
    about: Any = None
    text: str | None = None
    fault: str | None = None
    answer: str = ""
    reason: str = ""

    @property
    def settled(self) -> bool:
        return self.text is not None or self.fault is not None

    def ask(self, attempt: int) -> Ask:
        """What the model is asked after so many answers that failed."""
        message = self.message
        if attempt:
            reason = self.reason[:_LONGEST_REASON]
            message += f"\n\n(An earlier answer was refused: {reason}. Answer again, by the rules.)"
        return Ask(message, attempt, self.task, self.wanted.prompt)

    def take(self, reply: Reply) -> None:
        """Checks a reply."""
        text = answer_text(reply.text)
        fault = fault_of(reply, text, self.wanted)
        if fault is None:
            self.text = text
        elif reply.refusal is not None:
            self.fault = fault  # another attempt would be refused, too
        else:
            self.reason, self.answer = fault, reply.text


class Asker:
    """Asks a model about many prompts.

    Args:
        model: an opened language model.
        kept: its answers so far.
        spending: what may be asked for.
        tries: the most answers that are asked for one prompt.
        progress: gets a unit for each job.
    """

    def __init__(
        self,
        model: LanguageModel,
        kept: KeptAnswers,
        spending: Spending,
        *,
        tries: int = 3,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.spending = model, spending
        self._kept, self._tries, self._progress = kept, tries, progress

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs, each with a text or a fault, in their order.

        Raises:
            InputError: the model fails, answers cannot be kept, or a limit of the run is reached. The jobs before the first
                one without an answer have been yielded, and all answers that came are kept.
        """
        run = _Run(self, jobs)
        try:
            for job in run.settled():
                self._progress.advance(1, **(self.spending.fields() if self.model.keeps else {}))
                yield job
        finally:
            run.end()

    def settle(self, jobs: Sequence[Job], stop: threading.Event) -> None:
        """Gets each of at most `batch_size` jobs a text or a fault, as far as the limits of the run allow.

        Args:
            stop: set when no more is to be asked for.

        Raises:
            InputError: the model fails, or answers cannot be kept.
        """
        open_jobs = list(jobs)
        for attempt in range(self._tries):
            asked = [(job, job.ask(attempt)) for job in open_jobs]
            unknown = [(job, ask) for job, ask in asked if not self._known(job, ask)]
            allowed = 0 if stop.is_set() else len(unknown)
            if self.model.keeps:  # else it costs nothing
                allowed = self.spending.take(allowed)
            asked_for = self._ask(unknown[:allowed], stop)
            left_out = [job for job, _ in unknown[allowed if asked_for else 0 :]]
            open_jobs = [job for job in open_jobs if not job.settled and job not in left_out]
        for job in open_jobs:
            times = f", {self._tries} times" if self._tries > 1 else ""
            job.fault = f"{job.reason}{times}"

    def _ask(self, unknown: Sequence[tuple[Job, Ask]], stop: threading.Event) -> bool:
        """Gets replies; returns whether there was the time to."""
        if not unknown:
            return True
        with self._kept.claimed([ask for _, ask in unknown], stop):
            left = [(job, ask) for job, ask in unknown if not self._known(job, ask)]
            if self.model.keeps:
                self.spending.give_back(len(unknown) - len(left))
            if not left or stop.is_set():
                return not left
            asks = [ask for _, ask in left]
            replies = self.model.reply(asks, stop)
            self.spending.add(asks, replies)
            self._kept.put(list(zip(asks, replies, strict=True)))
        for (job, _), reply in zip(left, replies, strict=True):
            job.take(reply)
        return True

    def _known(self, job: Job, ask: Ask) -> bool:
        """Whether the answer is known; the job has taken it then."""
        found = self._kept.get(ask)
        if found is None:
            return False
        if found[1]:
            self.spending.reuse()
        job.take(found[0])
        return True


@dataclass(frozen=True)
class _Event:
    """What a thread tells the caller's: a job that came in, one that is done, or that the last has come."""

    kind: str
    job: Job | None = None
    error: BaseException | None = None


class _Run:
    """The threads of one run of an `Asker`, and the jobs under way."""

    def __init__(self, asker: Asker, jobs: Iterable[Job]) -> None:
        self._asker, self._jobs = asker, jobs
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        at_once = asker.model.concurrency * asker.model.batch_size
        self._slots = threading.Semaphore(_AHEAD * at_once)
        self._waiting: deque[Job] = deque()
        # By the message: jobs that will find the answer of the one that is under way.
        self._alike: dict[str, deque[Job]] = {}
        self._running = 0
        self._error: BaseException | None = None  # of the model
        self._bad_input: BaseException | None = None
        self._limited = self._ended = False
        self._workers = asker.model.concurrency
        # Daemons: the program ends on an interrupt and waits neither for a reply nor for stdin.
        threads = [self._read, *[self._answer] * self._workers]
        for target in threads:
            threading.Thread(target=target, daemon=True).start()

    def settled(self) -> Iterator[Job]:
        """See `Asker.run`."""
        while True:
            while self._waiting and self._waiting[0].settled:
                self._slots.release()
                yield self._waiting.popleft()
            if not self._running and (self._fallen or (self._ended and not self._waiting)):
                break
            self._take(self._events.get())
        if error := self._error or (None if self._limited else self._bad_input):
            raise error
        if self._limited:
            raise InputError(
                f"stopped at {self._asker.spending.reached()}, with more to do",
                hint="the same command goes on from the answers that are kept",
            )

    @property
    def _fallen(self) -> bool:
        """Whether nothing new begins; what is under way comes in and is kept."""
        return self._error is not None or self._limited

    def _take(self, event: _Event) -> None:
        job = event.job
        if job is None:
            # Prompts before a bad line are answered first.
            self._ended, self._bad_input = True, event.error
        elif event.kind == "came":
            self._waiting.append(job)
            if job.settled:
                return
            if job.message in self._alike:
                self._alike[job.message].append(job)
            else:
                self._begin(job, deque())
        else:
            self._running -= 1
            self._error = self._error or event.error
            self._limited |= event.error is None and not job.settled and not self._stop.is_set()
            alike = self._alike.pop(job.message)
            if alike:
                self._begin(alike.popleft(), alike)

    def _begin(self, job: Job, alike: deque[Job]) -> None:
        if not self._fallen:
            self._alike[job.message] = alike
            self._running += 1
            self._work.put(job)

    def _read(self) -> None:
        """The thread that reads the prompts."""
        error: BaseException | None = None
        try:
            for job in self._jobs:
                self._slots.acquire()
                if self._stop.is_set():
                    return
                self._events.put(_Event("came", job))
        except BaseException as found:
            error = found
        self._events.put(_Event("ended", error=error))

    def _answer(self) -> None:
        """A thread that asks the model."""
        while batch := self._batch():
            error: BaseException | None = None
            try:
                self._asker.settle(batch, self._stop)
            except BaseException as found:
                error = found
                self._stop.set()  # at once: no other thread is to ask for more
            for job in batch:
                self._events.put(_Event("done", job, error))

    def _batch(self) -> list[Job]:
        """The next jobs, at most as many as the model takes at once; none at the end."""
        batch: list[Job] = []
        while len(batch) < self._asker.model.batch_size:
            try:
                job = self._work.get(timeout=_LINGER if batch else None)
            except queue.Empty:
                break
            if job is None:
                if batch:
                    self._work.put(None)
                break
            batch.append(job)
        return batch

    def end(self) -> None:
        """Lets the threads end."""
        self._stop.set()
        self._slots.release()
        for _ in range(self._workers):
            self._work.put(None)
