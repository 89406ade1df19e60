"""The end of a reply that was streamed; the sibling of whole.py."""

from headgate.chat import Finish
from headgate.dialects.contract import Encoder
from headgate.dialects.responses.reply import ResponsesEncoder
from headgate.edge.pipeline.record import ledger_row
from headgate.edge.pipeline.state import Exchange
from headgate.edge.responder import Responder


async def finish_streamed(
    exchange: Exchange, responder: Responder, end: Finish, sink: Encoder
) -> None:
    """Commit the row of a stream whose end is known, then send its terminal frame."""
    progress = exchange.progress
    progress.outcome, progress.status = end.reason, 200
    row = ledger_row(exchange, responder)
    await exchange.record.settle(row)
    # The client is shown what it is billed, and not what an upstream may claim beside it.
    last = Finish(end.reason, progress.usage, end.stop_sequence, row.cost_nano_usd)
    frame = sink.feed([last])
    if exchange.turn is not None and isinstance(sink, ResponsesEncoder):
        await exchange.keep(sink.response)
    responder.finish(frame)
