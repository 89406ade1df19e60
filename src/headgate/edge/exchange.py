"""One client request from its arrival to its end: the steps of the pipeline, and what ends it early.

    prepare -> admit -> attempt -> deliver (streamed | whole) -> record

Each step is a module in edge/pipeline/.  What is decided there is decided by pure functions elsewhere.
Whatever goes wrong ends as a Failure in the caller's own protocol: as an HTTP status while nothing was
sent, as an event in the stream afterwards.

Note: when the client disconnects, the server cancels this task wherever it waits, and the `finally`
below closes the upstream connection in the same turn of the loop.  Exceptions are keys that finish
and bill a reply whose client has gone, and requests with an Idempotency-Key (replay.py).
"""

import asyncio

from headgate.chat import Usage
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.edge import answers, upstream
from headgate.edge import log as logs
from headgate.edge.context import EdgeContext
from headgate.edge.entry import Entry
from headgate.edge.pipeline import record
from headgate.edge.pipeline.attempt import Attempts
from headgate.edge.pipeline.prepare import prepare
from headgate.edge.pipeline.state import Arrival, Exchange
from headgate.edge.responder import Responder
from headgate.errors import Failure, Refused
from headgate.net.inbound import Inbound


async def exchange(
    inbound: Inbound, context: EdgeContext, dialect: Dialect, target: RequestTarget, entry: Entry
) -> None:
    """Answer one request to a model, whatever happens; the caller leaves the entry afterwards."""
    arrival = Arrival(inbound, context, dialect, target, entry)
    run = Exchange(arrival)
    responder = Responder(arrival, run.progress, run.id)
    try:
        prepared = await prepare(run, responder)
        if prepared is not None:
            await Attempts(run, prepared, responder).run()
    except Refused as refused:
        await _fail(run, responder, refused.failure)
    except asyncio.CancelledError:
        if not inbound.expired:
            _client_gone(run)
            raise
        await _shut_down(run, responder)
    except Exception as error:  # the one place: whatever else went wrong is ours, and is recorded
        run.progress.where = logs.places(error)
        await _fail(
            run,
            responder,
            Failure(
                "internal",
                "The gateway failed on this request; its log says where.",
                should_retry=False if run.progress.attempts else None,
            ),
        )
    finally:
        record.close(run, responder)


async def _fail(
    run: Exchange, responder: Responder, failure: Failure, *, outcome: str = ""
) -> None:
    """Send the failure in the caller's protocol, in the form that is still possible."""
    progress, dialect = run.progress, run.arrival.dialect
    if progress.route is not None:
        failure = upstream.without_key(failure, progress.route)
    progress.outcome = outcome or failure.kind
    progress.upstream_code = failure.upstream_code or progress.upstream_code
    progress.upstream_text = failure.upstream_text or progress.upstream_text
    responder.quiet()
    if responder.over:
        return
    if run.encoder is None:
        progress.usage = Usage()  # nothing of the reply is shown, so nothing of it is billed
    elif dialect.refuses_in_stream(failure, run.arrival.client.headers):
        responder.start()
    status, headers, body = answers.refusal(dialect, failure, run.id)
    if not responder.started:
        progress.status = status
    await record.commit(run, responder)
    if not responder.started:
        responder.refuse(status, headers, body)
        return
    assert run.encoder is not None  # as only streams are started before their end is known
    await responder.break_off(run.encoder, failure)


async def _shut_down(run: Exchange, responder: Responder) -> None:
    """Report to the client that the gateway ends first, and record what was relayed."""
    attempt = run.attempt
    if attempt.response is not None:
        attempt.response.abort()  # or it would go on writing while the row is committed
    _measure_what_was_relayed(run)
    failure = Failure(
        "unavailable",
        "The gateway is shutting down, and the time for running requests is over.",
        code="shutting_down",
        retry_after_s=1,
        should_retry=not run.progress.attempts,
    )
    await _fail(run, responder, failure, outcome="shutdown")


def _client_gone(run: Exchange) -> None:
    """Bill what was relayed to a client that has disconnected."""
    if run.progress.outcome == "internal":  # else its end was known before it went
        run.progress.outcome = "client_gone"
        _measure_what_was_relayed(run)


def _measure_what_was_relayed(run: Exchange) -> None:
    translator = run.attempt.translator
    if translator is not None and translator.end is None:
        run.measure(translator)
