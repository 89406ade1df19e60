"""Summaries of a conversation as the compaction items that this gateway makes and takes back."""

import base64

COMPACTED = "headgate-summary-1:"  # begins the `encrypted_content` of our own compaction items
SUMMARY = "Summary of the conversation so far:\n\n"


def compacted(summary: str) -> str:
    """Return a summary as the content of a compaction item; encoded for transport, not a secret."""
    return COMPACTED + base64.urlsafe_b64encode(summary.encode()).decode()


def summary_of(content: object) -> str:
    """Return the summary in a compaction item of ours; empty for those of others, which are sealed."""
    if not isinstance(content, str) or not content.startswith(COMPACTED):
        return ""
    try:
        return base64.urlsafe_b64decode(content[len(COMPACTED) :]).decode()
    except ValueError:
        return ""
